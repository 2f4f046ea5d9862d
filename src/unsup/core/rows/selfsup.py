"""Self-supervised models: encoders that learn by made-up tasks or by contrasting views."""

from unsup.core.rows.record import Paper, Row

PATCH_POSITION_PAPER = Paper(
    key="doersch2015context",
    authors="Carl Doersch, Abhinav Gupta, Alexei A. Efros",
    year=2015,
    title="Unsupervised Visual Representation Learning by Context Prediction",
    venue="ICCV 2015",
    link="https://arxiv.org/abs/1505.05192",
)
JIGSAW_PAPER = Paper(
    key="noroozi2016jigsaw",
    authors="Mehdi Noroozi, Paolo Favaro",
    year=2016,
    title="Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles",
    venue="ECCV 2016",
    link="https://arxiv.org/abs/1603.09246",
)
ROTATION_PAPER = Paper(
    key="gidaris2018rotation",
    authors="Spyros Gidaris, Praveer Singh, Nikos Komodakis",
    year=2018,
    title="Unsupervised Representation Learning by Predicting Image Rotations",
    venue="ICLR 2018",
    link="https://arxiv.org/abs/1803.07728",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="jigsaw",
        target="unsup.families.selfsup.jigsaw:Jigsaw",
        family="selfsup",
        summary="Features by telling which permutation shuffled nine tiles of an image.",
        abilities=("encode",),
        events="images of levels, of 15 pixels and more",
        paper=JIGSAW_PAPER,
    ),
    Row(
        name="patch-position",
        target="unsup.families.selfsup.patch_position:PatchPosition",
        family="selfsup",
        summary="Features by telling where a patch of an image lies relative to another one.",
        abilities=("encode",),
        events="images of levels, of 16 pixels and more",
        paper=PATCH_POSITION_PAPER,
    ),
    Row(
        name="rotation",
        target="unsup.families.selfsup.rotation:Rotation",
        family="selfsup",
        summary="Features by telling by how many quarter turns an image is rotated.",
        abilities=("encode",),
        events="square images of levels",
        paper=ROTATION_PAPER,
    ),
)
