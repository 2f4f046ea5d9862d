"""Self-supervised models: encoders that learn by made-up tasks or by contrasting views."""

from unsup.core.rows.record import Paper, Row

COLORIZATION_PAPER = Paper(
    key="zhang2016colorful",
    authors="Richard Zhang, Phillip Isola, Alexei A. Efros",
    year=2016,
    title="Colorful Image Colorization",
    venue="ECCV 2016",
    link="https://arxiv.org/abs/1603.08511",
)
SPLIT_BRAIN_PAPER = Paper(
    key="zhang2017split",
    authors="Richard Zhang, Phillip Isola, Alexei A. Efros",
    year=2017,
    title="Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction",
    venue="CVPR 2017",
    link="https://arxiv.org/abs/1611.09842",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="colorization",
        target="unsup.families.selfsup.colorization:Colorization",
        family="selfsup",
        summary="Predicts the colours of a picture from its lightness, as classes; colours grey pictures.",
        abilities=("encode", "translate"),
        events="colour images of levels",
        paper=COLORIZATION_PAPER,
    ),
    Row(
        name="split-brain",
        target="unsup.families.selfsup.split_brain:SplitBrain",
        family="selfsup",
        summary="Two halves of a network: one predicts colours from lightness, the other lightness from colours.",
        abilities=("encode",),
        events="colour images of levels",
        paper=SPLIT_BRAIN_PAPER,
    ),
)
