"""Codes in the plane, and the nearest codes: scikit-learn, exact cases, a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from unsup.core.errors import InputError
from unsup.evaluate.projection import project
from unsup.evaluate.retrieval import nearest_codes
from unsup.pictures.maps import draw_map


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_components_are_those_of_scikit_learn():
    x = normal(80, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1]) + 7
    found, peer = project(x, "pca"), PCA().fit(x.numpy())
    expected = peer.transform(x.numpy())[:, :2]
    signs = np.sign((expected * found.points.numpy()).sum(0))
    assert np.allclose(found.points.numpy() * signs, expected)
    shares = peer.explained_variance_ratio_
    assert found.axes[0] == f"first component, {100 * shares[0]:.0f} % of the variance"
    assert f"shows {100 * shares[:2].sum():.0f} % of the variance" in found.meaning
    assert torch.equal(found.points, project(x, "pca").points)


def test_codes_of_one_number_or_none_have_a_map():
    line = torch.arange(5.0)[:, None]
    found = project(line, "pca")
    assert found.points[:, 1].abs().max() == 0
    assert found.axes == ("first component, 100 % of the variance", "second component, 0 % of the variance")
    same = torch.ones(6, 3)
    for method in ("pca", "tsne"):
        assert not project(same, method).points.any()
        assert project(line, method).points.isfinite().all()
    with pytest.raises(InputError, match="a map needs 3"):
        project(line[:2], "pca")
    with pytest.raises(InputError, match="not finite"):
        project(torch.full((4, 2), math.nan), "tsne")


def test_tsne_keeps_groups_together_and_says_what_it_does_not_show():
    label = torch.arange(90) % 3
    x = 30 * normal(3, 8)[label] + normal(90, 8, seed=1)
    found = project(x, "tsne", seed=4)
    centres = torch.stack([found.points[label == c].mean(0) for c in range(3)])
    assert torch.equal(torch.cdist(found.points, centres).argmin(1), label)
    assert torch.equal(found.points, project(x, "tsne", seed=4).points)
    assert found.axes == ("", "")
    assert "Distances between groups, their sizes and their densities mean nothing" in found.meaning


def test_the_picture_states_what_positions_mean_and_has_each_class():
    points, label = normal(60, 2), torch.arange(60) % 3
    names = ("<b>", "_hidden", "a very long name of a class")
    found = draw_map(points, "codes of vae", "Near is near.", label=label, names=names)
    assert found.caption == "Codes of vae. Near is near. Colours and shapes are classes."
    assert found.alt == "Codes of vae: a scatter plot of 60 points of 3 classes."
    assert found.plot
    plain = draw_map(points, "codes", "Near is near.")
    assert plain.png != found.png
    assert plain.png != draw_map(points, "codes", "Far is far.").png  # the words are in the picture
    many = draw_map(points, "codes", "Near is near.", label=torch.arange(60))
    assert "Each of 60 classes has a colour." in many.caption
    assert found.png == draw_map(points, "codes of vae", "Near is near.", label=label, names=names).png


def test_nearest_codes_are_those_of_a_loop():
    asked, bank = normal(40, 3), normal(70, 3, seed=1)
    bank[50] = 2 * bank[3]  # the same direction: the first one wins
    unit = [v / v.norm() for v in bank]
    for k, block in ((1, 2**22), (7, 2**22), (7, 64), (200, 300)):
        rows, cosines = nearest_codes(asked, bank, k, block=block)
        assert rows.shape == cosines.shape == (40, min(k, 70))
        for i, x in enumerate(asked):
            own = [float(x / x.norm() @ u) for u in unit]
            order = sorted(range(70), key=lambda j: (-round(own[j], 12), j))[:k]
            assert rows[i].tolist() == order
            assert cosines[i].tolist() == pytest.approx([own[j] for j in order], abs=1e-12)
    rows, cosines = nearest_codes(bank, bank, 1)
    assert rows[:, 0].tolist() == [3 if i == 50 else i for i in range(70)]
    assert bool((cosines > 1 - 1e-12).all())
    with pytest.raises(InputError, match="k is 0"):
        nearest_codes(asked, bank, 0)
