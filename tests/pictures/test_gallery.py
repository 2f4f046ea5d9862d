"""Pictures of any event: the pixels are the examples', in their places, at one scale."""

import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import unsup
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import keyed_generator
from unsup.core.registry import names
from unsup.evaluate.journeys import interpolate, reconstruct, spherical_path
from unsup.pictures.gallery import Drawn, Gallery
from unsup.pictures.images import png_bytes
from unsup.pictures.plots import few_ticks, robust_limits
from unsup.pictures.tables import mutual_information, strongest_pairs
from unsup.testing.cases import examples, law_cases

DIGITS = Event((1, 8, 8), Support("ordinal", 17))
GREY = Event((1, 28, 28), Support("ordinal", 256))
COLOUR = Event((3, 16, 16), Support("ordinal", 256))
ORANGE = (213, 94, 0)
SEQUENCE = Event((24,), Support("nominal", 4), "sequence")
TEXT = Event((60,), Support("nominal", 256), "sequence")
MIXED = Event((5,), (REAL, REAL, Support("ordinal", 6, low=3), BINARY, REAL))
KINDS = {
    "digits": DIGITS,
    "binary": Event((1, 6, 9), BINARY),
    "colour": COLOUR,
    "large": Event((3, 90, 70), Support("ordinal", 256)),
    "channels": Event((2, 8, 8), Support("ordinal", 5, low=-2)),
    "real-image": Event((1, 8, 8), REAL),
    "film": Event((5, 1, 8, 8), BINARY),
    "plane": Event((2,), REAL),
    "table": MIXED,
    "one-column": Event((1,), REAL),
    "two-categories": Event((2,), Support("nominal", 3)),
    "tokens": SEQUENCE,
    "bytes": TEXT,
    "sound": Event((40,), Support("ordinal", 256), "sequence"),
    "series": Event((20, 3), REAL),
    "piano-roll": Event((20, 12), BINARY),
}


def draw(event, n, seed=0):
    return examples(event, n, seed=seed).x


def uniform(event, n, seed=0):
    support = event.uniform
    shape = (n, *event.shape)
    return (torch.randint(support.levels, shape, generator=keyed_generator(seed)) + support.low).to(event.dtype)


def pixels(drawn):
    return np.asarray(Image.open(io.BytesIO(drawn.png)).convert("RGB")).astype(int)


def tile(picture, row, column, height, width, gap):
    top, left = row * (height + gap), column * (width + gap)
    return picture[top : top + height, left : left + width]


def as_levels(x, event):
    """What a support's value looks like, by hand."""
    support = event.uniform
    grey = ((x.double() - support.low) * 255 / (support.levels - 1)).round().int().numpy()
    return np.broadcast_to(np.moveaxis(grey, 0, -1), (*grey.shape[1:], 3))


def all_pictures(gallery, x, y, rows, bits, only=None):
    n = len(x)
    scores = torch.randn(n, generator=keyed_generator(0))
    draw_each = {
        "examples": lambda: gallery.examples(x, "samples of made"),
        "reconstructions": lambda: gallery.reconstructions(x, y),
        "neighbours": lambda: gallery.neighbours(x, y),
        "interpolation": lambda: gallery.interpolation(rows),
        "likeliest": lambda: gallery.extremes(x, scores, True),
        "least": lambda: gallery.extremes(x, scores, False),
        "anomalies": lambda: gallery.anomaly_ranking(x, scores, torch.arange(n) % 3 == 0),
        "bits": lambda: gallery.bits(x, bits),
    }
    return {what: drawing() for what, drawing in draw_each.items() if only is None or what in only}


# --- grids of images


