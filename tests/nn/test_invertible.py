"""Invertible steps: inverses and autograd Jacobians of every class, splits, statistics of batches."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unsup.core.parallel import share_of
from unsup.core.random import part_of_batch
from unsup.nn.autoregressive_map import InverseAutoregressive, MaskedAutoregressive
from unsup.nn.bijection import (
    Additive,
    Bijection,
    BoundedAffine,
    DenseSigmoid,
    GatedAverage,
    LogAffine,
    MixtureCdf,
    Normalised,
    NormalScores,
    SigmoidAffine,
    SigmoidMixture,
    Spline,
)
from unsup.nn.conditioner import ResidualConvNet, ShiftedNorm, WeightNormConv, mlp
from unsup.nn.coupling import Alternating, Coupling
from unsup.nn.elementwise import Elementwise, NormalCdf
from unsup.nn.invertible import Chain, DiagonalScale, Flatten, Invertible, MultiScale, Squeeze
from unsup.nn.mixing import (
    ActNorm,
    BatchNormalisation,
    ConditionedScale,
    PlainMixing,
    Reverse,
    Shuffle,
    TriangularMixing,
    Whitening,
)
from unsup.nn.norm import batch_statistics, uses_batch_statistics
from unsup.nn.ode import ODE
from unsup.nn.residual import Residual
from unsup.nn.smooth_steps import PlanarMap, PlanarStep, RadialStep, SylvesterMap, SylvesterStep
from unsup.nn.split import Checkerboard, Corners, EqualHalves, EvenOdd, HalfCheckerboard, Halves, Partition, Split
from unsup.nn.weight_norm import initialise
from unsup.testing.processes import as_processes


class Plain(nn.Module):
    """A conditioner of images without batch statistics of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.to(self.conv.weight.dtype))
        return y


def checkerboard(colour: int, conditioner: nn.Module | None = None) -> Coupling:
    split = Checkerboard(3, 2, colour)
    net = ResidualConvNet(2, 4, 4, 1, ~split.mask) if conditioner is None else conditioner
    return Coupling(split, net, Normalised(BoundedAffine(0.7, 2), 2, split.mask))


def channelwise(half: int, conditioner: nn.Module | None = None) -> Coupling:
    net = ResidualConvNet(2, 4, 4, 1) if conditioner is None else conditioner
    return Coupling(Halves(2, moves_first=half == 1), net, Normalised(BoundedAffine(0.7, 2), 2))


def alternating(split: Partition, sizes: tuple[int, int], couplings: int) -> Alternating:
    def net(i: int, each: int) -> nn.Sequential:
        return mlp(sizes[i % 2], (8,), each * sizes[1 - i % 2])

    kinds = [(2, BoundedAffine), (1, Additive)]
    chosen = [kinds[i % 2] for i in range(couplings)]
    return Alternating(split, [(net(i, each), kind()) for i, (each, kind) in enumerate(chosen)])


def autoregressive(bijection: Bijection, hidden: tuple[int, ...] = (9, 9), **options: Any) -> MaskedAutoregressive:
    return MaskedAutoregressive(4 if options.get("residual") else 5, hidden, bijection, **options)


def whitening() -> Whitening:
    step = Whitening(4).double()
    generator = torch.Generator().manual_seed(3)
    step.start(torch.randn(30, 4, generator=generator, dtype=torch.float64).cumsum(1))
    return step


