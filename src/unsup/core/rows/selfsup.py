"""Self-supervised models: encoders that learn by made-up tasks or by contrasting views."""

from unsup.core.rows.record import Paper, Row

SIMCLR_PAPER = Paper(
    key="chen2020simclr",
    authors="Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton",
    year=2020,
    title="A Simple Framework for Contrastive Learning of Visual Representations",
    venue="ICML 2020",
    link="https://arxiv.org/abs/2002.05709",
)
MOCO_PAPER = Paper(
    key="he2020moco",
    authors="Kaiming He, Haoqi Fan, Yuxin Wu, Saining Xie, Ross Girshick",
    year=2020,
    title="Momentum Contrast for Unsupervised Visual Representation Learning",
    venue="CVPR 2020",
    link="https://arxiv.org/abs/1911.05722",
)
MOCO_2_PAPER = Paper(
    key="chen2020mocov2",
    authors="Xinlei Chen, Haoqi Fan, Ross Girshick, Kaiming He",
    year=2020,
    title="Improved Baselines with Momentum Contrastive Learning",
    venue="arXiv",
    link="https://arxiv.org/abs/2003.04297",
)
BYOL_PAPER = Paper(
    key="grill2020byol",
    authors="Jean-Bastien Grill, Florian Strub, Florent Altché, Corentin Tallec, Pierre H. Richemond, "
    "Elena Buchatskaya, Carl Doersch, Bernardo Avila Pires, Zhaohan Daniel Guo, Mohammad Gheshlaghi Azar, Bilal Piot, "
    "Koray Kavukcuoglu, Rémi Munos, Michal Valko",
    year=2020,
    title="Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
    venue="NeurIPS 2020",
    link="https://arxiv.org/abs/2006.07733",
)
SIMSIAM_PAPER = Paper(
    key="chen2021simsiam",
    authors="Xinlei Chen, Kaiming He",
    year=2021,
    title="Exploring Simple Siamese Representation Learning",
    venue="CVPR 2021",
    link="https://arxiv.org/abs/2011.10566",
)
VICREG_PAPER = Paper(
    key="bardes2022vicreg",
    authors="Adrien Bardes, Jean Ponce, Yann LeCun",
    year=2022,
    title="VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    venue="ICLR 2022",
    link="https://arxiv.org/abs/2105.04906",
)
BARLOW_PAPER = Paper(
    key="zbontar2021barlow",
    authors="Jure Zbontar, Li Jing, Ishan Misra, Yann LeCun, Stéphane Deny",
    year=2021,
    title="Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
    venue="ICML 2021",
    link="https://arxiv.org/abs/2103.03230",
)

_IMAGES = "images of levels"

ROWS: tuple[Row, ...] = (
    Row(
        name="simclr",
        target="unsup.families.selfsup.simclr:SimCLR",
        family="selfsup",
        summary="SimCLR: two views of an image against all other views of the batch.",
        abilities=("encode",),
        events=_IMAGES,
        paper=SIMCLR_PAPER,
    ),
    Row(
        name="moco",
        target="unsup.families.selfsup.moco:MoCo",
        family="selfsup",
        summary="MoCo, versions 1 and 2: queries against keys of a momentum teacher, with a queue of negatives.",
        abilities=("encode",),
        events=_IMAGES,
        paper=MOCO_PAPER,
        also=(MOCO_2_PAPER,),
    ),
    Row(
        name="byol",
        target="unsup.families.selfsup.byol:BYOL",
        family="selfsup",
        summary="BYOL: prediction of what a momentum teacher makes of another view; SimSiam as an option.",
        abilities=("encode",),
        events=_IMAGES,
        paper=BYOL_PAPER,
        also=(SIMSIAM_PAPER,),
    ),
    Row(
        name="vicreg",
        target="unsup.families.selfsup.vicreg:VICReg",
        family="selfsup",
        summary="VICReg: views agree, entries vary and are not redundant; Barlow Twins as an option.",
        abilities=("encode",),
        events=_IMAGES,
        paper=VICREG_PAPER,
        also=(BARLOW_PAPER,),
    ),
)
