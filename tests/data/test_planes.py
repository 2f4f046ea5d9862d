"""The densities of the 2-D sets: normalised, those of the drawn examples, and with the entropies that notes state."""

from __future__ import annotations

import numpy as np
import pytest

from unsup.core.errors import InputError
from unsup.data import builtin, planes

GRIDS = {  # half a side of a square that has all of the mass, and the number of cells of a side
    "moons": (2.5, 110),
    "rings": (3.6, 300),
    "ring8": (1.1, 420),
    "grid25": (4.4, 420),
    "checkerboard": (4.0, 40),
    "pinwheel": (5.5, 110),
    "spirals": (3.7, 170),
}


@pytest.mark.parametrize("name", GRIDS)
def test_the_density_is_normalised_and_has_the_entropy_of_the_notes(name: str) -> None:
    side, cells = GRIDS[name]
    middle = side * (2 * (np.arange(cells) + 0.5) / cells - 1)
    log_p = planes.log_density(name, np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2))
    mass = np.exp(log_p) * (2 * side / cells) ** 2
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    assert -(mass * np.where(mass > 0, log_p, 0)).sum() == pytest.approx(planes.entropy(name), abs=2e-3)
    assert f"entropy {planes.entropy(name):.4f} nats" in " ".join(getattr(builtin, name)(n=10).notes)


@pytest.mark.parametrize("name", GRIDS)
def test_examples_are_draws_from_the_density(name: str) -> None:
    """The cross-entropy of the examples is the entropy, which it is of no other density close by."""
    x = getattr(builtin, name)(n=3000).x.numpy().astype(np.float64)
    scores = -planes.log_density(name, x)
    error = scores.std() / len(x) ** 0.5
    assert abs(scores.mean() - planes.entropy(name)) < 4 * error + 1e-3
    moved = x + np.array([0.02, 0.0]) if name != "checkerboard" else x + np.array([0.5, 0.0])
    away = -planes.log_density(name, moved)
    paired = (away - scores)[np.isfinite(away)]
    assert not np.isfinite(away).all() or paired.mean() > 2 * paired.std() / len(x) ** 0.5


def test_other_names_and_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="expected one of checkerboard, grid25"):
        planes.log_density("digits", np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"shape \(2,\); expected \(N, 2\)"):
        planes.log_density("moons", np.zeros(2))
    assert planes.log_density("moons", np.zeros((0, 2))).shape == (0,)
