"""Adversarial models."""

from unsup.core.rows.record import Paper, Row

GAN_PAPER = Paper(
    key="goodfellow2014gan",
    authors="Ian J. Goodfellow, Jean Pouget-Abadie, Mehdi Mirza, Bing Xu, David Warde-Farley, Sherjil Ozair, "
    "Aaron Courville, Yoshua Bengio",
    year=2014,
    title="Generative Adversarial Nets",
    venue="NeurIPS 2014",
    link="https://arxiv.org/abs/1406.2661",
)
DCGAN_PAPER = Paper(
    key="radford2016dcgan",
    authors="Alec Radford, Luke Metz, Soumith Chintala",
    year=2016,
    title="Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks",
    venue="ICLR 2016",
    link="https://arxiv.org/abs/1511.06434",
)
IMPROVED_GAN_PAPER = Paper(
    key="salimans2016improved",
    authors="Tim Salimans, Ian Goodfellow, Wojciech Zaremba, Vicki Cheung, Alec Radford, Xi Chen",
    year=2016,
    title="Improved Techniques for Training GANs",
    venue="NeurIPS 2016",
    link="https://arxiv.org/abs/1606.03498",
)
LSGAN_PAPER = Paper(
    key="mao2017lsgan",
    authors="Xudong Mao, Qing Li, Haoran Xie, Raymond Y.K. Lau, Zhen Wang, Stephen Paul Smolley",
    year=2017,
    title="Least Squares Generative Adversarial Networks",
    venue="ICCV 2017",
    link="https://arxiv.org/abs/1611.04076",
)
WGAN_PAPER = Paper(
    key="arjovsky2017wgan",
    authors="Martin Arjovsky, Soumith Chintala, Léon Bottou",
    year=2017,
    title="Wasserstein GAN",
    venue="ICML 2017",
    link="https://arxiv.org/abs/1701.07875",
)
WGAN_GP_PAPER = Paper(
    key="gulrajani2017wgangp",
    authors="Ishaan Gulrajani, Faruk Ahmed, Martin Arjovsky, Vincent Dumoulin, Aaron Courville",
    year=2017,
    title="Improved Training of Wasserstein GANs",
    venue="NeurIPS 2017",
    link="https://arxiv.org/abs/1704.00028",
)
GEOMETRIC_GAN_PAPER = Paper(
    key="lim2017geometric",
    authors="Jae Hyun Lim, Jong Chul Ye",
    year=2017,
    title="Geometric GAN",
    venue="arXiv",
    link="https://arxiv.org/abs/1705.02894",
)
R1_PAPER = Paper(
    key="mescheder2018r1",
    authors="Lars Mescheder, Andreas Geiger, Sebastian Nowozin",
    year=2018,
    title="Which Training Methods for GANs do actually Converge?",
    venue="ICML 2018",
    link="https://arxiv.org/abs/1801.04406",
)
SNGAN_PAPER = Paper(
    key="miyato2018sngan",
    authors="Takeru Miyato, Toshiki Kataoka, Masanori Koyama, Yuichi Yoshida",
    year=2018,
    title="Spectral Normalization for Generative Adversarial Networks",
    venue="ICLR 2018",
    link="https://arxiv.org/abs/1802.05957",
)
PACGAN_PAPER = Paper(
    key="lin2018pacgan",
    authors="Zinan Lin, Ashish Khetan, Giulia Fanti, Sewoong Oh",
    year=2018,
    title="PacGAN: The Power of Two Samples in Generative Adversarial Networks",
    venue="NeurIPS 2018",
    link="https://arxiv.org/abs/1712.04086",
)
CGAN_PAPER = Paper(
    key="mirza2014cgan",
    authors="Mehdi Mirza, Simon Osindero",
    year=2014,
    title="Conditional Generative Adversarial Nets",
    venue="arXiv",
    link="https://arxiv.org/abs/1411.1784",
)
CYCLEGAN_PAPER = Paper(
    key="zhu2017cyclegan",
    authors="Jun-Yan Zhu, Taesung Park, Phillip Isola, Alexei A. Efros",
    year=2017,
    title="Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
    venue="ICCV 2017",
    link="https://arxiv.org/abs/1703.10593",
)
HISTORY_PAPER = Paper(
    key="shrivastava2017simgan",
    authors="Ashish Shrivastava, Tomas Pfister, Oncel Tuzel, Josh Susskind, Wenda Wang, Russ Webb",
    year=2017,
    title="Learning from Simulated and Unsupervised Images through Adversarial Training",
    venue="CVPR 2017",
    link="https://arxiv.org/abs/1612.07828",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="cyclegan",
        target="unsup.families.adversarial.cyclegan:CycleGAN",
        family="adversarial",
        summary="Translation of images between two domains, learned from unpaired examples.",
        abilities=("translate",),
        events="images with discrete levels; sides are multiples of 4 and at least 8; data with a second domain",
        paper=CYCLEGAN_PAPER,
        also=(LSGAN_PAPER, HISTORY_PAPER),
        exceptions={
            "gradients": "the paper's networks have biases before instance normalisation, which removes their effect; "
            "the test of the model checks all other parameters",
            "accumulation": "the critics' histories exchange one part of a batch after the other",
        },
    ),
    Row(
        name="gan",
        target="unsup.families.adversarial.gan:GAN",
        family="adversarial",
        summary="Generative adversarial network: six losses, R1, spectral norm, packing; MLP, DCGAN or ResNet.",
        abilities=("sample", "condition"),
        events="real, binary or ordinal vectors, tables and images; net=dcgan and net=resnet: images only",
        paper=GAN_PAPER,
        also=(
            DCGAN_PAPER,
            IMPROVED_GAN_PAPER,
            LSGAN_PAPER,
            WGAN_PAPER,
            WGAN_GP_PAPER,
            GEOMETRIC_GAN_PAPER,
            R1_PAPER,
            SNGAN_PAPER,
            PACGAN_PAPER,
            CGAN_PAPER,
        ),
    ),
)
