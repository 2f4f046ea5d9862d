"""The same code on CUDA: trained, scored and sampled there, and equal to the CPU where it is deterministic."""

from __future__ import annotations

import pytest
import torch

import unsup
from unsup.core.model import CanEncode, CanSample, HasDensity, LearnsByCounting
from unsup.core.registry import model_class, names
from unsup.evaluate.likelihood import log_probs

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]


@pytest.mark.parametrize("name", names())
def test_trained_on_cuda_and_scored_alike_on_both(name):
    data = unsup.load_data("digits", limit=200)
    if (reason := model_class(name).refusal(data.event)) is not None:
        pytest.skip(f"{name} {reason}")
    model = unsup.create(name, data.event, preset="tiny")
    length = {} if isinstance(model, LearnsByCounting) else {"steps": 5}
    unsup.fit(model, data, device="cuda", precision="float32", progress="off", **length)
    assert model.device.type == "cuda"
    if isinstance(model, CanSample):
        samples = model.sample(8, generator=torch.Generator(device="cuda").manual_seed(0))
        assert bool(data.event.contains(samples.cpu()).all())
    else:
        assert isinstance(model, CanEncode)
        assert bool(model.eval().encode(data.test.x[:8].cuda()).isfinite().all())
    if isinstance(model, HasDensity) and model.likelihood_kind == "exact":
        on_cuda = log_probs(model, data.test.x)
        on_cpu = log_probs(model.cpu(), data.test.x)
        torch.testing.assert_close(on_cuda, on_cpu, rtol=1e-4, atol=1e-3)
