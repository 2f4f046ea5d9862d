"""Self-supervised models: encoders that learn by made-up tasks or by contrasting views."""

from unsup.core.rows.record import Paper, Row

MAE_PAPER = Paper(
    key="he2022masked",
    authors="Kaiming He, Xinlei Chen, Saining Xie, Yanghao Li, Piotr Dollár, Ross Girshick",
    year=2022,
    title="Masked Autoencoders Are Scalable Vision Learners",
    venue="CVPR 2022",
    link="https://arxiv.org/abs/2111.06377",
)
VIT_PAPER = Paper(
    key="dosovitskiy2021image",
    authors="Alexey Dosovitskiy, Lucas Beyer, Alexander Kolesnikov, Dirk Weissenborn, Xiaohua Zhai, "
    "Thomas Unterthiner, Mostafa Dehghani, Matthias Minderer, Georg Heigold, Sylvain Gelly, Jakob Uszkoreit, "
    "Neil Houlsby",
    year=2021,
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    venue="ICLR 2021",
    link="https://arxiv.org/abs/2010.11929",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="mae",
        target="unsup.families.selfsup.mae:MAE",
        family="selfsup",
        summary="Masked autoencoder: a transformer sees a quarter of the patches, a small one predicts the rest.",
        abilities=("encode",),
        events="images of levels",
        paper=MAE_PAPER,
        also=(VIT_PAPER,),
    ),
)
