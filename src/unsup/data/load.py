"""`load_data`, `load_examples` and `load_batch`: load examples from a name or a path."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.config import options_of
from unsup.core.errors import InputError, kind_of, nearest
from unsup.core.event import Event
from unsup.data import tables
from unsup.data.columns import TableForm
from unsup.data.conditions import by_label, conditioned, without_columns
from unsup.data.events import as_event
from unsup.data.examples import Examples
from unsup.data.form import Form
from unsup.data.labelled import with_few_labels
from unsup.data.memory import from_arrays
from unsup.data.missing import Gaps, settled, values_of
from unsup.data.precision import of_type
from unsup.data.readers import FRAME, Frame, Place, checked, full_name, options_taken, place_of
from unsup.data.sound import SoundForm
from unsup.data.source import Data, Split, hashed_order
from unsup.data.streams import with_stream
from unsup.data.text import BytesForm, TextForm
from unsup.data.vocabulary import WordsForm

__all__ = [
    "from_arrays",
    "full_name",
    "load_batch",
    "load_data",
    "load_examples",
    "load_supported",
    "options_taken",
]

_log = logging.getLogger(__name__)
_FRAME_NAME = "the data frame"
_GIVEN = (tuple[str, ...] | str | None, None)


def load_data(
    name_or_path: str | Path | Frame | ArrayLike,
    *,
    limit: int | None = None,
    without: str | None = None,
    given: tuple[str, ...] | str | None = None,
    unlabelled: str | Path | None = None,
    domain_b: str | Path | None = None,
    labels: int | None = None,
    label_seed: int | None = None,
    as_: Literal["bytes"] | None = None,
    **options: Any,
) -> Data:
    """Train, validation and test splits of a named data set or of the user's own file or folder.

    Names of the catalogue take precedence (write ``./digits`` for a folder of that name). A path may be a folder of
    images, of sound or of text (subfolders are labels), of ``.npy`` files or with ``train.npz``; one recording, text,
    or image with several frames; a ``.npy``, ``.npz``, ``.csv``, ``.csv.gz``, ``.parquet`` or ``.jsonl`` file. Files of
    other kinds are refused, unless ``as_="bytes"``. ``codes:RUN`` are the codes of a run. Splits are fixed: the
    official ones, those of the file, or 80/10/10 by a hash of each row or image file, so that adding, deleting or
    sorting rows moves no other row (in a table in which most rows repeat, equal rows are split at random); text and
    sound are split in their order.

    Args:
        name_or_path: e.g. ``"digits"``, ``"photos/"``, ``"table.csv"``, ``"codes:runs/vae"``; or a data frame of pandas
            or polars, or an Arrow table. An array, a tensor or a list is read by `from_arrays`, whose options it then
            takes.
        limit: maximum number of training examples.
        without: class that is removed from all splits, so that its examples can be used as anomalies.
        given: conditions of the examples: "label", columns of a table (which are removed from x), or the name or path
            of other data with matching rows or file names.
        unlabelled: name or path of additional examples of the same kind, without labels, for models that use both.
        domain_b: name or path of a second domain, not paired with the first, for models that translate.
        labels: number of training examples that keep their labels, the same of each class; all training examples are
            the stream "unlabelled" as well. For models that learn from few labels.
        label_seed: seed by which these are drawn, 0 by default.
        as_: "bytes" to read a file of any kind as its bytes.
        **options: options of the data, e.g. ``resize``, ``alpha`` (images); ``label``, ``drop`` (tables); ``length``
            (text, sound, bytes); ``field`` (JSON lines); ``channels``, ``in_memory`` (arrays); ``changed_data``
            (codes); ``n`` (2-D densities, shapes, stripes, markov); ``data_dir``, ``download`` (standard sets).
            Additional streams and conditions are read with the same options, if they support them.

    Raises:
        InputError: unknown name, path or option (the message suggests the nearest), or unusable data.

    >>> data = load_data("digits")
    >>> print(data.event)
    image of 1×8×8, ordinal(17)
    >>> data.train.batch(torch.arange(2)).x.shape
    torch.Size([2, 1, 8, 8])
    >>> print(load_data("digits", given="label").given)
    nominal(10)
    """
    place: Place | None
    if isinstance(name_or_path, Frame):
        place = Place(_FRAME_NAME, FRAME, name_or_path)
    elif isinstance(name_or_path, (str, os.PathLike)):
        place = place_of(name_or_path, as_=as_)
    else:
        place = None  # in memory
    own = {"limit": limit, "without": without, "given": given, "unlabelled": unlabelled, "domain_b": domain_b}
    own |= {"labels": labels, "label_seed": label_seed, "as_": as_}
    if place is None:
        return _in_memory(name_or_path, {k: v for k, v in own.items() if v is not None} | options)
    chosen = checked(place.name, place.options | options_of(load_data), own | options)
    if limit is not None and limit < 1:
        raise InputError(f"{place.name}: limit={limit}; expected the number of training examples, at least 1")
    if label_seed is not None and labels is None:
        raise InputError(
            f"{place.name}: label_seed={label_seed} chooses the examples with labels; pass labels= as well"
        )
    if chosen.get("data_dir") is not None:
        chosen["data_dir"] = str(Path(chosen["data_dir"]).absolute())
    reading = {k: v for k, v in chosen.items() if k not in own}
    # Downloaded files are found in the cache later.
    recorded = {k: list(v) if isinstance(v, tuple) else v for k, v in reading.items() if k != "download"}
    found = place.read(reading)
    if "given" in chosen:
        found, recorded["given"] = conditioned(found, _words(chosen["given"]), place.name, _reader_of_pairs(reading))
    recorded |= {k: chosen[k] for k in ("limit", "without", "labels", "label_seed", "as_") if k in chosen}
    by_content = found.hashes is not None
    name = None if place.target == FRAME else place.name  # cannot be loaded again
    data = replace(found.data(place.name), name=name, options=recorded)
    if "without" in chosen:
        data = _without(data, chosen["without"])
    if "limit" in chosen and chosen["limit"] < len(data.train):
        # Rows split by content are sorted by hash, so that other rows do not change the choice.
        order = torch.arange(len(data.train)) if by_content else torch.from_numpy(hashed_order(len(data.train)))
        data = replace(data, train=data.train.take(order[: chosen["limit"]]))
    data = settled(data, chosen.get("missing"), place.name)
    for stream in ("domain_b", "unlabelled"):
        if stream in chosen:
            data = with_stream(data, stream, _second(data, stream, chosen))
    if "labels" in chosen:
        data = with_few_labels(data, chosen["labels"], chosen.get("label_seed", 0))
    return data


def load_supported(
    name_or_path: str | Path | Frame,
    *,
    takes_missing: bool,
    takes_lengths: bool = False,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> Data:
    """`load_data` for models that may not support missing values: rows that have them are then dropped.

    For models that support lengths, the last window of a text is kept even if it is shorter.

    Args:
        name_or_path: as in `load_data`.
        takes_missing: whether the models support missing values (`Model.takes_missing`).
        takes_lengths: whether the models support lengths (`Model.takes_lengths`).
        defaults: options of the data, by its kind, if they are not given (`Model.data_defaults`).
        **options: as in `load_data`; ``missing`` decides itself.

    Raises:
        InputError: fewer than half of the rows would be left.
    """
    if not isinstance(name_or_path, Frame):
        place = place_of(name_or_path, as_=options.get("as_"))
        kind = place.target.partition(":")[0].rpartition(".")[2]
        own = {} if options.get("documents") else dict((defaults or {}).get(kind, {}))
        own |= {"tail": True} if takes_lengths and "tail" in place.options and not options.get("documents") else {}
        options = own | {k: v for k, v in options.items() if v is not None or k not in own}
    data = load_data(name_or_path, **options)
    if takes_missing or not data.event.missing or options.get("missing") is not None:
        return data
    kept = load_data(name_or_path, **options, missing="drop")
    before, after = (len(d.train) + len(d.validation) + len(d.test) for d in (data, kept))
    if 2 * after < before:
        raise InputError(
            f"{data.name} has missing values in {before - after:,} of {before:,} examples, too many to drop them; use "
            "--missing impute (or drop), or a model that supports missing values (unsup data FILE lists them)"
        )
    return kept


def _in_memory(x: Any, options: Mapping[str, Any]) -> Data:
    """What is in memory already, with the options of `from_arrays`."""
    if not isinstance(x, (np.ndarray, Tensor, list, tuple)):
        raise InputError(
            f"load_data was given {kind_of(x)}; expected the name of a set, a path, or an array, tensor or list of rows"
        )
    known = inspect.signature(from_arrays).parameters.keys() - {"x"}
    for name in options:
        if name not in known:
            raise InputError(f"data in memory has no option {name!r}{nearest(name, known)}")
    return from_arrays(x, **options)


def _words(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _reader_of_pairs(options: Mapping[str, Any]) -> Any:
    """The reader of the conditions, with the options of the examples that it supports."""

    def read(name_or_path: str) -> tuple[str, Examples]:
        place = place_of(name_or_path)
        same = {k: v for k, v in options.items() if k in place.options}
        return place.name, place.read(same)

    return read


def _second(data: Data, stream: str, chosen: Mapping[str, Any]) -> Data:
    """The data of an additional stream, read with those options of the first that it supports."""
    as_ = chosen.get("as_")
    place = place_of(chosen[stream], as_=as_)
    same = {k: v for k, v in chosen.items() if k in place.options}
    if stream == "domain_b":
        return load_data(chosen[stream], as_=as_, **same, **{k: chosen[k] for k in ("limit", "without") if k in chosen})
    if (
        place.is_table
        and "label" in same
        and place.path is not None
        and not tables.has_column(place.path, same["label"])
    ):
        del same["label"]
    columns = data.options.get("given")
    if isinstance(columns, list):
        same["given"] = tuple(columns)
    found = load_data(chosen[stream], as_=as_, **same)
    known = found.labels is not None and chosen.get("without") in found.labels
    return _without(found, chosen["without"]) if known else found


def _without(data: Data, wanted: str) -> Data:
    """``data`` without the examples of one class."""
    if data.labels is None:
        raise InputError(f"{data.name} has no labels, so class {wanted!r} cannot be removed")
    if wanted not in data.labels:
        raise InputError(f"{data.name} has no class {wanted!r}{nearest(wanted, data.labels)}")
    number = data.labels.index(wanted)

    def rest(split: Split) -> Split:
        assert split.label is not None
        return split.take(split.label != number)

    left = replace(data, train=rest(data.train), validation=rest(data.validation), test=rest(data.test))
    if not len(left.train) or not len(left.validation) or not len(left.test):
        raise InputError(f"{data.name} without its class {wanted!r} has an empty split; remove another class")
    return left


def load_examples(name_or_path: str | Path | Frame, event: Event, **options: Any) -> tuple[Tensor, tuple[str, ...]]:
    """A file of the user, or the test split of a named data set, as raw examples of a given event.

    Args:
        name_or_path: as in `load_data`, or a single image.
        event: event of the examples, e.g. ``model.event``.
        **options: as in `load_data`; columns in ``given`` are removed from x, other values of it are ignored. Bytes
            and WAV are cut into windows of the length of the event.

    Returns:
        x ``(N, *event.shape)``, in the order of the file, and the name of each row or file.

    Raises:
        InputError: the examples have a different shape, or values outside the support of the event.

    >>> x, names = load_examples("digits", load_data("digits").event)
    >>> len(x), names[0]
    (360, 'digit 1237')
    """
    batch, names = load_batch(name_or_path, event, **options)
    return batch.x, names


def load_rows(name_or_path: str | Path, *, gaps: Gaps | None = None, **options: Any) -> Examples:
    """All examples of a data set or file in its own order, before any split, with the names of rows and columns.

    Args:
        name_or_path: what `load_data` takes.
        gaps: `Run.gaps`, which fill missing entries; by default, they are filled with medians of all rows.
        **options: what the data takes.

    >>> found = load_rows("digits")
    >>> len(found.names), found.event.dims
    (1797, 64)
    """
    place = place_of(name_or_path, as_=options.pop("as_", None))
    found = place.read(checked(place.name, place.options, options))
    if not found.event.missing or options.get("missing") != "impute":
        return found
    gaps = gaps or Gaps(x=values_of(found.tensor, found.event))
    event = replace(found.event, missing=False)
    return replace(found, x=of_type(gaps.filled(found.whole, found.columns, place.name).x, event), event=event)


def load_batch(
    name_or_path: str | Path | Frame,
    event: Event,
    *,
    condition: Event | None = None,
    labels: Sequence[str] = (),
    form: Form | None = None,
    gaps: Gaps | None = None,
    cover: bool = False,
    **options: Any,
) -> tuple[Batch, tuple[str, ...]]:
    """`load_examples` with lengths and, if a model needs them and the data has them, conditions.

    Args:
        name_or_path: as in `load_data`, a single image, or a data frame.
        event: event of the examples.
        condition: event of the conditions, e.g. ``model.given``; None for no conditions.
        labels: names of the classes if the condition is a class, e.g. ``data.labels``. Classes are matched by name,
            not by their order in the file.
        form: `Data.form` of the training data. Columns of a table are then matched by name, and words keep their
            numbers.
        gaps: what was done about missing entries of the training data (`Run.gaps`), which is done here too; the option
            ``missing`` overrides it.
        cover: of a series, whether every row is in a window, of which the last may overlap the one before it.
        **options: as in `load_data`, including ``given``. Without it, labels are the conditions if the condition is
            a class.

    Returns:
        A `Batch` of all examples, with ``given`` None if the data has no conditions, and their names.

    Raises:
        InputError: examples or conditions of a different shape, or outside their event.

    >>> data = load_data("digits", given="label")
    >>> batch, names = load_batch("digits", data.event, condition=data.given)
    >>> bool((batch.given == data.test.label).all())
    True
    """
    if isinstance(name_or_path, Frame):
        place = Place(_FRAME_NAME, FRAME, name_or_path)
    else:
        place = place_of(name_or_path, single=True, as_=options.pop("as_", None))
    chosen = checked(place.name, place.options | {"given": _GIVEN}, options)
    given = _words(chosen.pop("given", ()))
    windows = event.layout in ("sequence", "vector") and not place.is_table
    if "length" in place.options and windows and (place.path is not None or isinstance(form, SoundForm)):
        chosen.setdefault("length", event.shape[0])
    if isinstance(form, TextForm | BytesForm):
        how = {"tail": form.tail} | (
            {"tokens": form.tokens, "documents": form.documents} if isinstance(form, TextForm) else {}
        )
        for option in how.keys() & place.options.keys():
            chosen.setdefault(option, how[option])
    if "in_memory" in place.options:
        chosen["in_memory"] = True
    if "missing" in place.options and gaps is not None and gaps.missing is not None:
        chosen.setdefault("missing", gaps.missing)
    if isinstance(form, SoundForm):
        own = {"mu_law": form.mu_law, "rate": form.rate, "tail": form.tail}
        chosen = {k: v for k, v in own.items() if k in place.options} | chosen
    if isinstance(form, TableForm) and (place.is_table or place.target == FRAME) and place.path is not None:
        place_form = form if condition is not None else replace(form, given=())
        reading = {k: v for k, v in chosen.items() if k not in ("drop", "categorical", "length", "time")}
        found = tables.read_like(place.path, place_form, cover=cover, **reading)
        given = given or tuple(column.name for column in place_form.given)
    elif isinstance(form, WordsForm) and place.path is not None:
        found = form.read(place.path, chosen.get("length", event.shape[0]))
    else:
        found = place.read(chosen)
    for kind, noun in ((TextForm, "text"), (SoundForm, "sound")):
        if isinstance(found.form, kind) and form is not None and not isinstance(form, kind | BytesForm):
            raise InputError(f"{place.name} is {noun}, and the training data is not; expected {event}")
    if isinstance(form, TextForm):
        found = form.same_tokens(found, place.name)
    if isinstance(found.form, TableForm | SoundForm | TextForm) or "missing" in chosen:
        for note in found.notes:
            _log.warning("%s: %s", place.name, note)
    if condition is None:
        found = without_columns(found, given, place.name)
    elif given:
        found, _ = conditioned(found, given, place.name, _reader_of_pairs(chosen))
    elif found.label is not None and not condition.shape:
        found = by_label(found, place.name)
    start = 0
    if place.splits_itself:
        found, (train, validation, _) = found.arranged(place.name)
        start = train + validation
    part = found.whole.take(slice(start, None))
    if chosen.get("missing") == "impute" and isinstance(part.examples, Tensor):
        part = (gaps or Gaps()).filled(part, found.columns, place.name)
    x = as_event(part.x, found.event, event, place.name, found.columns or ())
    lengths = torch.full((len(x),), x.shape[1]) if event.open and part.lengths is None else part.lengths
    batch = Batch(x, lengths=lengths)
    if condition is not None and part.given is not None:
        batch = replace(batch, given=_as_condition(part.given, found, condition, labels, place.name))
    return batch, tuple(found.names[start:])


def _as_condition(given: Tensor, found: Examples, condition: Event, labels: Sequence[str], name: str) -> Tensor:
    """Conditions of a file as conditions of a model: classes by name, others by shape and range."""
    assert found.condition is not None
    if not found.condition.shape and found.labels is not None and labels:
        unknown = [word for i, word in enumerate(found.labels) if word not in labels and bool((given == i).any())]
        if unknown:
            raise InputError(f"{name} has an unknown class {unknown[0]!r}{nearest(unknown[0], labels)}")
        given = torch.tensor([labels.index(word) if word in labels else -1 for word in found.labels])[given]
    return as_event(given, found.condition, condition, f"the conditions of {name}")