@pytest.mark.parametrize(("event", "gap"), [(DIGITS, 1), (KINDS["binary"], 1), (COLOUR, 2), (GREY, 2)])
def test_every_pixel_of_a_grid_is_the_examples_level(event, gap):
    x = uniform(event, 21)
    picture = pixels(Gallery(event, uniform(event, 3, 1)).examples(x, "examples"))
    height, width = event.shape[1:]
    assert picture.shape == (3 * (height + gap) - gap, 8 * (width + gap) - gap, 3)  # no frame around it
    for i in range(21):
        np.testing.assert_array_equal(tile(picture, i // 8, i % 8, height, width, gap), as_levels(x[i], event))
    assert (tile(picture, 2, 6, height, width, gap) == 255).all()


def test_two_sets_are_drawn_at_one_scale_whatever_their_range():
    event = KINDS["real-image"]
    train = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8)
    gallery = Gallery(event, train)
    faint = pixels(gallery.examples(train * 0.5, "faint"))
    assert faint.min() == 64
    assert tile(faint, 0, 3, 8, 8, 1).max() == 191
    assert pixels(gallery.examples(train * 3, "loud")).min() == 0


def test_large_images_are_averaged_and_channels_stand_side_by_side():
    event = Event((1, 140, 140), Support("ordinal", 256))
    x = uniform(event, 1)
    picture = pixels(Gallery(event, x).examples(x, "examples"))
    shrunk = x[0, 0].double().view(70, 2, 70, 2).mean((1, 3)).round().int().numpy()
    np.testing.assert_array_equal(tile(picture, 0, 0, 70, 70, 2)[..., 0], shrunk)

    event = KINDS["channels"]
    x = uniform(event, 1)
    drawn = Gallery(event, x).examples(x, "examples")
    picture = tile(pixels(drawn), 0, 0, 8, 17, 1)[..., 0]
    for channel, left in ((0, 0), (1, 9)):  # with a white column between them
        by_hand = x[0, channel].add(2).mul(255 / 4).round().int().numpy()
        np.testing.assert_array_equal(picture[:, left : left + 8], by_hand)
    assert (picture[:, 8] == 255).all()
    assert "channels are side by side" in drawn.caption


def test_pairs_stand_above_each_other():
    x, y = uniform(DIGITS, 10, 0), uniform(DIGITS, 10, 1)
    for drawn in (Gallery(DIGITS, x).reconstructions(x, y), Gallery(DIGITS, x).neighbours(x, y)):
        picture = pixels(drawn)
        for i in range(10):
            for half, source in enumerate((x, y)):
                top = (i // 8) * (2 * 9 - 1 + 5) + half * 9
                left = (i % 8) * 9
                found = picture[top : top + 8, left : left + 8]
                np.testing.assert_array_equal(found, as_levels(source[i], DIGITS))
        assert " above " in drawn.alt


def test_a_path_is_a_row():
    rows = uniform(DIGITS, 15).view(3, 5, 1, 8, 8)
    picture = pixels(Gallery(DIGITS, rows[0]).interpolation(rows))
    for r, s in itertools.product(range(3), range(5)):
        np.testing.assert_array_equal(tile(picture, r, s, 8, 8, 1), as_levels(rows[r, s], DIGITS))


def test_extremes_are_in_order_and_say_how_far_they_reach():
    x = uniform(DIGITS, 30)
    nats = torch.randperm(30, generator=keyed_generator(1)).double() - 9
    nats[7] = math.inf
    gallery = Gallery(DIGITS, x)
    for most in (True, False):
        drawn = gallery.extremes(x, nats, most)
        order = sorted(range(30), key=lambda i: float(nats[i]) if most else -float(nats[i]))
        picture = pixels(drawn)
        for place in range(24):
            found = tile(picture, place // 8, place % 8, 8, 8, 1)
            np.testing.assert_array_equal(found, as_levels(x[order[place]], DIGITS))
        first, last = (f"{float(nats[order[i]]):.3g}".replace("inf", "∞").replace("-", "−") for i in (0, 23))
        assert f"from {first} to {last} nats" in drawn.caption
        assert f"from {first} to {last} nats" in drawn.alt
        assert ("likeliest" in drawn.alt) == most
        assert ("Least likely" in drawn.alt or "least likely" in drawn.alt) != most


@pytest.mark.parametrize("name", ["plane", "table", "tokens", "series"])
def test_extremes_of_many_examples_say_how_far_they_reach(name):
    x = draw(KINDS[name], 120)
    drawn = Gallery(KINDS[name], x).extremes(x, torch.arange(120.0), True)
    assert f"from 0 to {drawn.shown - 1} nats" in drawn.caption


def test_only_anomalies_are_framed():
    x = uniform(DIGITS, 60)
    scores = torch.randperm(60, generator=keyed_generator(2)).double()
    is_anomaly = torch.rand(60, generator=keyed_generator(3)) < 0.5
    drawn = Gallery(DIGITS, x).anomaly_ranking(x, scores, is_anomaly)
    picture, order = pixels(drawn), scores.argsort(descending=True)[:48].tolist()
    frame, height, width = 1, 10, 10
    for place, i in enumerate(order):
        cell = tile(picture, place // 8, place % 8, height, width, 1)
        np.testing.assert_array_equal(cell[frame : frame + 8, frame : frame + 8], as_levels(x[i], DIGITS))
        around = np.ones((height, width), dtype=bool)
        around[frame : frame + 8, frame : frame + 8] = False
        assert (cell[around] == (ORANGE if is_anomaly[i] else 255)).all()
    hits = int(is_anomaly[order].sum())
    assert f"Of the top 48, {hits} are anomalies ({hits / 48:.0%})" in drawn.caption
    assert f"Of the top 48, {hits} are anomalies" in drawn.alt


def test_the_heat_map_is_beside_its_example_and_bright_where_bits_are_many():
    x = uniform(DIGITS, 4)
    bits = torch.zeros(4, 64, dtype=torch.float64)
    for i in range(4):
        bits[i, 8 * i + 3 : 8 * i + 5] = 6.0
    drawn = Gallery(DIGITS, x).bits(x, bits)
    picture = pixels(drawn)
    violet, yellow = (68, 1, 84), (253, 231, 36)
    for i in range(4):
        np.testing.assert_array_equal(tile(picture, 0, 2 * i, 8, 8, 1), as_levels(x[i], DIGITS))
        heat = tile(picture, 0, 2 * i + 1, 8, 8, 1)
        expected = np.full((8, 8, 3), violet)
        expected[i, 3:5] = yellow
        assert np.abs(heat - expected).max() <= 1
    bar = picture[-1]
    assert tuple(bar[0]) == violet
    assert np.abs(bar[-1] - yellow).max() <= 1
    assert "dark violet 0, bright yellow 6 bits" in drawn.caption


def test_bits_of_colours_are_summed():
    x = uniform(COLOUR, 2)
    bits = torch.zeros(2, 3, 256, dtype=torch.float64)
    bits[0, :, 5], bits[1, 0, 9] = 1.0, 3.0  # so few that the colour scale goes up to the largest
    drawn = Gallery(COLOUR, x).bits(x, bits.flatten(1))
    picture = pixels(drawn)
    heats = [tile(picture, 0, 2 * i + 1, 16, 16, 2) for i in range(2)]
    np.testing.assert_array_equal(heats[0][0, 5], heats[1][0, 9])
    assert "bright yellow 3 bits or more per pixel" in drawn.caption


def test_the_pictures_of_mnist_sized_digits_are_small_files():
    x = (torch.rand(100, 1, 28, 28, generator=keyed_generator(0)) * 256).to(torch.uint8)  # noise: the worst case
    drawn = all_pictures(Gallery(GREY, x), x, x.flip(0), x[:40].view(5, 8, 1, 28, 28), torch.rand(100, 784) * 8)
    assert max(len(d.png) for d in drawn.values()) <= 60_000
    assert sum(len(d.png) for d in drawn.values()) <= 350_000
    assert all(Image.open(io.BytesIO(d.png)).width * d.scale <= 760 for d in drawn.values())


def test_views_are_in_the_row_of_their_example():
    rows = uniform(DIGITS, 60).view(12, 5, 1, 8, 8)
    drawn = Gallery(DIGITS, rows[0], whole=True).views(rows, "views")
    picture = pixels(drawn)
    assert (drawn.shown, drawn.alt) == (12, "Views: 12 rows, each one of the images and 4 views of it.")
    for r, s in itertools.product(range(12), range(5)):
        left = 9 * s + (4 if s else 0) - (1 if s else 0)  # a wider gap after the example
        found = picture[9 * r : 9 * r + 8, left : left + 8]
        np.testing.assert_array_equal(found, as_levels(rows[r, s], DIGITS))


@pytest.mark.parametrize("name", ["plane", "table", "tokens", "series"])
def test_views_of_other_kinds(name):
    event = KINDS[name]
    rows = draw(event, 12).view(3, 4, *event.shape)
    drawn = Gallery(event, rows.flatten(0, 1)).views(rows, "views")
    assert np.ptp(pixels(drawn)) > 0
    assert drawn == Gallery(event, rows.flatten(0, 1)).views(rows, "views")
    if name == "series":
        assert (
            drawn.alt == "Views: 3 rows of line plots with the same axes, each one of the sequences and 3 views of it."
        )


# --- all kinds


@pytest.mark.parametrize("name", ["digits", "plane", "table", "tokens", "series"])
def test_every_picture_is_repeatable_not_blank_and_described(name):
    event = KINDS[name]
    train, x = draw(event, 80), draw(event, 30, 1)
    bits = torch.rand(30, event.dims, generator=keyed_generator(4), dtype=torch.float64) * 5
    rows = x[:15].view(3, 5, *event.shape)
    drawn = all_pictures(Gallery(event, train), x, x.flip(0), rows, bits)
    again = all_pictures(Gallery(event, train), x, x.flip(0), rows, bits, only=("examples", "bits"))
    assert again == {what: drawn[what] for what in again}
    assert len({d.png for d in drawn.values()}) >= len(drawn) - 1  # pairs of two kinds may look the same
    for what, d in drawn.items():
        picture = pixels(d)
        assert len(np.unique(picture @ [65536, 256, 1])) > 2, what
        assert picture.shape[1] * d.scale <= 760, what
        assert (d.alt[-1], d.caption[-1]) == (".", "."), what
        assert "nan" not in (d.alt + d.caption).lower().split(), what


@pytest.mark.parametrize("name", ["plane", "table", "one-column", "two-categories", "tokens", "series"])
def test_no_plot_is_explained_by_a_colour_that_a_dark_page_changes(name):
    event = KINDS[name]
    x = draw(event, 30)
    drawn = all_pictures(Gallery(event, x), x, x.flip(0), x[:15].view(3, 5, *event.shape), torch.rand(30, event.dims))
    words = {word.strip(".,:;()").lower() for d in drawn.values() for word in (d.alt + d.caption).split()}
    assert not words & {"blue", "red", "violet", "yellow", "black", "white", "darker"}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("error")
def test_one_example_is_enough(name):
    event = KINDS[name]
    x = draw(event, 2)[:1]
    gallery = Gallery(event, x)
    for drawn in (gallery.examples(x, "one"), gallery.bits(x, torch.zeros(1, event.dims))):
        assert np.ptp(pixels(drawn)) > 0


@pytest.mark.filterwarnings("error")
def test_constant_columns_infinite_bits_and_broken_samples_are_survived():
    train = torch.tensor([[3.0, 1.0, 4.0, 0.0, -2.0]]).repeat(30, 1)
    gallery = Gallery(MIXED, train)
    broken = train.clone()
    broken[4, 1], broken[5, 0], broken[6, 0] = math.nan, math.inf, 1e9
    bits = torch.ones(30, 5, dtype=torch.float64)
    bits[0, 2] = math.inf
    drawn = all_pictures(
        gallery, broken, train, broken[:10].view(2, 5, 5), bits, only=("examples", "likeliest", "bits")
    )
    assert "2 with values that are not finite are left out" in drawn["examples"].caption
    assert "1 entries have probability 0" in drawn["bits"].caption
    assert gallery.examples(torch.full((3, 5), math.nan), "nothing") is None
    assert gallery.examples(train[:0], "nothing") is None


def test_rows_that_do_not_belong_together_are_refused():
    x = uniform(DIGITS, 4)
    gallery = Gallery(DIGITS, x)
    with pytest.raises(InputError, match="4 examples and 3 rows beside them"):
        gallery.reconstructions(x, x[:3])
    with pytest.raises(InputError, match="bits have shape"):
        gallery.bits(x, torch.zeros(4, 63))
    with pytest.raises(InputError, match="x has shape"):
        gallery.examples(x[:, 0], "flat")
    with pytest.raises(InputError, match="2 names of columns given; expected 5"):
        Gallery(MIXED, draw(MIXED, 5), names=("a", "b"))


# --- plots: what is drawn where, read back from the pixels


def test_a_point_is_drawn_at_its_place_in_the_training_frame():
    event = Event((2,), REAL)
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).repeat(100, 1)
    gallery = Gallery(event, corners)

    def centre(x, y):
        drawn = pixels(gallery.examples(torch.tensor([[x, y]]), "one"))
        rows, columns = np.nonzero(drawn[..., 2] - drawn[..., 0] > 40)  # the only blue
        return rows.mean(), columns.mean()

    middle, right, up = centre(0.0, 0.0), centre(0.5, 0.0), centre(0.0, 0.5)
    assert right[1] - middle[1] == pytest.approx(middle[0] - up[0], abs=2)
    assert right[1] - middle[1] > 80
    assert abs(right[0] - middle[0]) < 2
    assert abs(up[1] - middle[1]) < 2
    assert "1 of 2 are outside the frame" in gallery.examples(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), "two").caption


def blue(picture):
    return (picture[..., 2] - picture[..., 0] > 40) & (picture[..., 0] < 200)


def test_a_tables_histogram_is_that_of_the_rows_over_the_training_outline():
    event = Event((2,), Support("ordinal", 4))
    train = torch.arange(4).repeat(25)[:, None].expand(-1, 2)
    picture = pixels(Gallery(event, train).examples(torch.full((50, 2), 2), "twos"))
    panel = picture[:180, :245]  # the first one
    left, frame = np.nonzero(blue(panel).any(0))[0], np.nonzero((panel.sum(2) < 60).any(0))[0]
    width = (frame.max() - frame.min()) / (4 * 1.06)  # with a margin of 3 % at each end
    assert (left.max() - left.min()) == pytest.approx(width, rel=0.1)  # one bin of four, the third
    assert (left.min() - frame.min()) == pytest.approx(2.12 * width, rel=0.1)


@pytest.mark.parametrize("level", [0, 3])
def test_no_bin_is_cut_by_the_frame(level):
    event = Event((2,), Support("ordinal", 4))
    train = torch.arange(4).repeat(25)[:, None].expand(-1, 2)
    panel = pixels(Gallery(event, train).examples(torch.full((50, 2), level), "all in one bin"))[:180, :245]
    rows, columns = np.nonzero(blue(panel))
    frame = np.flatnonzero((panel.sum(2) < 60).any(0))
    top = np.flatnonzero(panel[:, frame.min()].sum(1) < 60).min()  # of the left side of the frame
    assert top + 3 < rows.min()
    assert frame.min() + 3 < columns.min()
    assert columns.max() < frame.max() - 3


def test_points_of_the_plane_are_drawn_over_the_training_data():
    event = Event((2,), REAL)
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).repeat(100, 1)
    drawn = Gallery(event, corners).examples(torch.zeros(1, 2), "one")
    picture = pixels(drawn)
    inside = picture[20:-90, 90:-30]  # without ticks and labels
    spots = (
        (np.abs(inside - inside.mean(2, keepdims=True)).max(2) < 5) & (inside.mean(2) < 230) & (inside.mean(2) > 120)
    )
    rows, columns = np.nonzero(spots)
    assert np.ptp(rows) > 300
    assert np.ptp(columns) > 300
    assert "the training data" in drawn.caption


def grey(picture):
    return np.abs(picture - 176).max(2) < 14


def spans(mask):
    """Where a mask is True: start and end of each stretch."""
    return np.flatnonzero(np.diff([0, *mask, 0])).reshape(-1, 2)


def bars(picture, colour):
    """The heights of the four bars of a colour in pixels; they are wider than the mark of the legend is high."""
    height = np.array([np.diff(spans(column)).max(initial=0) for column in colour(picture).T])
    found = [float(np.median(height[start:end])) for start, end in spans(height > 20) if end - start > 30]
    assert len(found) == 4, found
    return np.array(found)


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (Event((), Support("nominal", 4)), None),
        (Event((1,), Support("nominal", 4)), ("kind",)),
        (Event((1,), Support("ordinal", 4, low=-1)), ("count",)),
    ],
)
def test_the_bars_of_a_set_of_classes_are_its_shares(event, named):
    low = event.uniform.low
    train = (torch.tensor([0] * 10 + [1] * 40 + [2] * 30 + [3] * 20) + low).view(-1, *event.shape)
    rows = (torch.tensor([0] * 20 + [1] * 20 + [2] * 40 + [3] * 80) + low).view(-1, *event.shape)
    drawn = Gallery(event, train, names=named).examples(rows, "samples")
    picture = pixels(drawn)
    heights = {name: bars(picture, colour) for name, colour in (("rows", blue), ("train", grey))}
    np.testing.assert_allclose(heights["rows"] / heights["rows"][2], [0.5, 0.5, 1, 2], rtol=0.03)
    np.testing.assert_allclose(heights["train"] / heights["rows"][2], [0.4, 1.6, 1.2, 0.8], rtol=0.05)
    assert "shares of 4" in drawn.alt


