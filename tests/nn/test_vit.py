"""The vision transformer against explicit loops in float64, its positions, and its published sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from unsup.nn.vit import VIT_SIZES, Patches, TransformerBlock, ViT, patch_for, sine_positions


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scattered(net: nn.Module, seed: int = 5) -> None:
    """Generic parameters, so that no bias is 0 and no gain is 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, dtype=p.dtype, generator=generator))


def small(*, class_token: bool, size: int = 12) -> ViT:
    torch.manual_seed(0)
    net = ViT(3, (4, 6), patch=2, size=size, depth=2, heads=3, class_token=class_token).double()
    scattered(net)
    return net


# --- a block ----------------------------------------------------------------------------------------------------------


def slow_norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-6).sqrt() * layer.weight + layer.bias


def slow_block(block: TransformerBlock, x: Tensor) -> Tensor:
    """One example ``(T, size)``: each query, head and key in a loop; equations of Dosovitskiy et al., appendix A."""
    size = x.shape[1]
    each = size // block.heads
    normed = [slow_norm(token, block.first_norm) for token in x]
    rows = list(zip(block.project.weight.split(size), block.project.bias.split(size), strict=True))
    q, k, v = ([weight @ token + bias for token in normed] for weight, bias in rows)
    found = []
    for i, token in enumerate(x):
        heads = []
        for h in range(block.heads):
            own = slice(h * each, (h + 1) * each)
            scores = [math.exp(float(q[i][own] @ key[own]) / math.sqrt(each)) for key in k]
            heads.append(sum(score * value[own] for score, value in zip(scores, v, strict=True)) / sum(scores))
        token = token + block.out.weight @ torch.cat(heads) + block.out.bias
        up = block.up.weight @ slow_norm(token, block.second_norm) + block.up.bias
        gelu = 0.5 * up * (1 + torch.erf(up / math.sqrt(2)))
        found.append(token + block.down.weight @ gelu + block.down.bias)
    return torch.stack(found)


def test_a_block_is_the_explicit_loop() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(12, 3).double()
    scattered(block)
    x = noise(2, 5, 12)
    with torch.no_grad():
        assert torch.allclose(block(x), torch.stack([slow_block(block, one) for one in x]), atol=1e-10)


@pytest.mark.parametrize("class_token", [False, True])
def test_features_are_those_of_a_loop_over_blocks_and_tokens(class_token: bool) -> None:
    net, x = small(class_token=class_token), noise(2, 3, 4, 6).sigmoid()
    with torch.no_grad():
        for example, features in zip(x, net(x), strict=True):
            tokens = []
            for row in range(2):
                for column in range(3):
                    pixels = (example[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] - 0.5) / 0.25
                    weight, bias = net.tokens.project.weight, net.tokens.project.bias
                    assert bias is not None
                    position = sine_positions(2, 3, 12)[3 * row + column].double()
                    tokens.append((weight * pixels).sum((1, 2, 3)) + bias + position)
            if net.class_token is not None:
                tokens.insert(0, net.class_token)
            maps = torch.stack(tokens)
            for block in net.stages:
                assert isinstance(block, TransformerBlock)
                maps = slow_block(block, maps)
            normed = torch.stack([slow_norm(token, net.norm) for token in maps])
            assert torch.allclose(features, normed[0] if class_token else normed.mean(0), atol=1e-9)


def test_patches_are_projected_as_by_a_convolution() -> None:
    torch.manual_seed(0)
    patches, x = Patches(3, (8, 4), 4, 16), torch.randn(2, 3, 8, 4)
    expected = conv2d(x, patches.project.weight, patches.project.bias, 4).flatten(2).mT + patches.positions
    assert torch.allclose(patches(x), expected, atol=1e-5)


# --- patches that are kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_token", [False, True])
def test_kept_patches_are_a_set(class_token: bool) -> None:
    """Another order of the same patches only changes the order of tokens, and all patches give all tokens."""
    net, x, first = small(class_token=class_token), noise(2, 3, 4, 6), int(class_token)
    kept = torch.tensor([[4, 0, 5], [1, 2, 3]])
    tokens = net.maps(x, kept=kept)
    assert tokens.shape == (2, first + 3, 12)
    order = torch.tensor([2, 0, 1])
    mixed = net.maps(x, kept=kept[:, order])
    assert torch.allclose(mixed[:, first:], tokens[:, first:][:, order], atol=1e-12)
    assert torch.allclose(net.pooled(mixed), net.pooled(tokens), atol=1e-12)
    everything = torch.arange(6).expand(2, -1)
    assert torch.allclose(net.maps(x, kept=everything), net.maps(x), atol=1e-12)


