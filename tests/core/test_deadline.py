"""A deadline ends what computes for too long, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch

from unsup.core import deadline
from unsup.core.deadline import Deadline, OutOfTime


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [100.0]
    deadline._clean_until.set(float("-inf"))  # of other clocks
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_work_ends_at_the_first_operation_after_the_time(clock):
    done = []

    def work():
        for _ in range(100):
            torch.ones(2).exp()
            done.append(clock[0])
            clock[0] += 2.0

    with pytest.raises(OutOfTime, match="9 s are over"), Deadline(9.0, "9 s are over"):
        work()
    assert done == [100.0, 102.0, 104.0, 106.0, 108.0]


def test_what_was_interrupted_restores_its_state(clock):
    """Grad mode and tensors that are put back in a finally are as before, whichever operation finds the time over."""
    weight = torch.ones(3, requires_grad=True)

    def work(late):
        try:
            with torch.no_grad():
                clock[0] += 5.0 if late == 0 else 0.0
                weight.copy_(2 * torch.ones(3))
                clock[0] += 5.0 if late == 1 else 0.0
        finally:
            with torch.no_grad():
                weight.copy_(torch.ones(3))
                clock[0] += 5.0 if late == 2 else 0.0
        return weight.exp()

    for late in range(3):
        with pytest.raises(OutOfTime), Deadline(1.0, "over"):
            work(late)
        assert torch.is_grad_enabled()
        assert weight.tolist() == [1.0, 1.0, 1.0]
        assert weight.requires_grad


def test_entered_again_it_is_still_over(clock):
    limit = Deadline(1.0, "over")
    with limit:
        torch.ones(2).exp()
    clock[0] += 2.0
    for _ in range(2):
        with pytest.raises(OutOfTime), limit:
            torch.ones(2).exp()
    assert limit.seconds_left == 0.0
    torch.ones(2).exp()


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.exp(),
        lambda x: torch.exp(input=x),
        lambda x: 1 - x,
        lambda x: 2 / x,
        lambda x: x[0],
        lambda x: float(x.sum()),
        lambda x: torch.cat([x, x]),
        lambda x: torch.stack((x, x)),
        lambda x: torch.einsum("i,i->", x, x),
        lambda x: torch.where(x > 0, x, 0.0),
    ],
)
def test_every_kind_of_operation_finds_the_time_over(clock, operation):
    x = torch.ones(3)
    limit = Deadline(1.0, "over")
    with limit:
        operation(x)
    clock[0] += 2.0
    with pytest.raises(OutOfTime), limit:
        operation(x)


def test_code_that_catches_the_error_and_goes_on_is_stopped_again(clock):
    done = []

    def stubborn():
        for _ in range(20):
            try:
                torch.ones(2).exp()
            except ValueError:  # which an error of input is, and this is not
                pass
            except OutOfTime:
                done.append(clock[0])
            clock[0] += 1.0

    with Deadline(0.5, "over"):
        stubborn()
    assert len(done) >= 5


def test_nested_limits_are_told_apart_and_clean_up_in_peace(clock):
    inner_ended, cleaned = False, []

    def inner():
        nonlocal inner_ended
        with Deadline(100.0, "inner").ends_quietly():
            try:
                clock[0] += 20.0
                torch.ones(2).exp()
            finally:
                cleaned.append(float(torch.ones(2).exp().sum()))
        inner_ended = True

    with pytest.raises(OutOfTime, match="outer"), Deadline(10.0, "outer"):
        inner()
    assert cleaned
    assert not inner_ended
    with Deadline(100.0, "outer"):
        with Deadline(1.0, "inner").ends_quietly():
            clock[0] += 2.0
            torch.ones(2).exp()
            cleaned.append("never")
        torch.ones(2).exp()
    assert "never" not in cleaned