STEPS: dict[str, tuple[Callable[[], Invertible], tuple[int, ...]]] = {
    "flatten": (lambda: Flatten((2, 3, 2)), (2, 3, 2)),
    "squeeze": (Squeeze, (2, 2, 4)),
    "diagonal scale": (lambda: DiagonalScale((4,)), (4,)),
    "diagonal scale of images": (lambda: DiagonalScale((2, 1, 3)), (2, 1, 3)),
    "reverse": (Reverse, (4,)),
    "reverse of channels": (Reverse, (3, 2, 2)),
    "shuffle": (lambda: Shuffle(5), (5,)),
    "actnorm": (lambda: ActNorm(4), (4,)),
    "actnorm of images": (lambda: ActNorm(3), (3, 2, 2)),
    "batch normalisation": (lambda: BatchNormalisation(4), (4,)),
    "mixing": (lambda: PlainMixing(4), (4,)),
    "mixing of channels": (lambda: PlainMixing(3), (3, 2, 2)),
    "triangular mixing": (lambda: TriangularMixing(4), (4,)),
    "triangular mixing of channels": (lambda: TriangularMixing(3), (3, 2, 2)),
    "triangular mixing from a permutation": (lambda: TriangularMixing(3, start="permutation"), (3,)),
    "whitening": (whitening, (4,)),
    "sigmoid coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 6), SigmoidAffine()), (5,)),
    "gated coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 6), GatedAverage()), (5,)),
    "log-affine coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 6), LogAffine()), (5,)),
    "spline coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 42), Spline(5, 1.5)), (5,)),
    "spline coupling with a divisor": (lambda: Coupling(Halves(2), mlp(2, (8,), 42), Spline(5, 1.5, 2.0)), (5,)),
    "normal scores coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 27), NormalScores(3)), (5,)),
    "normal scores of logistics": (lambda: Coupling(Halves(2), mlp(2, (2,), 18), NormalScores(2, "logistic")), (5,)),
    "mixture coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 33), MixtureCdf(3)), (5,)),
    "autoregressive": (lambda: autoregressive(LogAffine()), (5,)),
    "autoregressive in another order": (
        lambda: autoregressive(Spline(5, 1.5), order=torch.tensor([3, 1, 5, 2, 4])),
        (5,),
    ),
    "autoregressive with blocks": (lambda: autoregressive(MixtureCdf(2), (9, 9, 9), residual=True), (4,)),
    "inverse autoregressive": (lambda: InverseAutoregressive(autoregressive(LogAffine())), (5,)),
    "additive coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 3), Additive()), (5,)),
    "affine coupling": (lambda: Coupling(EvenOdd(), mlp(3, (8,), 4), BoundedAffine()), (5,)),
    "affine coupling of the first": (
        lambda: Coupling(Halves(2, moves_first=True), mlp(3, (), 4), BoundedAffine()),
        (5,),
    ),
    "half checkerboard coupling": (lambda: Coupling(HalfCheckerboard(0), Plain(2, 4), BoundedAffine()), (2, 4, 4)),
    "half checkerboard coupling of the other colour": (
        lambda: Coupling(HalfCheckerboard(1), Plain(2, 4), BoundedAffine()),
        (2, 3, 2),
    ),
    "coupling of the first half": (
        lambda: Coupling(EqualHalves(moves_first=True), Plain(2, 4), BoundedAffine()),
        (4, 2, 2),
    ),
    "checkerboard coupling": (lambda: checkerboard(0), (2, 3, 2)),
    "checkerboard coupling of the other colour": (lambda: checkerboard(1), (2, 3, 2)),
    "channel coupling": (lambda: channelwise(0), (4, 3, 2)),
    "channel coupling of the first": (lambda: channelwise(1), (4, 3, 2)),
    "one alternating": (lambda: alternating(Halves(2), (2, 1), 1), (3,)),
    "four alternating": (lambda: alternating(Halves(2), (2, 2), 4), (4,)),
    "five alternating": (lambda: alternating(EvenOdd(), (3, 2), 5), (5,)),
    "chain": (lambda: Chain([Flatten((1, 2, 2)), alternating(EvenOdd(), (2, 2), 2), DiagonalScale((4,))]), (1, 2, 2)),
    "empty chain": (lambda: Chain([]), (3,)),
    "one scale": (lambda: MultiScale([checkerboard(0)], Corners(), [(2, 3, 2)]), (2, 3, 2)),
    "two scales of halves": (
        lambda: MultiScale(
            [Chain([Squeeze(), DiagonalScale((4, 2, 2))]), Squeeze()], EqualHalves(), [(2, 2, 2), (8, 1, 1)]
        ),
        (1, 4, 4),
    ),
    "elementwise": (lambda: Elementwise(4, Spline(4, 1.5)), (4,)),
    "normal distribution function": (NormalCdf, (3,)),
    "planar": (lambda: PlanarStep(3), (3,)),
    "radial": (lambda: RadialStep(3), (3,)),
    "sylvester": (lambda: SylvesterStep(4, 3), (4,)),
    "sigmoid mixture coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 18), SigmoidMixture(2)), (5,)),
    "dense sigmoid coupling": (lambda: Coupling(Halves(2), mlp(2, (8,), 66), DenseSigmoid(2, 3)), (5,)),
    "conditioned scale": (lambda: ConditionedScale(4), (4,)),
    "conditioned scale of channels": (lambda: ConditionedScale(3), (3, 2, 2)),
    "three scales": (
        lambda: MultiScale(
            [Chain([Squeeze(), DiagonalScale((4, 4, 4))]), Squeeze(), DiagonalScale((4, 2, 2))],
            Corners(),
            [(2, 4, 4), (4, 2, 2), (4, 2, 2)],
        ),
        (1, 8, 8),
    ),
}
EVERY = pytest.mark.parametrize("name", STEPS)


