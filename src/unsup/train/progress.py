"""The display of training progress: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TextIO, get_args

from rich.console import Console
from rich.live import Live
from rich.text import Text

from unsup.core.errors import InputError
from unsup.core.escapes import visible


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of training progress.

    Attributes:
        done, total: steps or passes; the total is None until a time budget has been converted to steps.
        terms: losses by name.
        validation: the newest validation result as text, or "".
        seconds_left: an estimate, or None.
    """

    done: int
    total: int | None
    terms: dict[str, float]
    validation: str
    seconds_left: float | None


Listener = Callable[[Snapshot], None]
ProgressMode = Literal["auto", "plain", "off"]
_PLAIN_EVERY = 10.0  # seconds between plain lines
_LIVE_EVERY = 0.1


class Progress:
    """Shows the step, losses, validation result, examples per second and remaining time.

    Args:
        mode: ``auto`` (live on a terminal), ``plain``, ``off``, or a function that is called instead.
        start: progress at which the clock for the remaining time started; by default the first shown progress.
    """

    def __init__(
        self,
        mode: ProgressMode | Listener,
        *,
        unit: str = "step",
        start: int | None = None,
        stream: TextIO | None = None,
    ) -> None:
        if not callable(mode) and mode not in get_args(ProgressMode):
            raise InputError(f"progress={mode!r}; expected 'auto', 'plain', 'off' or a function")
        self.listener = mode if callable(mode) else None
        self.mode, self.unit = "off" if callable(mode) else mode, unit
        self.stream = stream or sys.stderr
        self._live = mode == "auto" and self.stream.isatty()
        self._display: Live | None = None
        self._shown = time.monotonic()
        self._started = self._shown
        self._first = start
        self._examples = 0
        self._validation = ""

    def __enter__(self) -> Progress:
        if self._live:
            self._display = Live(Text(""), console=Console(file=self.stream), auto_refresh=False)
            with self._heard():
                self._display.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._display is not None:
            with self._heard():
                self._display.stop()

    def due(self) -> bool:
        """Whether to show a new line now, so that losses are read from the device only if needed."""
        if self.mode == "off" and self.listener is None:
            return False
        often = self._live or self.listener is not None
        return time.monotonic() - self._shown >= (_LIVE_EVERY if often else _PLAIN_EVERY)

    def count(self, examples: int, *, done: int | None = None) -> None:
        """Add ``examples``; the clock of the rate and of the remaining time starts with the first call.

        Args:
            done: units that were done before; by default the unit of the first line is the first of this clock.
        """
        if self._examples == 0:
            self._started = time.monotonic()
            if self._first is None:
                self._first = done
        self._examples += examples

    def validated(self, text: str) -> None:
        """Show the newest validation result on the line; without a terminal, show it at once on a new line."""
        self._validation = text
        if not self._live:
            self._shown = float("-inf")

    def show(self, done: float, total: int | None, terms: dict[str, float]) -> None:
        """Show progress; ``done`` may be between two steps."""
        if self.mode == "off" and self.listener is None:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = math.ceil(done) - 1
        elapsed = max(now - self._started, 1e-9)
        steps = done - self._first if done > self._first else 1
        seconds_left = None if total is None else (total - done) * elapsed / steps
        if self.listener is not None:
            self._shown = now
            self.listener(Snapshot(math.floor(done), total, terms, self._validation, seconds_left))
            return
        left = "?" if seconds_left is None else duration(seconds_left)
        losses = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        size = f"{math.floor(done):,}" + (f"/{total:,}" if total else "")
        parts = [
            f"{self.unit} {size}",
            losses,
            self._validation,
            f"{self._examples / elapsed:,.0f} examples/s" if self._examples else "",
            f"ETA {left}",
        ]
        line = visible("  ".join(p for p in parts if p))
        self._shown = now
        if self._display is None:
            self._write(line)
        else:
            with self._heard():
                self._display.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)

    def note(self, line: str) -> None:
        """One line above the live line."""
        if self.mode == "off":
            return
        line = visible(line)
        if self._display is None:
            self._write(line)
        else:
            with self._heard():
                self._display.console.print(line, highlight=False, markup=False)

    def _write(self, line: str) -> None:
        with self._heard():
            self.stream.write(line + "\n")
            self.stream.flush()

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Stop writing if the terminal or reader is closed; training continues, or is saved, without output."""
        try:
            yield
        except OSError:
            display, self._display = self._display, None
            self._live, self.mode = False, "off"
            if display is not None:
                with suppress(OSError):  # it restores standard output and error
                    display.stop()


def duration(seconds: float) -> str:
    """Seconds in readable form.

    >>> duration(59), duration(3725)
    ('0:59', '1:02:05')
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
