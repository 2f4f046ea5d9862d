"""Pages from templates: every text is escaped, and a page is self-contained.

A template extends ``base.html``, shows a `Page`, and has a macro for each of its sections. Only `Markup` (charts,
styles, the script) is not escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from unsup.core.escapes import visible

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """A part of a page: the macro ``id`` of the template shows ``view``."""

    id: str
    title: str
    view: Any


@dataclass(frozen=True)
class Page:
    """A whole page: sentences with the answer first, the next commands, and its sections."""

    title: str
    brand: str
    about: str
    summary: tuple[str, ...]
    next: Pairs
    sections: tuple[Section, ...]
    footer: str


def footer(environment: Mapping[str, Any]) -> str:
    """Version and time."""
    version, time = environment.get("unsup"), environment.get("time")
    return " · ".join(([f"unsup {version}"] if version else []) + ([str(time)] if time else []))


def shown(*sections: Section) -> tuple[Section, ...]:
    """The sections that have something to show."""
    return tuple(s for s in sections if s.view)


def render(template: str, **views: Any) -> str:
    """The page that ``template`` makes of ``views``.

    Raises:
        KeyError: a record lacks a field.
    """
    try:
        return environment().get_template(template).render(**views)
    except UndefinedError as error:
        raise KeyError(str(error)) from error


@functools.cache
def environment() -> Environment:
    """The templates; values are escaped."""
    found = Environment(
        loader=PackageLoader("unsup.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {"asset": asset, "policy": policy}
    return found


def _visible(value: Any) -> Any:
    """A value as text, with escapes for invisible characters. Autoescape follows."""
    return value if isinstance(value, Markup) else visible(str(value))


def asset(name: str) -> Markup:
    """A file in the folder of the templates."""
    return Markup(files("unsup.report").joinpath("templates", name).read_text(encoding="utf-8"))


def policy(script: str = "") -> str:
    """What a page may load and run: its own pictures and styles, and exactly ``script``.

    So even text that is not escaped could neither run nor fetch anything.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {allowed}base-uri 'none'; form-action 'none'"