def built(name: str) -> Invertible:
    """A step of float64 away from every special value of its parameters and statistics."""
    torch.manual_seed(0)
    step = STEPS[name][0]().double().eval()
    with torch.no_grad():
        for p in step.parameters():
            p.add_(0.3 * torch.randn_like(p))
        for key, buffer in step.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(std=0.3)
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return step


def examples(name: str, n: int = 4) -> Tensor:
    return torch.randn(n, *STEPS[name][1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def concrete(of: type) -> set[type]:
    """The library's classes of a kind that can be built."""
    found = {c for below in of.__subclasses__() for c in concrete(below)}
    own = set() if inspect.isabstract(of) or not of.__module__.startswith("unsup.") else {of}
    return found | own


def test_every_class_of_step_bijection_and_split_is_among_the_cases() -> None:
    modules = {type(m) for name in STEPS for m in built(name).modules()}
    for kind in (Invertible, Bijection, Split):
        # Solutions of equations and fixed points are exact up to a tolerance: test_flow_oracles, test_residual_flow.
        # Steps that have the values of examples in place of parameters: test_inference.
        assert concrete(kind) - {ODE, Residual, PlanarMap, SylvesterMap} <= modules


@EVERY
def test_inverse_goes_back(name: str) -> None:
    step, x = built(name), examples(name)
    y, _ = step(x)
    torch.testing.assert_close(step.inverse(y), x, rtol=0, atol=1e-11)
    other = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    other = torch.special.ndtr(other) if isinstance(step, NormalCdf) else other
    torch.testing.assert_close(step(step.inverse(other))[0], other, rtol=0, atol=1e-11)


@EVERY
def test_log_det_is_that_of_the_autograd_jacobian(name: str) -> None:
    step, x = built(name), examples(name)
    y, log_det = step(x)
    assert log_det.shape == (len(x),)
    assert y[0].numel() == x[0].numel()
    for i, one in enumerate(x):
        matrix = torch.autograd.functional.jacobian(lambda v: step(v[None])[0].flatten(), one)
        exact = torch.linalg.slogdet(matrix.reshape(one.numel(), one.numel())).logabsdet
        torch.testing.assert_close(log_det[i], exact, rtol=0, atol=1e-10)


@EVERY
def test_every_parameter_gets_a_gradient(name: str) -> None:
    step = built(name)
    with batch_statistics():
        y, log_det = step(examples(name, 6).requires_grad_())
    ((y.flatten(1) * torch.arange(1.0, 1 + y[0].numel())).sum() + log_det.square().sum()).backward()
    for key, p in step.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        assert p.grad.abs().max() > 1e-9, key


@EVERY
def test_no_rows_give_no_rows(name: str) -> None:
    step, x = built(name), examples(name)
    y, log_det = step(x[:0])
    assert y.shape == (0, *step(x)[0].shape[1:])
    assert log_det.shape == (0,)
    assert step.inverse(y).shape == x[:0].shape


@EVERY
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_parameters_leave_values_and_log_dets_in_float32(name: str, half: torch.dtype) -> None:
    step, x = built(name).to(half), examples(name).float()
    same = copy.deepcopy(step).float()
    (y, log_det), (expected, expected_log_det) = step(x), same(x)
    assert y.dtype == log_det.dtype == step.inverse(y).dtype == torch.float32
    torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(log_det, expected_log_det, rtol=0.05, atol=0.1)
    # Both ways see the same outputs of conditioners, except where the way back computes them entry by entry.
    by_entry = isinstance(step, InverseAutoregressive | MaskedAutoregressive)
    torch.testing.assert_close(step.inverse(y), x, rtol=0, atol=0.1 if by_entry else 1e-3)


def test_alternating_is_a_chain_of_couplings_of_either_part() -> None:
    one = built("five alternating")
    assert isinstance(one, Alternating)
    pairs = zip(one.conditioners, one.bijections, strict=True)
    x = examples("five alternating")

    class Other(Partition):
        """The odd entries are seen."""

        def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return EvenOdd().parts(x)[::-1]

        def join(self, seen: Tensor, moved: Tensor) -> Tensor:
            return EvenOdd().join(moved, seen)

    chain = Chain(Coupling((EvenOdd(), Other())[i % 2], *pair) for i, pair in enumerate(pairs))
    for found, expected in zip(one(x), chain(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# --- splits

SPLITS: dict[str, tuple[Callable[[], Split], tuple[int, ...]]] = {
    "halves": (lambda: Halves(2), (5,)),
    "halves of channels": (lambda: Halves(2, moves_first=True), (4, 2, 3)),
    "even and odd": (EvenOdd, (6,)),
    "even and odd of five": (EvenOdd, (5,)),
    "checkerboard": (lambda: Checkerboard(3, 5, 0), (2, 3, 5)),
    "corners": (Corners, (12, 2, 3)),
}


@pytest.mark.parametrize("name", SPLITS)
def test_joined_parts_are_the_example_and_only_moved_entries_count(name: str) -> None:
    build, shape = SPLITS[name]
    split, x = build(), torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    seen, moved = split.parts(x)
    assert torch.equal(split.join(seen, moved), x)
    joined = split.join(seen, moved + 1)
    torch.testing.assert_close(split.total(torch.ones_like(moved)), (joined - x).flatten(1).sum(1))
    assert torch.equal(split.parts(joined)[0], seen)


def test_checkerboard_colours_are_those_of_a_chessboard() -> None:
    seen, _ = Checkerboard(2, 3, 0).parts(torch.ones(1, 1, 2, 3))
    assert seen[0, 0].tolist() == [[1, 0, 1], [0, 1, 0]]
    other, _ = Checkerboard(2, 3, 1).parts(torch.ones(1, 1, 2, 3))
    assert torch.equal(seen + other, torch.ones(1, 1, 2, 3))


def test_corners_part_the_diagonals_of_each_block() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    squeezed, _ = Squeeze()(x)
    assert torch.equal(squeezed, nn.functional.pixel_unshuffle(x, 2))
    goes_on, done = Corners().parts(squeezed)
    assert torch.equal(goes_on, torch.cat((x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2]), 1))
    assert torch.equal(done, torch.cat((x[:, :, 0::2, 1::2], x[:, :, 1::2, 0::2]), 1))


def test_even_and_odd_entries_are_counted_from_0() -> None:
    even, odd = EvenOdd().parts(torch.arange(5)[None])
    assert (even.tolist(), odd.tolist()) == ([[0, 2, 4]], [[1, 3]])


# --- statistics of batches


@pytest.mark.parametrize("build", [checkerboard, channelwise])
@pytest.mark.parametrize("side", [0, 1])
def test_log_det_uses_the_statistics_it_normalised_with(build: Callable[..., Coupling], side: int) -> None:
    torch.manual_seed(0)
    coupling = build(side, Plain(2, 4)).double()
    assert isinstance(coupling.bijection, Normalised)
    coupling.bijection.momentum = 1.0  # the running averages become the batch's
    c = 2 if build is checkerboard else 4
    x = 3 * torch.randn(5, c, 3, 2, dtype=torch.float64) + 1
    with torch.no_grad():
        with batch_statistics():
            y, log_det = coupling(x)
        again, log_det_again = coupling(x)
    torch.testing.assert_close(again, y, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det_again, log_det, rtol=0, atol=1e-12)
    torch.testing.assert_close(coupling.inverse(y), x, rtol=0, atol=1e-10)
    # The moved entries of each channel have mean 0 and variance just below 1; the others are as they were.
    changed = (y != x).any(0)
    for channel in range(c):
        values = y[:, channel][:, changed[channel]].flatten()
        if len(values):
            assert abs(float(values.mean())) < 1e-12
            assert abs(float(values.var(correction=0)) - 1) < 1e-3
    assert int(changed.sum()) == 6 * c // 2


def test_running_statistics_are_the_moving_average_of_moved_entries() -> None:
    split = Checkerboard(2, 3, 0)
    norm = Normalised(Additive(), 1, split.mask).double()
    x = torch.randn(4, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with batch_statistics():
        norm(x, torch.zeros_like(x))
    values = torch.stack([x[:, 0, 0, 1], x[:, 0, 1, 0], x[:, 0, 1, 2]])  # the pixels that move
    assert float(norm.running_mean) == pytest.approx(0.1 * float(values.mean()), abs=1e-12)
    assert float(norm.running_var) == pytest.approx(0.9 + 0.1 * float(values.var(correction=0)), abs=1e-12)


@pytest.mark.parametrize("build", [checkerboard, channelwise])
def test_statistics_are_those_of_all_processes(build: Callable[..., Coupling]) -> None:
    torch.manual_seed(0)
    one = build(0).double()
    x = torch.randn(7, 2 if build is checkerboard else 4, 3, 2, dtype=torch.float64)
    steps = [copy.deepcopy(one) for _ in range(2)]

    def work(rank: int) -> tuple[Tensor, Tensor]:
        rows = share_of(len(x), 2, rank)
        with torch.no_grad(), part_of_batch(rows), batch_statistics():
            y, log_det = steps[rank](x[rows.start : rows.start + rows.count])
            return y, log_det

    with torch.no_grad(), batch_statistics():
        y, log_det = one(x)
    found = as_processes(2, work)
    torch.testing.assert_close(torch.cat([y for y, _ in found]), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([log_det for _, log_det in found]), log_det, rtol=0, atol=1e-12)
    for step in steps:
        for key, buffer in one.named_buffers():
            torch.testing.assert_close(step.get_buffer(key), buffer, rtol=0, atol=1e-12)


def test_batch_statistics_are_used_inside_the_context_alone() -> None:
    assert not uses_batch_statistics()
    with batch_statistics():
        assert uses_batch_statistics()
        with batch_statistics(False):
            assert not uses_batch_statistics()
        assert uses_batch_statistics()
    with pytest.raises(ZeroDivisionError), batch_statistics():
        raise ZeroDivisionError
    assert not uses_batch_statistics()


# --- conditioners


@pytest.mark.parametrize("gain", [False, True])
def test_weight_norm_is_that_of_torch(gain: bool) -> None:
    torch.manual_seed(0)
    ours = WeightNormConv(3, 4, 3, gain=gain).double()
    theirs = nn.Conv2d(3, 4, 3, padding=1, bias=False).double()
    theirs.weight.data.copy_(ours.weight.data)
    normed = nn.utils.parametrizations.weight_norm(theirs)
    magnitude = torch.ones(4).double() if ours.gain is None else ours.gain.data
    normed.parametrizations.weight.original0.data.copy_(magnitude.view(4, 1, 1, 1))
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x), normed(x), rtol=0, atol=1e-12)


def test_shifted_norm_is_batch_norm_without_a_gain() -> None:
    torch.manual_seed(0)
    ours, theirs = ShiftedNorm(3).double(), nn.BatchNorm2d(3, eps=1e-4).double()
    with torch.no_grad():
        ours.shift.normal_()
        theirs.bias.copy_(ours.shift)
    x = 2 * torch.randn(4, 3, 2, 5, dtype=torch.float64) + 1
    with batch_statistics():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=0, atol=1e-12)


def test_what_a_masked_net_says_does_not_depend_on_blank_entries() -> None:
    torch.manual_seed(0)
    split = Checkerboard(4, 4, 1)
    net = ResidualConvNet(2, 4, 8, 2, ~split.mask).double()
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    elsewhere = torch.where(split.mask, torch.randn_like(x), x)
    assert torch.equal(net(split.parts(x)[0]), net(split.parts(elsewhere)[0]))
    assert net(x).shape == (3, 4, 4, 4)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 7)])
