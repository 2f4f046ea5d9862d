"""Teachers follow their students in closed form; a ring buffer keeps the newest rows in order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unsup.nn.ring_buffer import RingBuffer
from unsup.nn.teacher import cosine_momentum, follow, teacher_of


def test_a_teacher_follows_in_closed_form_and_has_no_gradient() -> None:
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    teacher = teacher_of(student)
    start = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.5)
    student.train()(torch.randn(8, 3).double())  # moves the running averages of the student only
    for _ in range(7):
        follow(teacher, student, 0.9)
    for own, before, goal in zip(teacher.parameters(), start, student.parameters(), strict=True):
        assert torch.allclose(own, goal + 0.9**7 * (before - goal))
        assert not own.requires_grad
    assert int(teacher[1].num_batches_tracked) == 0


def test_momentum_rises_to_one() -> None:
    assert cosine_momentum(0.99, 0.5) == pytest.approx(0.995)
    assert cosine_momentum(0.97, 1.0) == 1.0


def test_a_ring_buffer_keeps_the_newest_rows() -> None:
    buffer, every = RingBuffer(7, 2), torch.arange(60.0).view(30, 2)
    put = 0
    for count in (3, 3, 3, 1, 7, 2, 9, 0, 2):
        buffer.put(every[put : put + count])
        put += count
        kept = buffer.in_order()[max(0, 7 - put) :]
        assert torch.equal(kept, every[max(0, put - 7) : put])
    other = RingBuffer(7, 2)
    other.load_state_dict(buffer.state_dict())
    other.put(every[:1])
    buffer.put(every[:1])
    assert torch.equal(other.in_order(), buffer.in_order())