def test_the_class_token_sees_every_patch_and_is_learned() -> None:
    net, x = small(class_token=True), noise(1, 3, 4, 6).requires_grad_()
    net(x).sin().sum().backward()
    assert net.class_token is not None
    assert net.class_token.grad is not None
    assert bool((net.class_token.grad != 0).all())
    assert x.grad is not None
    assert bool((x.grad != 0).all())


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns", "size"), [(3, 5, 8), (7, 7, 192), (2, 2, 4)])
def test_positions_are_the_formula(rows: int, columns: int, size: int) -> None:
    found, each = sine_positions(rows, columns, size), size // 2
    for row in range(rows):
        for column in range(columns):
            expected = []
            for place in (row, column):
                angles = [place / 10000 ** (2 * k / each) for k in range(each // 2)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert torch.allclose(found[row * columns + column], torch.tensor(expected), atol=1e-6)


def test_positions_differ_and_are_as_long_as_the_tokens() -> None:
    for size in (4, 6, 7, 96):
        found = sine_positions(8, 8, size)
        assert found.shape == (64, size)
        assert torch.equal(found[:, 4 * (size // 4) :], torch.zeros(64, size % 4))
        assert float((torch.cdist(found, found) + torch.eye(64)).min()) > 1e-2


def test_positions_are_neither_learned_nor_saved() -> None:
    net = small(class_token=False)
    assert not any("positions" in name for name, _ in net.named_parameters())
    assert not any("positions" in name for name in net.state_dict())


# --- sizes ------------------------------------------------------------------------------------------------------------


def published(size: int, depth: int, patch: int) -> int:
    """Numbers of a vision transformer at 224×224 with a class token, and learned positions of all tokens."""
    places = (224 // patch) ** 2
    block = 12 * size**2 + 13 * size  # 3 + 1 + 4 + 4 squares; biases 3 + 1 + 4 + 1, two norms of 2
    return (3 * patch**2 + 1) * size + size + (places + 1) * size + depth * block + 2 * size


@pytest.mark.parametrize(
    ("name", "patch", "total"),
    [  # with the classifier of 1,000 classes, that of `torchvision` and `timm` for B and L
        ("small", 16, 22_050_664),
        ("base", 16, 86_567_656),
        ("large", 16, 304_326_632),
        ("huge", 14, 632_045_800),
    ],
)
def test_sizes_are_the_published_ones(name: str, patch: int, total: int) -> None:
    """Published positions are learned and count; ours are fixed and no parameters, which is the whole difference."""
    options = next(own for key, own in VIT_SIZES.items() if key == name)
    size = options["size"]
    with torch.device("meta"):
        blocks = nn.ModuleList(TransformerBlock(size, options["heads"]) for _ in range(options["depth"]))
        patches = nn.Conv2d(3, size, patch, patch)
    whole = sum(p.numel() for part in (blocks, patches) for p in part.parameters()) + size + 2 * size
    fixed = ((224 // patch) ** 2 + 1) * size
    assert whole + fixed == published(size, options["depth"], patch)
    assert whole + fixed + 1000 * (size + 1) == total


def test_a_small_network_of_224_pixels_has_its_parameters() -> None:
    net = ViT(3, (224, 224), patch=16, class_token=True, **VIT_SIZES["small"])
    count = sum(p.numel() for p in net.parameters())
    assert count == 21_665_664 - 197 * 384 == 21_590_016  # 21.67 M less learned positions of 197 tokens
    assert net.places == 196


def test_default_patches_divide_both_sides() -> None:
    for sides in ((28, 28), (32, 48), (8, 8), (9, 6), (224, 224), (7, 5), (96, 64)):
        patch = patch_for(sides)
        assert sides[0] % patch == sides[1] % patch == 0
