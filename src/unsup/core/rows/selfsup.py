"""Self-supervised models: encoders that learn by made-up tasks or by contrasting views."""

from unsup.core.rows.record import Paper, Row

DEEP_AUTOENCODER_PAPER = Paper(
    key="hinton2006reducing",
    authors="Geoffrey E. Hinton, Ruslan R. Salakhutdinov",
    year=2006,
    title="Reducing the Dimensionality of Data with Neural Networks",
    venue="Science 313(5786)",
    link="https://doi.org/10.1126/science.1127647",
)
SPARSE_PAPER = Paper(
    key="lee2007sparse",
    authors="Honglak Lee, Chaitanya Ekanadham, Andrew Y. Ng",
    year=2007,
    title="Sparse deep belief net model for visual area V2",
    venue="NIPS 2007",
    link="https://papers.nips.cc/paper/3313-sparse-deep-belief-net-model-for-visual-area-v2",
)
CONTRACTIVE_PAPER = Paper(
    key="rifai2011contractive",
    authors="Salah Rifai, Pascal Vincent, Xavier Muller, Xavier Glorot, Yoshua Bengio",
    year=2011,
    title="Contractive Auto-Encoders: Explicit Invariance During Feature Extraction",
    venue="ICML 2011",
    link="https://icml.cc/2011/papers/455_icmlpaper.pdf",
)
DENOISING_PAPER = Paper(
    key="vincent2010stacked",
    authors="Pascal Vincent, Hugo Larochelle, Isabelle Lajoie, Yoshua Bengio, Pierre-Antoine Manzagol",
    year=2010,
    title="Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising "
    "Criterion",
    venue="Journal of Machine Learning Research 11",
    link="https://jmlr.org/papers/v11/vincent10a.html",
)
FIRST_DENOISING_PAPER = Paper(
    key="vincent2008extracting",
    authors="Pascal Vincent, Hugo Larochelle, Yoshua Bengio, Pierre-Antoine Manzagol",
    year=2008,
    title="Extracting and Composing Robust Features with Denoising Autoencoders",
    venue="ICML 2008",
    link="https://doi.org/10.1145/1390156.1390294",
)
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
CPC_PAPER = Paper(
    key="oord2018cpc",
    authors="Aaron van den Oord, Yazhe Li, Oriol Vinyals",
    year=2018,
    title="Representation Learning with Contrastive Predictive Coding",
    venue="arXiv",
    link="https://arxiv.org/abs/1807.03748",
)
CPC_2_PAPER = Paper(
    key="henaff2020cpc",
    authors="Olivier J. Hénaff, Aravind Srinivas, Jeffrey De Fauw, Ali Razavi, Carl Doersch, S. M. Ali Eslami, "
    "Aaron van den Oord",
    year=2020,
    title="Data-Efficient Image Recognition with Contrastive Predictive Coding",
    venue="ICML 2020",
    link="https://arxiv.org/abs/1905.09272",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="autoencoder",
        target="unsup.families.selfsup.autoencoder:Autoencoder",
        family="selfsup",
        summary="Deep autoencoder with a small code, or with a sparse or contractive penalty.",
        abilities=("encode", "decode"),
        events="any data, also tables with missing entries",
        paper=DEEP_AUTOENCODER_PAPER,
        also=(SPARSE_PAPER, CONTRACTIVE_PAPER),
    ),
    Row(
        name="denoising-autoencoder",
        target="unsup.families.selfsup.denoising_autoencoder:DenoisingAutoencoder",
        family="selfsup",
        summary="Restores examples from corrupted copies; trained layer by layer, then together.",
        abilities=("encode", "decode"),
        events="any data, also tables with missing entries",
        paper=DENOISING_PAPER,
        also=(FIRST_DENOISING_PAPER,),
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
        name="jigsaw",
        target="unsup.families.selfsup.jigsaw:Jigsaw",
        family="selfsup",
        summary="Features by telling which permutation shuffled nine tiles of an image.",
        abilities=("encode",),
        events="images of levels, of 15 pixels and more",
        paper=JIGSAW_PAPER,
    ),
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
    Row(
        name="cpc",
        target="unsup.families.selfsup.cpc:CPC",
        family="selfsup",
        summary="Contrastive predictive coding of sound (a GRU) and images (masked convolutions over patches).",
        abilities=("encode",),
        events="sound and images of numbers",
        paper=CPC_PAPER,
        also=(CPC_2_PAPER,),
    ),
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
