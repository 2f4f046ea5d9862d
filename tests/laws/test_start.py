"""At their default sizes all models start with gradients that a training can use.

Laws run on tiny models, where a gradient that grows or vanishes with every layer is still moderate.
"""

from __future__ import annotations

import pytest
import torch

from unsup.core.errors import InputError
from unsup.core.registry import create, names
from unsup.testing import law_cases
from unsup.testing.cases.case import Case
from unsup.testing.subject import keyed_generator, learns_by_counting, mean_loss, play

LEAST, MOST = 1e-6, 1e5


def usual(name: str) -> Case | None:
    """The first case without a condition, if there is one, whose options also fit the default sizes."""
    for case in sorted(law_cases(name), key=lambda case: "given" in case.options):
        try:
            create(name, case.event, seed=0, **case.options)
        except InputError:  # e.g. a segment of the default size does not divide a short example
            continue
        return case
    return None


@pytest.mark.parametrize("name", names())
def test_the_first_gradient_is_neither_huge_nor_nothing(name: str) -> None:
    case = usual(name)
    if case is None:
        pytest.skip("no law case fits the default sizes")
    model, batch = create(name, case.event, seed=0, **case.options), case.data()
    if learns_by_counting(model):
        pytest.skip("learns by counting")
    model.prepare(batch, generator=keyed_generator(0, 0))
    model.train()
    for objective in model.objectives():
        parameters = [
            p
            for part in objective.parameters
            for p in ([part] if isinstance(part, torch.Tensor) else part.parameters())
        ]
        loss = mean_loss(play(model, objective, batch, keyed_generator(0, 1)))
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        norm = float(torch.stack([g.double().norm() for g in found if g is not None]).norm())
        assert LEAST < norm < MOST, f"{case}, {objective.name}: the gradient has norm {norm:.2g}"
