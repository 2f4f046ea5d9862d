"""Threads that play processes: what they sum and gather, and what happens when one does not join in."""

from __future__ import annotations

import pytest
import torch

from unsup.core.parallel import gather_rows, mean_over_rows, own_rows, process_rank, sum_over_processes
from unsup.testing.processes import as_processes


def test_gradients_pass_through_a_mean_over_the_rows_of_all():
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def work(rank):
        own = own_rows(x).clone().requires_grad_()
        (mean_over_rows(own.mean(0)).square().sum() / 3).backward()
        return own.grad

    whole = x.clone().requires_grad_()
    whole.mean(0).square().sum().backward()
    torch.testing.assert_close(torch.cat(as_processes(3, work)), whole.grad)


def test_what_one_changes_the_others_do_not_see():
    def work(rank):
        own = torch.tensor([float(rank)])
        rows = gather_rows(own)
        own += 10
        rows += 100
        total = sum_over_processes({"a": torch.tensor(process_rank())})
        return rows.tolist(), int(total["a"])

    assert as_processes(3, work) == [([100, 101, 102], 3)] * 3


def test_a_thread_that_does_not_join_in_is_said():
    with pytest.raises(RuntimeError, match="the others make no such call"):
        as_processes(2, lambda rank: gather_rows(torch.zeros(1)) if rank else None)


def test_an_error_comes_through_and_ends_the_others():
    def work(rank):
        if rank:
            raise ValueError("of my own")
        gather_rows(torch.zeros(1))

    with pytest.raises(ValueError, match="of my own"):
        as_processes(2, work)