def test_mlp_starts_at_zero_and_takes_any_floating_type(hidden: tuple[int, ...]) -> None:
    net = mlp(3, hidden, 2)
    x = torch.randn(4, 3)
    assert not net(x).any()
    net[-1].bias.data.normal_()
    assert net.half()(x).dtype == torch.float16
    assert [tuple(m.weight.shape) for m in net if isinstance(m, nn.Linear)] == [
        (above, below) for below, above in zip((3, *hidden), (*hidden, 2), strict=True)
    ]


ORDERS = {None: None, "mixed": torch.tensor([3, 1, 5, 2, 4])}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bijection", [LogAffine(), Spline(4, 1.5), MixtureCdf(2)], ids=lambda b: type(b).__name__)
def test_autoregressive_steps_see_earlier_entries_and_the_condition(
    bijection: Bijection, order: str | None, context: int, residual: bool
) -> None:
    torch.manual_seed(0)
    step = MaskedAutoregressive(5, (40, 40, 40), bijection, order=ORDERS[order], context=context, residual=residual)
    for p in step.double().parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x, told = torch.randn(20, 5).double(), torch.randn(20, context).double() if context else None
    y, _ = step(x, told)
    torch.testing.assert_close(step.inverse(y, told), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(step.inverse(y, told), step.naive_inverse(y, told), rtol=0, atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(lambda v: step(v, told)[0].sum(0), x).abs().sum(1)
    position = step.net.top.above[0].view(5, -1)[:, 0]
    assert torch.equal(jacobian != 0, position[:, None] >= position)
    if told is not None:
        by_condition = torch.autograd.functional.jacobian(lambda c: step(x, c)[0].sum(0), told)
        assert bool((by_condition != 0).any(1).all())


def test_the_inverse_of_an_autoregressive_step_has_the_gradient_of_an_unrolled_loop() -> None:
    step = built("autoregressive in another order")
    assert isinstance(step, MaskedAutoregressive)
    y = examples("autoregressive in another order").requires_grad_()
    found = [
        torch.autograd.grad((x * torch.arange(1.0, 6.0)).sum() + step(x)[1].sum(), [y, *step.parameters()])
        for x in (step.inverse(y), step.naive_inverse(y))
    ]
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("channels", [(), (3, 2)])
def test_actnorm_starts_at_the_moments_of_the_first_batch_through_the_layers_below(channels: tuple[int, ...]) -> None:
    chain = Chain([ActNorm(4), TriangularMixing(4), ActNorm(4), DiagonalScale((4, *channels), 0.5)]).double()
    x = 3 + 2 * torch.randn(50, 4, *channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    initialise(chain, lambda: chain(x))
    y = Chain(list(chain.steps)[:3])(x)[0].detach()
    axes = [0, *range(2, y.ndim)]
    torch.testing.assert_close(y.mean(axes), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.std(axes, correction=0), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    before = [p.clone() for p in chain.parameters()]
    chain(5 * x)
    assert all(torch.equal(p, q) for p, q in zip(before, chain.parameters(), strict=True))


def test_a_rotation_keeps_volume() -> None:
    torch.manual_seed(3)
    for mixing in (PlainMixing(6), TriangularMixing(6)):
        assert float(mixing.log_abs_det().detach().abs()) < 1e-5
        torch.testing.assert_close(mixing.matrix() @ mixing.matrix().T, torch.eye(6), rtol=0, atol=1e-5)
    permutation = TriangularMixing(5, start="permutation").matrix()
    assert torch.equal(permutation.sort(0).values, torch.eye(5).sort(0).values)


def test_the_parts_of_a_triangular_mixing_are_its_matrix() -> None:
    mixing = built("triangular mixing")
    assert isinstance(mixing, TriangularMixing)
    exact = torch.linalg.slogdet(mixing.matrix()).logabsdet
    torch.testing.assert_close(mixing.log_abs_det(), exact, rtol=0, atol=1e-12)
