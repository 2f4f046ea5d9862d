"""What ``unsup probe`` and ``unsup fit`` say of a collapse, by codes that are collapsed and that are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unsup import create, load_data
from unsup.evaluate.estimate import make_figure
from unsup.evaluate.spread import uniformity
from unsup.prob.contrast import effective_rank
from unsup.report.probe import verdicts


def _codes(kind: str) -> Tensor:
    """Codes that differ along one line or more, far from the origin or around it."""
    generator = torch.Generator().manual_seed(0)
    noise, one = (torch.randn(300, d, generator=generator, dtype=torch.float64) for d in (32, 1))
    return {
        "collapsed": 1 + 0.001 * one * torch.linspace(1, 2, 32),
        "positive": 1 + 0.01 * noise,
        "line": one * torch.ones(1, 32),
        "two examples": 1 + 0.001 * noise[:2],
        "two numbers": 1 + 0.01 * torch.stack([one[:, 0], 0.1 * noise[:, 0]], 1),
    }[kind]


@pytest.mark.parametrize("kind", ["collapsed", "positive", "line", "two examples", "two numbers"])
def test_a_collapse_has_one_direction_and_one_dimension_of_several(kind):
    z = _codes(kind)
    measured = {"uniformity": uniformity(z), "effective_rank": effective_rank(z)}
    figures = {key: make_figure(found, len(z), features=z.shape[1]) for key, found in measured.items()}
    said = " ".join(verdicts(figures))
    assert ("collapse" in said) == (kind == "collapsed")


def test_fit_tells_no_rank_of_a_few_examples():
    data = load_data("digits")
    model = create("simclr", data.event, preset="tiny")
    assert model.findings(batch=data.test.batch(torch.arange(9))) == ()
    (told,) = model.findings(batch=data.test.batch(torch.arange(10)))
    assert told.endswith("(10 examples)")
