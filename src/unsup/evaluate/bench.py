"""The real examples that runs are measured against: the same, in the same order, for every run of a comparison."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.storage import write_inside
from unsup.data import load_data
from unsup.data.catalog import EXAMPLE_OPTIONS
from unsup.data.load import load_batch, options_taken
from unsup.data.recorded import digest_of
from unsup.data.source import Data, Split, some_of
from unsup.evaluate.anomaly import break_dependence
from unsup.evaluate.features import Features
from unsup.evaluate.probe import majority_share, probe, raw_features, training_rows
from unsup.evaluate.records import Baselines, Picture, Probe, StoredSize
from unsup.evaluate.samples import RealFeatures, real_features
from unsup.evaluate.storage import stored_sizes
from unsup.pictures.gallery import Drawn, Gallery

HELD_OUT_CLASS = "class:"
SHOWN = 64  # images in a grid
_ANOMALIES = 500  # of other data, as many at least as of the test examples
_NEIGHBOURS_AMONG = 60_000  # training examples


@dataclass(frozen=True)
class Measuring:
    """What every run of a comparison is measured by.

    Attributes:
        examples: test examples, chosen by a hash of their position.
        samples: draws that are judged.
        anomalies: a name or path of other data, ``class:NAME``, or None for test examples whose entries were dealt out
            anew, each column on its own.
        seconds: what one slow part of the measuring of one run may take about.
        seed: of all draws.
    """

    examples: int
    samples: int
    anomalies: str | None = None
    seconds: float = 30.0
    seed: int = 0


class Bench:
    """The real examples that runs are measured against, read and prepared once."""

    def __init__(self, data: Data, measuring: Measuring) -> None:
        self.data, self.measuring = data, measuring
        if len(data.test) < 2:
            raise InputError(
                f"{data.name or 'this data'} ({data.describe()}) leaves {len(data.test)} to measure on; a comparison "
                "needs two test examples or more: add examples"
            )
        self.test = _in_memory(data.test.take(some_of(len(data.test), measuring.examples)))
        self.odd, self.anomalies_are = self._find_anomalies()
        self.gallery = Gallery(
            data.event,
            data.train.glance,
            lengths=None if data.train.lengths is None else data.train.lengths[: len(data.train.glance)],
            names=data.columns,
            rate=data.rate,
        )

    @property
    def anomalies(self) -> Tensor:
        """The raw anomalies; ``odd`` is these with what goes with them."""
        return self.odd.x

    def _find_anomalies(self) -> tuple[Split, str]:
        asked, data = self.measuring.anomalies, self.data
        if asked is None:
            what = "test examples with each entry taken from another one: the marginals stay and what ties them goes"
            broken = break_dependence(self.test.x, seed=self.measuring.seed)
            return replace(self.test, examples=broken, label=None), what
        if asked.startswith(HELD_OUT_CLASS):
            name = asked.removeprefix(HELD_OUT_CLASS)
            assert data.name is not None
            assert data.labels is not None
            whole = load_data(data.name, **{k: v for k, v in data.options.items() if k not in ("without", "limit")})
            assert whole.test.label is not None
            found = _in_memory(whole.test.take(whole.test.label == data.labels.index(name)))
            what = f"test examples of class {name!r}, which no model was trained on"
        else:
            taken = options_taken(asked) & set(EXAMPLE_OPTIONS)
            options = {k: tuple(v) if isinstance(v, list) else v for k, v in data.options.items() if k in taken}
            if isinstance(options.get("given"), str):
                del options["given"]  # other data has rows of its own; labels are found without being asked for
            batch, _ = load_batch(asked, data.event, condition=data.given, labels=data.labels or (), **options)
            found = Split(batch.x, given=batch.given, lengths=batch.lengths)
            what = f"examples of {Path(asked).name}"
        if len(found) < 2:
            raise InputError(f"--anomalies {asked} gives {len(found)} examples; expected 2 or more")
        return found.take(some_of(len(found), max(self.measuring.examples, _ANOMALIES))), what

    @functools.cached_property
    def real(self) -> RealFeatures:
        return real_features(self.data, self.measuring.samples, seed=self.measuring.seed)

    @functools.cached_property
    def train(self) -> Split:
        """The training examples that a sample's nearest neighbours are looked for among."""
        return _in_memory(self.data.train.take(some_of(len(self.data.train), _NEIGHBOURS_AMONG)))

    @functools.cached_property
    def train_features(self) -> Features:
        return self.real.extractor(self.train.x)

    @functools.cached_property
    def probed(self) -> Split:
        """The training examples that probes are fitted on."""
        return _in_memory(self.data.train.take(training_rows(len(self.data.train), seed=self.measuring.seed)))

    @functools.cached_property
    def baselines(self) -> Baselines:
        """Real bytes of the measured examples, and what labels can be read off the raw data."""
        found: Baselines = {"stored": [], "raw_probe": None, "majority": None}
        found["stored"] = [cast(StoredSize, s.to_json()) for s in stored_sizes(self.test.x, self.data.event)]
        if self.data.train.label is not None and self.test.label is not None:
            train, test = self.probed, self.test
            assert train.label is not None
            try:
                fitted, asked = (raw_features(s.x, self.data.event) for s in (train, test))
                found["raw_probe"] = cast(Probe, probe(fitted, train.label, asked, self.test.label).to_json())
            except InputError:  # one class only, say: nothing can be read off
                return found
            found["majority"] = majority_share(self.data.train.label, self.test.label)
        return found

    def pictures(self, folder: Path) -> dict[str, Picture]:
        """The picture of real data, written to ``folder/pictures``."""
        drawn = self.gallery.examples(self.test.x[:SHOWN] if self.data.event.is_image else self.test.x, "real data")
        return written(folder, {"real": drawn})

    @functools.cached_property
    def digest(self) -> str:
        """Of all examples that training or measuring sees, as it is recorded."""
        return digest_of(self.data, self.odd.digest())


def _in_memory(split: Split) -> Split:
    """The same examples, read once."""
    return replace(split, examples=split.x)


def finite(record: Any) -> Any:
    """The record with None in the place of numbers that JSON has not.

    >>> finite({"a": [1.0, math.nan], "b": (math.inf,)})
    {'a': [1.0, None], 'b': [None]}
    """
    if isinstance(record, dict):
        return {k: finite(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [finite(v) for v in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def written(folder: Path, drawn: dict[str, Drawn | None]) -> dict[str, Picture]:
    """Write pictures to ``folder/pictures`` and tell what there is to say of them; those that are None are left out."""
    (folder / "pictures").mkdir(exist_ok=True)
    found: dict[str, Picture] = {}
    for name, one in drawn.items():
        if one is not None:
            file = f"pictures/{name}.png"
            write_inside(folder / file, one.png)
            said: Picture = {"file": file, "alt": one.alt, "caption": one.caption, "scale": one.scale}
            found[name] = said | {"plot": one.plot}
    return found
