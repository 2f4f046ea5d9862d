"""What a contest shows on the terminal: a line a contestant."""

from __future__ import annotations

import errno
import io
import re
import sys

import pytest

from unsup.cli.scoreboard import Scoreboard
from unsup.contest.outcome import Moment
from unsup.train.progress import Snapshot


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SHOT = Snapshot(5, 10, {"loss": 1.0}, "validation = 1.2345 bits/dim", 65.0)


def test_plain_lines_tell_progress_figure_and_time_left():
    stream = io.StringIO()
    with Scoreboard(["made", "gaussian-mixture"], stream=stream) as board:
        board.tell(Moment("made", "training", SHOT))
        board.tell(Moment("made", "done", note="= 1.2000 bits/dim"))
        board.tell(Moment("gaussian-mixture", "failed", note="no memory"))
    first, second, third = stream.getvalue().splitlines()
    assert re.fullmatch(r"made +█{10}░{10}  ▸ training 50%  = 1\.2345 bits/dim  ETA 1:05", first)
    assert re.fullmatch(r"made +✓ done  = 1\.2000 bits/dim", second)
    assert re.fullmatch(r"gaussian-mixture +✗ failed  no memory", third)
    assert "\x1b" not in stream.getvalue()


def test_plain_lines_of_one_stage_are_not_a_flood():
    stream = io.StringIO()
    with Scoreboard(["made"], stream=stream) as board:
        for done in range(100):
            board.tell(Moment("made", "training", Snapshot(done, 100, {}, "", 1.0)))
    assert len(stream.getvalue().splitlines()) == 1


def test_without_a_terminal_a_model_has_a_line_at_its_start_and_its_end(monkeypatch):
    stream = io.StringIO()
    with Scoreboard(["made", "vae"], stream=stream) as board:
        for name in ("made", "vae"):
            for done in range(50):
                board.tell(Moment(name, "training", Snapshot(done, 50, {}, "", 1.0)))
                monkeypatch.setattr("time.monotonic", lambda done=done: 1e6 * done)
            for measure in ("likelihood", "FID", "pictures"):
                board.tell(Moment(name, f"measuring {measure}"))
            board.tell(Moment(name, "done", note="= 1.2000 bits/dim"))
    lines = [line.split()[0] for line in stream.getvalue().splitlines()]
    assert lines == ["made", "made", "vae", "vae"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_display_has_one_line_a_contestant_that_fits(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "30")
    stream = Terminal()
    names = ["made", "gaussian-mixture", "score-matching"]
    with Scoreboard(names, stream=stream) as board:
        board.tell(Moment("made", "training", Snapshot(12345, 100000, {}, "validation ≤ 12.3456 bits/dim", 7325.0)))
        board.tell(Moment("gaussian-mixture", "failed", note="the machine is on fire and " * 10))
    last = re.split(r"\r|\n", stream.getvalue())
    text = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in last]
    lines = [line for line in text if line][-3:]
    assert [line.split()[0] for line in lines] == names
    assert max(map(len, lines)) <= width
    assert "▸ training 12%  ≤ 12.3456 bits/dim" in lines[0]
    assert ("░" in lines[0]) == (width >= 100)


class Closed(Terminal):
    """A terminal whose window has been closed."""

    closed = False

    def write(self, text):
        if self.closed:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("closed", [True, False])
def test_a_terminal_that_has_gone_stops_no_contest(plain, closed):
    stream = Closed()
    stream.closed = closed
    streams = sys.stdout, sys.stderr
    with Scoreboard(["made"], plain=plain, stream=stream) as board:
        stream.closed = True
        board.tell(Moment("made", "training", SHOT))
        board.note("a line")
        board.tell(Moment("made", "done", note="= 1.2000 bits/dim"))
    assert (sys.stdout, sys.stderr) == streams
