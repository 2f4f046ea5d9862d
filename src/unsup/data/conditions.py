"""Conditions of examples: their labels, columns of their table, or the rows of other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath

import torch
from torch import Tensor

from unsup.core.errors import InputError, nearest
from unsup.core.event import Event, labels
from unsup.data.columns import TableForm
from unsup.data.examples import Examples
from unsup.data.readers import exists
from unsup.data.tables import as_table

LABEL = "label"


def conditioned(
    found: Examples, given: tuple[str, ...], name: str, read: Callable[[str], tuple[str, Examples]]
) -> tuple[Examples, str | list[str]]:
    """``found`` with the conditions in ``given``, and the record of their source.

    Args:
        given: ``("label",)``, names of columns, which are removed from ``x``, or one name or path of other data.
        name: name of ``found``, for errors.
        read: returns the full name and the examples of other data.

    Raises:
        InputError: the source does not exist, or other data does not match ``found`` row by row.
    """
    if given == (LABEL,) and found.label is not None:
        return by_label(found, name), LABEL
    columns = found.columns or ()
    unknown = [c for c in given if c not in columns]
    if not unknown:
        return _by_columns(found, given, name), list(given)
    if given == (LABEL,):
        raise InputError(f"{name} has no labels for given=; name their column (label=, --label), or use other data")
    if len(given) > 1 or (columns and not exists(given[0])):
        what = f"no column {unknown[0]!r}{nearest(unknown[0], columns)}" if columns else "no named columns"
        raise InputError(f"{name} has {what}; given= expects label, columns of a table, or one other data set")
    other_name, other = read(given[0])
    _check_pairs(found, other, name, other_name)
    if not isinstance(other.x, Tensor):
        raise InputError(f"{other_name} is too large: conditions must fit into memory; use fewer of them")
    x = other.x.to(other.event.dtype)
    note = f"given {other_name}: row by row"
    return replace(found, given=x, condition=other.event, notes=(*found.notes, note, *other.notes)), other_name


def by_label(found: Examples, name: str) -> Examples:
    """``found`` with its labels as conditions."""
    if found.labels is None or len(found.labels) < 2:
        raise InputError(f"{name} has only one class, and a constant condition has no information; remove given=")
    return replace(found, given=found.label, condition=labels(len(found.labels)))


def without_columns(found: Examples, given: tuple[str, ...], name: str) -> Examples:
    """``found`` with the columns ``given`` as conditions, removed from ``x``."""
    chosen = tuple(c for c in given if c in (found.columns or ()))
    means_label = given == (LABEL,) and found.label is not None
    return _by_columns(found, chosen, name) if chosen and not means_label else found


def _by_columns(found: Examples, chosen: tuple[str, ...], name: str) -> Examples:
    assert found.columns is not None
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"{name}: given={', '.join(chosen) or 'nothing'}; expected distinct columns")
    kept = [c for c in found.columns if c not in chosen]
    if not kept:
        raise InputError(f"{name} has no columns besides those of given= ({', '.join(chosen)}); use fewer")
    (x, event), (given, condition) = (_columns(found, names) for names in (kept, chosen))
    form = found.form
    if isinstance(form, TableForm):
        parts = {column.name: column for column in (*form.columns, *form.given)}
        form = replace(form, columns=tuple(parts[c] for c in kept), given=tuple(parts[c] for c in chosen))
        found = replace(found, form=form)
    return replace(found, x=x, event=event, columns=tuple(kept), given=given.to(condition.dtype), condition=condition)


def _columns(found: Examples, names: list[str] | tuple[str, ...]) -> tuple[Tensor, Event]:
    assert found.columns is not None
    where = [found.columns.index(name) for name in names]
    supports = found.event.columns
    return as_table(found.tensor[:, torch.tensor(where)], [supports[d] for d in where])


def _check_pairs(found: Examples, other: Examples, name: str, other_name: str) -> None:
    """Raise `InputError` unless row i of ``other`` belongs to row i of ``found``."""
    if found.files and other.files:
        own, theirs = ([str(PurePath(n).with_suffix("")) for n in e.names] for e in (found, other))
        alone = sorted(set(own) ^ set(theirs)) or [a for a, b in zip(own, theirs, strict=True) if a != b]
        if alone:
            raise InputError(
                f"{len(alone)} files of {name} and {other_name} have no file of the same name in the other, first "
                f"{alone[0]!r}; expected pairs"
            )
    if len(found.x) != len(other.x):
        raise InputError(
            f"{name} has {len(found.x):,} examples and {other_name} {len(other.x):,}; expected equal numbers"
        )
    if found.parts != other.parts:
        raise InputError(
            f"{name} and {other_name} are split differently ({_said(found)} and {_said(other)}); expected row i of one "
            "to belong to row i of the other"
        )


def _said(found: Examples) -> str:
    return "by a hash" if found.parts is None else " + ".join(f"{n:,}" for n in found.parts)
