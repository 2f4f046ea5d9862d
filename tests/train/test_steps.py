"""One step is the same whatever it is computed by: processes with unequal shares, parts one after another, weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from together import all_cases, data_of
from toys import BITS, Ramp, SemiSupervised, Toy, TwoHeads, binary_data, labelled_data, real_data

import unsup
from unsup.core.errors import InputError
from unsup.core.model import Model, keyed_generator
from unsup.core.parallel import parts_of, share_of
from unsup.core.random import Rows
from unsup.data import Data, Split
from unsup.testing.processes import as_processes
from unsup.testing.subject import perturb
from unsup.train.trainer import fit

PLAIN = {"optimizer": "sgd", "betas": (0.0, 0.9), "lr": 0.02, "schedule": "constant", "progress": "off"}
Found = dict[str, torch.Tensor]


def run(model: Model, data: Data, **settings) -> Found:
    """Parameters and buffers after some steps of plain gradient descent, which are the gradients, and what was logged.

    The parameters kept are the newest, whatever validation says.
    """
    chosen = {**PLAIN, "steps": 2, "validator": "newest", "precision": "float32", **settings}
    fitted = fit(model, data, **chosen)
    found = {k: v.clone() for k, v in model.state_dict().items() if not k.endswith("partition_of")}
    for i, event in enumerate(fitted.events):
        found |= {f"{i}.{k}": torch.tensor(v) for k, v in event.items() if isinstance(v, float) and k != "seconds"}
    return found


def agree(one: Found, other: Found, tolerance: float = 1e-10) -> None:
    assert one.keys() == other.keys()
    assert any("loss" in name for name in one)
    for name, expected in one.items():
        torch.testing.assert_close(other[name].double(), expected.double(), rtol=tolerance, atol=tolerance, msg=name)


def case(key: str) -> tuple[Model, Data]:
    """A law case in float64, at generic parameters."""
    chosen = all_cases()[key]
    model, data = chosen.build().double(), data_of(chosen)
    perturb(model, keyed_generator(0))
    return model, data


# --- shares and parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "count", "parts"), [(8, 3, 1), (8, 3, 2), (24, 2, 4), (7, 1, 3), (13, 4, 3)])
def test_shares_and_parts_hold_every_row_once(total, count, parts):
    rows = []
    for rank in range(count):
        found = parts_of(total, count, rank, parts)
        own = share_of(total, count, rank)
        assert found[0].start == own.start
        assert sum(r.count for r in found) == own.count
        rows += [i for r in found for i in range(r.start, r.start + r.count)]
    assert rows == list(range(total))
    for part in range(parts):
        at_once = [parts_of(total, count, rank, parts)[part] for rank in range(count)]
        assert all(r.beside == tuple(other.count for other in at_once) for r in at_once)


# --- accumulation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [4, 5])
@pytest.mark.parametrize(
    "key", ["made-1", "made-8", "realnvp-2", "vae-0", "vae-7", "ebm-0", "rbm-0", "score-matching-1"]
)
def test_accumulation_is_exact(key, accumulate):
    (model, data), (other, _) = case(key), case(key)
    whole = run(model, data, batch_size=24)
    agree(whole, run(other, data, batch_size=24, accumulate=accumulate))


def test_accumulation_splits_streams_and_their_noise():
    data = labelled_data()
    one, other = SemiSupervised(data.event).double(), SemiSupervised(data.event).double()
    other.load_state_dict(one.state_dict())
    agree(run(one, data, batch_size=12), run(other, data, batch_size=12, accumulate=4))


# --- processes --------------------------------------------------------------------------------------------------------


def in_processes(count: int, build, data: Data, **settings) -> Found:
    """What every one of ``count`` processes found, all alike."""
    models = [build() for _ in range(count)]  # here, since they draw their parameters from the global generator
    first, *others = as_processes(count, lambda rank: run(models[rank], data, **settings))
    for other in others:
        agree(first, other, 1e-12)
    return first


@pytest.mark.parametrize(
    "key", ["made-1", "pixelcnn-2", "realnvp-5", "vae-4", "gan-3", "cyclegan-0", "ebm-3", "rbm-0", "score-matching-3"]
)
def test_three_processes_with_unequal_shares_are_one(key):
    model, data = case(key)
    agree(run(model, data, batch_size=8), in_processes(3, lambda: case(key)[0], data, batch_size=8), 1e-9)


@pytest.mark.parametrize("key", ["made-8", "realnvp-3", "vae-0", "gan-3", "ebm-0"])
def test_processes_and_parts_together_are_one(key):
    model, data = case(key)
    whole = run(model, data, batch_size=16)
    agree(whole, in_processes(3, lambda: case(key)[0], data, batch_size=16, accumulate=2))


def test_unequal_shares_of_streams_and_of_a_ramp():
    data = labelled_data()
    agree(
        run(fresh(SemiSupervised, data), data, batch_size=8),
        in_processes(3, lambda: fresh(SemiSupervised, data), data, batch_size=8),
    )
    data = real_data()
    agree(
        run(fresh(Ramp, data), data, batch_size=8, steps=7),
        in_processes(3, lambda: fresh(Ramp, data), data, batch_size=8, steps=7),
    )


def test_players_that_share_a_trunk_and_a_batch_in_processes():
    data = real_data()
    for joins in (False, True):
        whole = run(fresh(TwoHeads, data, joins=joins), data, batch_size=8)
        parts = in_processes(
            3, lambda joins=joins: fresh(TwoHeads, data, joins=joins), data, batch_size=8, accumulate=2
        )
        agree(whole, parts)


def fresh(cls, data: Data, **options) -> Model:
    torch.manual_seed(0)
    return cls(data.event, **options).double()


def test_a_process_without_a_row_is_refused():
    with pytest.raises(InputError, match=r"batch_size=2 over 3 processes leaves some.*--batch-size 3 or more"):
        as_processes(3, lambda rank: fit(Toy(BITS), binary_data(), batch_size=2, steps=1, progress="off"))
    with pytest.raises(InputError, match=r"batch_size=6 in 7 parts leaves some.*--batch-size 7 or more"):
        fit(Toy(BITS), binary_data(), batch_size=6, accumulate=7, steps=1, progress="off")
    data = unsup.load_data("digits", limit=30)
    moco = unsup.create("moco", data.event, preset="tiny", group=4)
    with pytest.raises(InputError, match=r"batch_size=4 over 2 processes leaves some.*a pack of 4.*--batch-size 8"):
        as_processes(2, lambda rank: fit(moco, data, batch_size=4, steps=1, progress="off"))


# --- weights ----------------------------------------------------------------------------------------------------------


def weighted(data: Data, weight: list[float]) -> Data:
    train = dataclasses.replace(data.train, weight=torch.tensor(weight, dtype=torch.float64))
    return dataclasses.replace(data, train=train)


def taken(data: Data, rows: list[int]) -> Data:
    return dataclasses.replace(data, train=data.train.take(torch.tensor(rows)))


def test_weight_two_is_twice_and_weight_zero_is_absent():
    data = real_data(6, 3)
    heavy = weighted(data, [2.0, 1.0, 0.0, 1.0, 2.0, 0.0])
    as_many = taken(data, [0, 0, 1, 3, 4, 4])
    found = run(fresh(TwoHeads, data), heavy, batch_size=6, steps=5)
    agree(run(fresh(TwoHeads, data), as_many, batch_size=6, steps=5), found)
    with pytest.raises(AssertionError):
        agree(run(fresh(TwoHeads, data), data, batch_size=6, steps=5), found)


def test_weights_in_unequal_shares_and_parts():
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(60, generator=generator, dtype=torch.float64)
    weight[::4] = 0
    data = real_data(weight=weight)
    whole = run(fresh(TwoHeads, data), data, batch_size=8, steps=4)
    parts = in_processes(3, lambda: fresh(TwoHeads, data), data, batch_size=8, steps=4, accumulate=2)
    agree(whole, parts)


def test_a_batch_of_weight_zero_moves_nothing():
    data = real_data(weight=torch.zeros(60))
    model = fresh(TwoHeads, data)
    before = [p.clone() for p in model.parameters()]
    run(model, data, batch_size=8)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_weights_and_a_loss_of_the_whole_batch_do_not_go_together():
    class Whole(Toy):
        def loss(self, batch, *, generator=None):
            return {"loss": super().loss(batch)["loss"].mean()}

    data = binary_data()
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, weight=torch.ones(400)))
    with pytest.raises(InputError, match="remove the weights"):
        fit(Whole(data.event), data, steps=1, progress="off")


def test_the_part_of_a_step_holds_its_share_of_every_stream():
    data = labelled_data()
    whole = data.train.step(torch.arange(8), {"unlabelled": 3}, seed=0, position=2, part=Rows(8, 0, 8))
    parts = [
        data.train.step(torch.arange(8), {"unlabelled": 3}, seed=0, position=2, part=part)
        for rank in range(3)
        for part in parts_of(8, 3, rank, 2)
    ]
    assert torch.equal(torch.cat([p["unlabelled"].x for p in parts]), whole["unlabelled"].x)
    assert torch.equal(torch.cat([p.label for p in parts]), whole.label)
    assert isinstance(data.train, Split)
