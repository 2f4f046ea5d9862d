"""What a person sees: plain lines without a terminal, one live line on it."""

from __future__ import annotations

import errno
import io
import re
import sys

import pytest

import unsup
from unsup.train import progress as module
from unsup.train.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_tell_loss_validation_speed_and_time_left():
    stream = io.StringIO()
    with Progress("auto", stream=stream) as progress:
        for done in range(1, 4):
            progress.count(64)
            progress.validated("validation = 1.2345 bits/dim")
            progress.show(done, 10, {"loss": 2.0})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    pattern = r"step 3/10  loss 2  validation = 1\.2345 bits/dim  [\d,]+ examples/s  ETA \d+:\d\d"
    assert re.fullmatch(pattern, lines[-1])
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("before", [0, 500])
def test_the_first_line_knows_how_many_steps_its_clock_has_seen(before, monkeypatch):
    now, seen = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Progress(seen.append) as progress:
        for step in range(before, before + 100):
            progress.count(64, done=step)
            now[0] += 0.5
        progress.show(before + 100, before + 1000, {"loss": 2.0})
    assert seen[0].seconds_left == pytest.approx(900 * 0.5)


def test_a_terminal_gets_one_live_line():
    stream = Terminal()
    with Progress("auto", stream=stream) as progress:
        progress.show(1, 10, {"loss": 2.0})
        progress.show(2, 10, {"loss": 1.5})
    assert "\x1b[" in stream.getvalue()
    assert "loss 1.5" in stream.getvalue()


def test_off_says_nothing():
    stream = io.StringIO()
    with Progress("off", stream=stream) as progress:
        progress.validated("x")
        progress.show(1, 2, {})
        progress.note("x")
        assert not progress.due()
    assert stream.getvalue() == ""


def test_training_prints_nothing_on_standard_output(capsys):
    data = unsup.load_data("digits", limit=100)
    unsup.fit(unsup.create("made", data.event, preset="tiny"), data, steps=3, progress="plain")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step 3/3" in captured.err


def test_durations():
    assert [duration(s) for s in (0, 61, 3600)] == ["0:00", "1:01", "1:00:00"]


class Closed(Terminal):
    """A terminal whose window has been closed."""

    closed_at = 1 << 30

    def write(self, text):
        if self.tell() >= self.closed_at:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("mode", ["auto", "plain"])
def test_a_terminal_that_has_gone_stops_nothing(mode):
    stream = Closed()
    streams = sys.stdout, sys.stderr
    with Progress(mode, stream=stream) as progress:
        progress.show(1, 10, {"loss": 2.0})
        stream.closed_at = 0
        progress.note("a symptom")
        progress.show(2, 10, {"loss": 1.5})
        progress.validated("x")
        assert not progress.due()
    assert "loss 2" in stream.getvalue()
    assert "loss 1.5" not in stream.getvalue()
    assert (sys.stdout, sys.stderr) == streams
    with Progress(mode, stream=stream) as progress:
        progress.show(1, 10, {"loss": 2.0})