def test_of_many_classes_the_most_frequent_are_shown_and_the_rest_is_counted():
    event = Event((), Support("nominal", 500))
    train = torch.cat([torch.arange(500), torch.arange(30).repeat(5)])
    drawn = Gallery(event, train).examples(torch.tensor([3, 4, 499, 499]), "samples")
    assert "the 30 most frequent of 500 classes" in drawn.alt
    assert "50.0% of these rows have no bar" in drawn.caption


def test_columns_of_zeros_and_ones_have_their_shares_and_some_rows():
    event = Event((12,), BINARY)
    train = torch.zeros(40, 12)
    rows = (torch.arange(12) % 2).repeat(40, 1)  # every second column is always 1
    drawn = Gallery(event, train).examples(rows, "samples")
    picture = pixels(drawn)
    filled = blue(picture)[80:300].sum(0) > 60
    runs = np.diff(spans(filled)).ravel()
    assert len(runs) == 6
    assert runs.max() - runs.min() <= 2
    stripes = picture[430:540]
    assert (stripes[:, 480:720] < 60).all(2).mean() == pytest.approx(0.5, abs=0.06)
    assert (stripes[:, 90:360] > 200).all(2).mean() > 0.95
    assert "the share of ones in each of 12 columns" in drawn.alt


def test_the_most_dependent_columns_are_found():
    generator = keyed_generator(5)
    x = torch.randn(3000, 6, generator=generator).double()
    x[:, 4] = x[:, 1] ** 2 + 0.1 * x[:, 4]  # dependent, with no correlation
    x[:, 2] = 7.0
    information = mutual_information(x.numpy())
    assert strongest_pairs(information, 3)[0] == (1, 4)
    gallery = Gallery(Event((6,), REAL), x)
    assert set(gallery.artist.order[:2]) == {1, 4}
    assert gallery.artist.order[-1] == 2
    groups = (x[:, [0, 1]].argsort(0).argsort(0) // (3000 / 8)).long()
    joint = torch.zeros(8, 8, dtype=torch.float64).index_put_(
        (groups[:, 0], groups[:, 1]), torch.tensor(1 / 3000).double(), True
    )
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    by_hand = float((joint * (joint / product).clamp(min=1e-300).log()).sum())
    assert information[0, 1] == pytest.approx(by_hand, abs=1e-3)


def test_tokens_and_text_are_readable_characters():
    tokens = torch.tensor([[0, 1, 2, 3] * 6, [3] * 24], dtype=torch.uint8)
    gallery = Gallery(SEQUENCE, tokens)
    assert gallery.artist.string(tokens[0]) == "0123" * 6
    picture = pixels(gallery.examples(tokens, "tokens"))
    cells = [picture[4:28, 4 + 12 * c : 16 + 12 * c] for c in range(24)]
    assert all((cells[c] == cells[c % 4]).all() for c in range(24))
    assert len({cells[c].tobytes() for c in range(4)}) == 4

    text = torch.tensor(list(b"It was the best of times,\nit was the worst of times. Always."), dtype=torch.uint8)
    gallery = Gallery(TEXT, text.repeat(5, 1))
    assert gallery.artist.string(text).startswith("It was the best of times,↵it was")
    drawn = gallery.examples(text[None], "text")
    assert "↵ is a new line" in drawn.caption
    assert "the first is “It was the best of times,↵it was the worst of times. Always.”" in drawn.alt
    noise = torch.randint(256, (50, 60), generator=keyed_generator(0)).to(torch.uint8)
    assert Gallery(TEXT, noise).artist.noun == "sequences"


def test_anomalous_lines_of_text_have_a_mark_without_colour():
    x = torch.zeros(4, 24, dtype=torch.uint8)
    marked = torch.tensor([False, True, False, True])
    picture = pixels(Gallery(SEQUENCE, x).anomaly_ranking(x, torch.tensor([4.0, 3.0, 2.0, 1.0]), marked))
    gutter = [(picture[4 + 24 * r : 28 + 24 * r, :100] < 200).any() for r in range(4)]
    assert gutter == marked.tolist()


# --- codes


def test_a_path_on_the_sphere_keeps_its_norm_and_speed():
    a, b = torch.randn(2, 50, generator=keyed_generator(0), dtype=torch.float64)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
    path = spherical_path(a, b, t)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    torch.testing.assert_close(path.norm(dim=1), a.norm() + t[:, 0] * (b.norm() - a.norm()))
    unit = path / path.norm(dim=1, keepdim=True)
    angles = (unit[1:] * unit[:-1]).sum(1).acos()
    torch.testing.assert_close(angles, angles.mean().expand(6))
    for other in (2 * a, -a, torch.zeros_like(a)):
        assert spherical_path(a, other, t).isfinite().all()
        torch.testing.assert_close(spherical_path(a, other, t)[-1], other)


@pytest.mark.parametrize("name", ["realnvp", "vae"])
def test_a_path_begins_and_ends_at_the_reconstructions(name):
    event = Event((6,), REAL)
    model = unsup.create(name, event, preset="tiny").eval()
    x = draw(event, 8)
    rows = interpolate(model, x[:3], x[3:6], 5)
    assert rows.shape == (3, 5, 6)
    back = reconstruct(model, x)
    torch.testing.assert_close(rows[:, 0], back[:3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows[:, -1], back[3:6], rtol=1e-4, atol=1e-4)
    codes = model.encode(rows[:, 2]).detach() if name == "realnvp" else None
    if codes is not None:  # the middle of a flow's path has the mean norm of its ends
        ends = [model.encode(e).detach().norm(dim=1) for e in (x[:3], x[3:6])]
        torch.testing.assert_close(codes.norm(dim=1), (ends[0] + ends[1]) / 2, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-4)


def test_what_does_not_decode_is_refused():
    event = Event((2,), REAL)
    with pytest.raises(InputError, match="MADE does not decode"):
        reconstruct(unsup.create("made", event, preset="tiny"), torch.zeros(2, 2))
    with pytest.raises(InputError, match="steps=1"):
        interpolate(unsup.create("realnvp", event, preset="tiny"), torch.zeros(1, 2), torch.ones(1, 2), 1)


# --- levels, clips, sound, padding


def test_sixteen_bits_are_shown_over_the_range_of_the_data_without_bands():
    event = Event((1, 2, 256), Support("ordinal", 65536, low=-32768))
    x = (torch.arange(512).view(1, 1, 2, 256) * 8 - 2000).expand(3, -1, -1, -1)  # 4,096 of 65,536 levels
    drawn = Gallery(event, x, whole=True).examples(x[:1], "ramp")
    picture = pixels(drawn)[..., 0]
    shown = tile(picture[..., None], 0, 0, 2, 256, 2)[..., 0].ravel()
    expected = ((np.arange(512) * 8) * 255 / 4088).round()
    np.testing.assert_allclose(shown, expected, atol=0)
    assert len(np.unique(shown)) == 256
    assert "Black is −2,000, white is 2,088." in drawn.caption


def test_a_category_has_one_colour_wherever_it_is():
    event = Event((1, 4, 4), Support("nominal", 5))
    x = uniform(event, 6)
    picture = pixels(Gallery(event, x).examples(x, "maps"))
    colours = {}
    for i in range(6):
        for value, colour in zip(x[i].flatten().tolist(), tile(picture, 0, i, 4, 4, 1).reshape(-1, 3), strict=True):
            colours.setdefault(value, set()).add(tuple(colour))
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == 5


@pytest.mark.parametrize("channels", [1, 3])
def test_the_frames_of_a_clip_stand_side_by_side(channels):
    event = Event((6, channels, 8, 8), Support("ordinal", 256))
    x = uniform(event, 3)
    drawn = Gallery(event, x).examples(x, "clips")
    first = tile(pixels(drawn), 0, 0, 8, 3 * 9 - 1, 1)
    for place, frame in enumerate((0, 2, 4)):
        expected = as_levels(x[0, frame], Event((channels, 8, 8), event.support))
        np.testing.assert_array_equal(first[:, 9 * place : 9 * place + 8], expected)
    assert "3 of 6" in drawn.caption


@pytest.mark.parametrize("side", [1, 8, 20, 28, 33, 48, 63, 64, 90, 200])
@pytest.mark.parametrize("shape", [(1,), (3,), (5,), (6, 1), (6, 3)])
def test_tiles_are_large_enough_to_see_and_the_picture_fits_a_page(side, shape):
    event = Event((*shape, side, side), BINARY)
    x = torch.zeros(9, *event.shape)
    gallery = Gallery(event, x)
    drawn = gallery.examples(x, "images", beside=True)
    picture = Image.open(io.BytesIO(drawn.png))
    assert gallery.artist.side * drawn.scale >= 64
    assert picture.width * drawn.scale <= 760
    assert len(drawn.png) <= 60_000
    assert not drawn.plot
    large = Image.open(io.BytesIO(drawn.enlarged().png)).convert("RGB")
    assert large.size == (picture.width * drawn.scale, picture.height * drawn.scale)
    np.testing.assert_array_equal(np.asarray(large)[:: drawn.scale, :: drawn.scale], pixels(drawn))


def test_real_examples_are_a_row_above_the_samples():
    train, x = uniform(DIGITS, 30, 0), uniform(DIGITS, 24, 1)
    drawn = Gallery(DIGITS, train).examples(x, "samples", beside=True)
    picture = pixels(drawn)
    for i in range(8):
        np.testing.assert_array_equal(tile(picture, 0, i, 8, 8, 1), as_levels(train[i], DIGITS))
        np.testing.assert_array_equal(tile(picture[13:], 0, i, 8, 8, 1), as_levels(x[i], DIGITS))
    assert "a row of 8 training examples" in drawn.alt


def tones(frequency, n, rate=8000, length=1024, start=0):
    time = torch.arange(length) / rate
    wave = 20000 * torch.sin(2 * math.pi * frequency * time + torch.arange(start, start + n)[:, None])
    return wave.round().to(torch.int64)


@pytest.mark.parametrize("frequency", [500, 2000, 3500])
def test_the_spectrogram_of_a_tone_is_darkest_at_its_frequency(frequency):
    event = Event((1024,), Support("ordinal", 65536, low=-32768), "sequence")
    gallery = Gallery(event, torch.cat([tones(f, 2) for f in (500, 2000, 3500)]), rate=8000)
    drawn = gallery.examples(tones(frequency, 1, start=9), "tone")
    picture = pixels(drawn).sum(2)
    spine = int((picture[:, :200] < 200).sum(0).argmax())  # the left ends of both panels
    (_, _), (top, bottom) = (span for span in spans(picture[:, spine] < 200) if np.ptp(span) > 50)
    rows = picture[top - 3 : bottom, spine + 20 : spine + 250].mean(1)
    above, *_, below = np.flatnonzero(rows < 200)  # the frame
    inside = rows[above + 4 : below - 4]
    place = np.flatnonzero(inside == inside.min()).mean() + above + 4
    found = 4000 * (below - 0.5 - place) / (below - above - 1)
    assert found == pytest.approx(frequency, abs=80)
    assert "spectrogram" in drawn.alt
    assert "More contrast to the background is louder; the range is 60 dB." in drawn.caption
    assert "ark" not in drawn.caption  # a dark page inverts the plot


def test_what_is_sound_is_told_by_its_rate_or_its_levels():
    ordinal, sixteen = Event((128,), Support("ordinal", 256), "sequence"), Support("ordinal", 65536, low=-32768)
    x = uniform(ordinal, 4)
    assert Gallery(ordinal, x, rate=8000).artist.sound
    assert Gallery(Event((128,), sixteen, "sequence"), x.long()).artist.sound
    assert not Gallery(ordinal, x).artist.sound
    assert not Gallery(Event((64, 2), Support("ordinal", 256)), x.view(4, 64, 2), rate=8000).artist.sound


OPEN = {
    "text": Event((60,), Support("nominal", 256), "sequence", open=True),
    "tokens": Event((20,), Support("nominal", 900), "sequence", open=True),
    "series": Event((20, 2), REAL, open=True),
    "sound": Event((400,), Support("ordinal", 65536, low=-32768), "sequence", open=True),
    "roll": Event((20, 12), BINARY, open=True),
    "vector": Event((20,), REAL, "vector", open=True),
    "clip": Event((6, 1, 8, 8), BINARY, open=True),
}


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.filterwarnings("error")
def test_padding_counts_for_nothing(name):
    event = OPEN[name]
    x = draw(event, 12)
    lengths = torch.arange(12) % event.shape[0] + (event.shape[0] // 2 if name == "sound" else 0)
    other = torch.where(event.padding(lengths).view(12, -1, *(1,) * (len(event.shape) - 1)), event.lowest(x), x)
    first, second = (Gallery(event, t, lengths=lengths) for t in (x, other))
    numbers = torch.arange(12.0)
    with_padding = first.examples(x, "samples", lengths=lengths)
    assert with_padding == second.examples(other, "samples", lengths=lengths)
    assert with_padding.png != first.examples(x, "samples").png
    for drawing in (
        lambda g, t: g.reconstructions(t[:4], t[:4], lengths=lengths[:4]),
        lambda g, t: g.extremes(t[:4], numbers[:4], True, lengths=lengths[:4]),
        lambda g, t: g.anomaly_ranking(t[:4], numbers[:4], numbers[:4] > 1, lengths=lengths[:4]),
    ):
        assert drawing(first, x) == drawing(second, other)


def test_an_empty_text_is_a_line_of_its_own():
    x = torch.tensor([list(b"first line"), list(b"second one")], dtype=torch.uint8)
    gallery = Gallery(Event((10,), Support("nominal", 256), "sequence", open=True), x.repeat(9, 1))
    drawn = gallery.examples(x, "lines", lengths=torch.tensor([0, 10]))
    picture = pixels(drawn)
    assert (picture[4:28] == 255).all()
    assert (picture[28:] < 100).any()
    assert "the first is “”" in drawn.alt


# --- the file


def test_the_file_says_what_the_picture_is():
    for event in (DIGITS, MIXED, TEXT):
        x = draw(event, 30)
        drawn = Gallery(event, x).examples(x, "samples of <b>made</b> “é”")
        read = Drawn.read(drawn.png)
        assert (read.alt, read.caption, read.scale, read.plot) == (drawn.alt, drawn.caption, drawn.scale, drawn.plot)
        large = drawn.enlarged()
        assert (Drawn.read(large.png).alt, Drawn.read(large.png).scale, large.scale) == (drawn.alt, 1, 1)
    assert Gallery(MIXED, draw(MIXED, 30)).examples(draw(MIXED, 3), "rows").plot


@pytest.mark.parametrize(
    "words",
    [{}, {"scale": "0"}, {"scale": "9999999999"}, {"scale": "²"}, {"scale": "-3"}, {"scale": ""}, {"plot": "maybe"}],
)
def test_a_file_of_others_is_read_at_its_own_size(words):
    found = Drawn.read(png_bytes(Image.new("L", (3, 2)), words))
    assert (found.alt, found.caption, found.scale, found.plot) == ("", "", 1, False)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\nnonsense", b"GIF89a nothing"])
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(InputError, match="cannot be read"):
        Drawn.read(content)


def test_colourings_are_rows_of_three():
    event = KINDS["colour"]
    grey, coloured, true = (draw(event, 5, seed) for seed in range(3))
    drawn = Gallery(event, true).colourings(grey, coloured, true)
    assert "its predicted colours, and its own" in drawn.caption
    arranged = Gallery(event, true).translations(grey, coloured, true)
    np.testing.assert_array_equal(pixels(drawn), pixels(arranged))


@pytest.mark.parametrize("name", ["digits", "table", "tokens", "series"])
def test_translations_are_rows_of_three(name):
    event = KINDS[name]
    a, b, back = (draw(event, 5, seed) for seed in range(3))
    drawn = Gallery(event, a).translations(a, b, back)
    assert "its translation to B, and that translated back to A" in drawn.caption
    if name == "digits":
        for row, column in itertools.product(range(5), range(3)):
            found = tile(pixels(drawn), row, column, 8, 8, 1)
            np.testing.assert_array_equal(found, as_levels((a, b, back)[column][row], event))


def test_a_file_of_its_own_holds_every_image_at_full_size():
    event = Event((3, 90, 70), Support("ordinal", 256))
    x = uniform(event, 10)
    drawn = Gallery(event, x, whole=True).examples(x, "images")
    for i in range(10):
        found = tile(pixels(drawn), i // 4, i % 4, 90, 70, 2)
        np.testing.assert_array_equal(found, x[i].permute(1, 2, 0))
    assert drawn.shown == 10


# --- every event, and hostile values


def looks(event):
    """What a picture of an event depends on, but for sizes."""
    few = [min(n, 3) for n in event.shape]
    supports = {(s.kind, s.is_discrete and min(s.levels, 3), s.low != 0) for s in event.columns}
    return event.layout, event.open, event.missing, event.precision, tuple(few), frozenset(supports)


def events_of_the_laws():
    """The first event of the law cases that looks so."""
    cases = [case for name in names() for case in law_cases(name)]
    found = [case.event for case in cases] + [case.options.get("given") for case in cases]
    first = {looks(event): event for event in reversed(found) if event is not None}
    return {str(event): event for event in first.values()}


EVERY = events_of_the_laws() | {f"kind {name}": event for name, event in KINDS.items()}


SOME = list(EVERY)[:16] + [name for name in EVERY if name.startswith("kind ")]


@pytest.mark.parametrize("name", [n if n in SOME else pytest.param(n, marks=pytest.mark.slow) for n in EVERY])
@pytest.mark.filterwarnings("error")
def test_every_event_has_every_picture(name):
    event = EVERY[name]
    train, x = draw(event, 40), draw(event, 12, 1)
    bits = torch.rand(12, event.dims, generator=keyed_generator(4), dtype=torch.float64) * 5
    decoded = draw(replace(event, missing=False), 12, 1).to(x.dtype)  # models fill in what is missing
    drawn = all_pictures(Gallery(event, train), x, x.flip(0), decoded.unflatten(0, (3, 4)), bits)
    drawn |= {"beside": Gallery(event, train).examples(x, "samples", beside=True)}
    for what, one in drawn.items():
        assert one is not None, what
        assert np.ptp(pixels(one)) > 0, what
        assert one.alt.endswith("."), what
        assert Drawn.read(one.png).alt == one.alt, what
    assert sum(len(one.png) for what, one in drawn.items() if what != "beside") <= 350_000


HOSTILE = ("constant", "huge", "tiny", "beyond", "one-outlier", "broken")


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["plane", "one-column", "real-image", "sound-real", "vector"])
@pytest.mark.filterwarnings("error")
def test_hostile_numbers_are_survived(name, kind):
    more = {"sound-real": Event((256,), REAL, "sequence"), "vector": Event((5,), REAL, precision="float64")}
    event = (KINDS | more)[name]
    x = draw(event, 40).double()
    if kind == "constant":
        x = torch.full_like(x, 3.0)
    elif kind in ("huge", "tiny"):
        x = x * (1e30 if kind == "huge" else 1e-30)
    elif kind == "beyond":
        x = x.clone()
        x[::2], x[1::2] = 1.7e308, -1.7e308
    elif kind == "one-outlier":
        x[3] = 1e30
    gallery = Gallery(event, x, rate=8000.0 if name == "sound-real" else None)
    shown = draw(event, 12, 1).double() if kind in ("broken", "constant") else x[:12].clone()
    if kind == "broken":
        shown[0], shown[1], shown[2] = math.nan, math.inf, -math.inf
        shown[3] = 1e30
    bits = torch.zeros(12, event.dims, dtype=torch.float64)
    bits[0], bits[1] = math.inf, 1e30
    only = ("examples", "reconstructions", "least", "bits")
    drawn = all_pictures(gallery, shown, shown.flip(0), shown.unflatten(0, (3, 4)), bits, only=only)
    assert all(d is None or np.ptp(pixels(d)) > 0 for d in drawn.values())
    if kind == "broken":
        assert "3 with values that are not finite are left out" in drawn["examples"].caption


def test_one_value_far_away_does_not_make_the_others_black():
    event = Event((1, 8, 8), REAL)
    x = torch.rand(200, 1, 8, 8, generator=keyed_generator(0))
    x[0, 0, 0, 0] = 1e30
    picture = tile(pixels(Gallery(event, x).examples(x[1:2], "one")), 0, 0, 8, 8, 1)[..., 0]
    np.testing.assert_allclose(picture, x[1, 0] * 255, atol=2)


def test_numbers_that_differ_late_have_ticks_that_differ():
    event = Event((2,), REAL, precision="float64")
    x = 1.7e9 + torch.rand(300, 2, generator=keyed_generator(0), dtype=torch.float64)
    axis = Figure().subplots().xaxis
    few_ticks(axis, robust_limits(x[:, 0].numpy(), 0.001))
    first, last = (label.get_text() for label in axis.get_ticklabels())
    assert first != last
    assert Gallery(event, x).examples(x, "stamps") is not None


def test_examples_of_which_none_is_finite_set_no_scale():
    with pytest.raises(InputError, match="none of 3 examples is finite"):
        Gallery(Event((2,), REAL), torch.full((3, 2), math.nan))


def test_training_examples_with_gaps_alone_set_the_scale_by_the_values_before():
    nan = math.nan
    gaps = torch.tensor([[[nan, 5.0], [2.0, nan]], [[nan, 7.0], [4.0, nan]]])
    filled = torch.tensor([[[2.0, 5.0], [2.0, 5.0]], [[2.0, 7.0], [4.0, 7.0]]])
    event = Event((2, 2), REAL)
    found = Gallery(event, gaps).examples(filled, "series", beside=True)
    expected = Gallery(event, filled).examples(filled, "series", beside=True)
    assert found is not None
    assert expected is not None
    assert "have gaps" in found.caption
    assert "have gaps" not in expected.caption
    one, other = (np.asarray(Image.open(io.BytesIO(drawn.png))) for drawn in (found, expected))
    assert np.array_equal(one, other)
