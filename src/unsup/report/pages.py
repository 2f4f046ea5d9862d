"""Pages from templates: every text is escaped, and a page is self-contained.

A `Page` is plain data. Its sections are lists of blocks, each the name of a macro of ``macros.html`` and its arguments;
``page.html`` shows them. Only `Markup` (charts, styles, the script) is not escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from unsup.core.escapes import visible

Pairs = tuple[tuple[str, str], ...]
Parts = tuple[Any, ...]
"""A macro and its arguments; it is not shown if the first one, its content, is empty."""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    id: str
    title: str
    blocks: tuple[Parts, ...]


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


def blocks(*found: Parts) -> tuple[Parts, ...]:
    """Those that have something to show."""
    return tuple(parts for parts in found if parts[1])


def sections(*found: tuple[str, str, Iterable[Parts]]) -> tuple[Section, ...]:
    """Those that have something to show, each given as an identifier, a title and blocks."""
    made = (Section(ident, title, blocks(*parts)) for ident, title, parts in found)
    return tuple(section for section in made if section.blocks)


def render(page: Page) -> str:
    """The page as HTML.

    Raises:
        KeyError: a record lacks a field.
    """
    try:
        return environment().get_template("page.html").render(page=page)
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
