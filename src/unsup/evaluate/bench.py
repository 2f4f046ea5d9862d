"""The real examples that models are measured on: the same, in the same order, for all runs of a comparison."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.model import Model, keyed_generator
from unsup.core.storage import write_inside
from unsup.data import load_data
from unsup.data.catalog import EXAMPLE_OPTIONS
from unsup.data.load import load_batch, options_taken
from unsup.data.missing import gaps_of, settled
from unsup.data.recorded import digest_of
from unsup.data.source import Data, Split, some_of
from unsup.evaluate.anomaly import break_dependence
from unsup.evaluate.conditions import conditions_of
from unsup.evaluate.features import Extractor, Features, choose_extractor
from unsup.evaluate.probe import FEW, raw_features, training_rows
from unsup.evaluate.records import Baselines, Picture, SplitName
from unsup.evaluate.storage import stored_sizes
from unsup.pictures.gallery import Drawn, Gallery

HELD_OUT_CLASS = "class:"
SHOWN = 64  # images in a grid
_ANOMALIES = 500  # least number of anomalies from other data
_NEIGHBOURS_AMONG, _NEIGHBOURS_OF_A_SAMPLE = 60_000, 10  # training examples: at most, and per sample

_REAL, _HELD_OUT = 1, 2  # keys of the choice of examples

Found = TypeVar("Found")
Tell = Callable[[str, int, int], None]
"""Called with a stage, its finished part and its total; 0 and 0 at the start."""


class RealFeatures(NamedTuple):
    """An extractor, and its features of training and of held-out examples."""

    extractor: Extractor
    train: Features
    held_out: Features


@dataclass(frozen=True)
class Measuring:
    """Settings of all measures.

    Attributes:
        examples: number of held-out examples, chosen by a hash of their position; None for all.
        samples: number of samples of a model.
        anomalies: a name or path of other data, ``class:NAME``, or None for test examples with shuffled columns.
        seconds: approximate limit for one slow part.
        seed: of all random numbers.
        split: the held-out examples.
        importance_samples: for a bound, or the effort of an estimate of log Z; None for 50, or 1 without time.
        extractor: of features of samples.
        labels: number of labelled examples per class of the probe with few labels.
    """

    examples: int | None = None
    samples: int = 10_000
    anomalies: str | None = None
    seconds: float = math.inf
    seed: int = 0
    split: SplitName = "test"
    importance_samples: int | None = 1
    extractor: str | Extractor = "auto"
    labels: int = FEW


class Once:
    """Keeps results that several measures share."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def once(self, name: str, compute: Callable[[], Found]) -> Found:
        """The result of ``compute``, computed at the first call with this name only."""
        if name not in self._kept:
            self._kept[name] = compute()
        found: Found = self._kept[name]
        return found


