"""A comparison on the terminal: one line per model, updated in place; elsewhere a line at its start and its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from unsup.core.escapes import visible

if TYPE_CHECKING:
    from unsup.contest.outcome import Moment

_BAR, _ROOMY = 20, 100  # columns of a bar, and of a terminal that has room for bars
_MARKS = {"waiting": "·", "done": "✓", "failed": "✗"}


class Scoreboard:
    """Shows the stage, progress, current figure and time left of every contestant.

    Args:
        names: of the contestants' runs, in order.
        plain: print lines even on a terminal.
    """

    def __init__(self, names: Sequence[str], *, plain: bool = False, stream: TextIO | None = None) -> None:
        from unsup.contest.outcome import Moment

        self.stream = stream or sys.stderr
        self._latest = {name: Moment(name, "waiting") for name in names}
        self._figure = dict.fromkeys(names, "")
        self._width = max(len(visible(name)) for name in names)
        self._silent = False
        live = not plain and self.stream.isatty()
        self._display = Live(console=Console(file=self.stream), auto_refresh=False) if live else None

    def __enter__(self) -> Scoreboard:
        if self._display is not None:
            self._heard(self._display.start)
        if self._display is not None:
            self._refresh()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._display is not None:
            self._refresh()
        if self._display is not None:
            self._heard(self._display.stop)

    def tell(self, moment: Moment) -> None:
        """Show the progress of a contestant."""
        ends = moment.stage in _MARKS or self._latest[moment.name].stage == "waiting"  # the first or the last one
        self._latest[moment.name] = moment
        if moment.snapshot is not None and moment.snapshot.validation:
            self._figure[moment.name] = moment.snapshot.validation.removeprefix("validation ")
        elif moment.stage == "done":
            self._figure[moment.name] = moment.note
        if self._display is not None:
            self._refresh()
        elif ends:
            name, *rest = self._cells(moment)
            self.note(f"{name:<{self._width}}  {'  '.join(p for p in rest if p)}")

    def note(self, line: str) -> None:
        """One more line."""
        line = visible(line)
        if self._display is not None:
            console = self._display.console
            self._heard(lambda: console.print(line, highlight=False, markup=False))
        else:
            self._heard(lambda: (self.stream.write(line + "\n"), self.stream.flush()))

    def _refresh(self) -> None:
        display, lines = self._display, self._lines()
        assert display is not None
        self._heard(lambda: display.update(lines, refresh=True))

    def _heard(self, show: Callable[[], object]) -> None:
        """Stop output after the terminal is closed; the contest continues, or is saved, without it."""
        if self._silent:
            return
        try:
            show()
        except OSError:
            display, self._silent, self._display = self._display, True, None
            if display is not None:
                with suppress(OSError):  # restores standard output and error
                    display.stop()

    def _lines(self) -> Group:
        """One line per contestant, cut at the width of the terminal, with a bar if it is wide enough."""
        assert self._display is not None
        roomy = self._display.console.width >= _ROOMY
        shown = []
        for moment in self._latest.values():
            name, bar, *rest = self._cells(moment)
            line = f"{name:<{self._width}}  " + (f"{bar:<{_BAR}}  " if roomy else "") + "  ".join(p for p in rest if p)
            shown.append(Text(line, no_wrap=True, overflow="ellipsis"))
        return Group(*shown)

    def _cells(self, moment: Moment) -> tuple[str, str, str, str, str]:
        """Name, bar, stage, figure, time left."""
        from unsup.train.progress import duration

        shot, bar, left = moment.snapshot, "", ""
        stage = f"{_MARKS.get(moment.stage, '▸')} {moment.stage}"
        if shot is not None and shot.total:
            share = min(1.0, shot.done / shot.total)
            filled = round(_BAR * share)
            bar = "█" * filled + "░" * (_BAR - filled)
            stage += f" {share:.0%}"
        if shot is not None and shot.seconds_left is not None:
            left = f"ETA {duration(max(0.0, shot.seconds_left))}"
        figure = moment.note if moment.stage == "failed" else self._figure[moment.name]
        return visible(moment.name), bar, visible(stage), visible(figure), left