def counting(tell: Tell, stage: str, total: int) -> Callable[[int], None]:
    """A function that adds up the finished parts, and tells their sum."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        tell(stage, done, total)

    return count


class Bench(Once):
    """The real examples that models are measured on, prepared once, at their first use; floors are kept for all models.

    Attributes:
        data: their source.
        measuring: the settings.
        held_out: the whole held-out split.
        test: its examples that are measured.
        tell: called with ``"features"``, the number of finished examples and their total.
        intervals: whether figures have standard errors, intervals and floors, which may take longer than the values.
    """

    intervals = True

    def __init__(self, data: Data, measuring: Measuring, tell: Tell = lambda stage, done, total: None) -> None:
        super().__init__()
        self.data, self.measuring, self.tell = data, measuring, tell
        self.held_out: Split = getattr(data, measuring.split)
        n, examples = len(self.held_out), measuring.examples
        self.test = self.held_out if examples is None else _in_memory(self.held_out.take(some_of(n, examples)))

    @property
    def anomalies(self) -> Tensor:
        return self.odd.x

    @property
    def anomalies_are(self) -> str:
        """A description of the anomalies."""
        asked = self.measuring.anomalies
        if asked is None:
            return "test examples whose columns are shuffled independently: same marginals, but no dependence"
        if asked.startswith(HELD_OUT_CLASS):
            return f"test examples of class {asked.removeprefix(HELD_OUT_CLASS)!r}, which no model was trained on"
        return f"examples of {Path(asked).name}"

    @functools.cached_property
    def gallery(self) -> Gallery:
        train = self.data.train
        lengths = None if train.lengths is None else train.lengths[: len(train.glance)]
        return Gallery(
            self.data.event,
            train.glance,
            lengths=lengths,
            names=self.data.columns,
            rate=self.data.rate,
            letters=self.data.letters,
        )

    @functools.cached_property
    def odd(self) -> Split:
        """The anomalies."""
        asked, data = self.measuring.anomalies, self.data
        if len(self.test) < 2:
            raise InputError(
                f"{data.name or 'this data'} ({data.describe()}) has {len(self.test)} examples to measure on; a "
                "comparison needs two test examples or more: add examples"
            )
        if asked is None:
            return replace(self.test, examples=break_dependence(self.test.x, seed=self.measuring.seed), label=None)
        if asked.startswith(HELD_OUT_CLASS):
            name = asked.removeprefix(HELD_OUT_CLASS)
            assert data.name is not None
            assert data.labels is not None
            gaps, reading = gaps_of(data), {k: v for k, v in data.options.items() if k not in ("without", "limit")}
            if gaps.missing == "impute":
                reading["missing"] = "keep"
            whole = settled(load_data(data.name, **reading), gaps.missing, data.name, gaps)
            assert whole.test.label is not None
            found = _in_memory(whole.test.take(whole.test.label == data.labels.index(name)))
        else:
            taken = options_taken(asked, as_=data.options.get("as_")) & set(EXAMPLE_OPTIONS)
            options: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in data.options.items() if k in taken
            }
            if isinstance(options.get("given"), str):
                del options["given"]  # names a column of this data; labels are found anyway
            batch, _ = load_batch(
                asked,
                data.event,
                condition=data.given,
                labels=data.labels or (),
                form=data.form,
                gaps=gaps_of(data),
                **options,
            )
            found = Split(batch.x, given=batch.given, lengths=batch.lengths)
        if len(found) < 2:
            raise InputError(f"--anomalies {asked} has {len(found)} examples; expected 2 or more")
        return found.take(some_of(len(found), max(self.measuring.examples or 0, _ANOMALIES)))

    @functools.cached_property
    def complete(self) -> tuple[Split, Split]:
        """The training and held-out examples without missing entries, for comparisons with samples, which have none."""
        return self.without_gaps(self.data.train), self.without_gaps(self.held_out)

    def without_gaps(self, split: Split) -> Split:
        """The examples without missing entries."""
        return split.take(self.is_complete(split)) if self.data.event.missing else split

    def is_complete(self, split: Split) -> Tensor:
        """Whether each example has no missing entries, ``(N,)``."""
        return ~split.x.isnan().flatten(1).any(1)

    @functools.cached_property
    def real(self) -> RealFeatures:
        """Features of training and of held-out examples, or of as many of them as samples, chosen by the seed."""
        m, data = self.measuring, self.data
        train, other = (
            split.rows(torch.randperm(len(split), generator=keyed_generator(m.seed, use))[: m.samples])
            for split, use in zip(self.complete, (_REAL, _HELD_OUT), strict=True)
        )
        by = m.extractor
        if isinstance(by, str):
            by = choose_extractor(by, data.event, self.complete[0].glance)
        count = counting(self.tell, "features", len(train) + len(other))
        return RealFeatures(by, by(train, on_chunk=count), by(other, on_chunk=count))

    @functools.cached_property
    def train(self) -> Split:
        """The training examples among which the nearest neighbours of samples are searched."""
        most = min(_NEIGHBOURS_AMONG, _NEIGHBOURS_OF_A_SAMPLE * self.measuring.samples)
        return _in_memory(self.complete[0].take(some_of(len(self.complete[0]), most)))

    @functools.cached_property
    def train_features(self) -> Features:
        return self.real.extractor(self.train.x)

    @property
    def first_held_out(self) -> Tensor:
        """The first held-out examples, at most as many as samples."""
        held_out = self.complete[1]
        return held_out.rows(torch.arange(min(len(held_out), self.measuring.samples)))

    def conditions(self, model: Model, n: int) -> Tensor | None:
        """The conditions for ``n`` samples of a model with a condition: those of training examples."""
        return conditions_of(model, self.data.train, n)

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Held-out examples of domain a and their true translations to domain b."""
        return self.held_out.x, self.held_out.streams["domain_b"].x

    # --- labels ---------------------------------------------------------------------------------------------------

    @functools.cached_property
    def probed(self) -> tuple[Split, Split]:
        """The training examples for probes, and the measured examples; those with missing entries are left out."""
        train = self.complete[0]
        rows = training_rows(len(train), seed=self.measuring.seed)
        return _in_memory(train.take(rows)), self.without_gaps(self.test)

    @property
    def left_out(self) -> dict[str, int]:
        """How many examples `probed` has left out of the training and of the held-out ones, where it has."""
        train, test = self.data.train, self.test
        counts = {"training": len(train) - len(self.complete[0]), "held-out": len(test) - len(self.probed[1])}
        return {which: count for which, count in counts.items() if count}

    @property
    def raw_codes(self) -> tuple[Tensor, Tensor]:
        """Raw data in place of codes."""
        train, test = self.probed
        return raw_features(train.x, self.data.event), raw_features(test.x, self.data.event)

    @functools.cached_property
    def baselines(self) -> Baselines:
        """Real bytes of the measured examples."""
        return {"stored": stored_sizes(self.test.x, self.data.event)}

    def pictures(self, folder: Path) -> dict[str, Picture]:
        """The picture of real data, written to ``folder/pictures``."""
        shown = self.test.take(slice(SHOWN)) if self.data.event.is_image else self.test
        drawn = self.gallery.examples(shown.x, "real data", lengths=shown.lengths)
        return written(folder, {"real": drawn})

    @functools.cached_property
    def digest(self) -> str:
        """Digest of all examples that are used for training or measuring."""
        return digest_of(self.data, self.odd.digest())


def _in_memory(split: Split) -> Split:
    """The same examples, read once."""
    return replace(split, examples=split.x)


def written(folder: Path, drawn: dict[str, Drawn | None]) -> dict[str, Picture]:
    """Write pictures to ``folder/pictures``, except None, and return their records."""
    (folder / "pictures").mkdir(exist_ok=True)
    found: dict[str, Picture] = {}
    for name, one in drawn.items():
        if one is not None:
            file = f"pictures/{name}.png"
            write_inside(folder / file, one.png)
            texts: Picture = {"file": file, "alt": one.alt, "caption": one.caption, "scale": one.scale}
            found[name] = texts | {"plot": one.plot}
    return found
