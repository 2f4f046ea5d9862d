"""Latent-variable models."""

from unsup.core.rows.autoregressive import PIXELCNN_PLUS_PLUS_PAPER
from unsup.core.rows.flows import IAF_PAPER, PLANAR_PAPER, SYLVESTER_PAPER
from unsup.core.rows.record import Paper, Row

VAE_PAPER = Paper(
    key="kingma2014vae",
    authors="Diederik P. Kingma, Max Welling",
    year=2014,
    title="Auto-Encoding Variational Bayes",
    venue="ICLR 2014",
    link="https://arxiv.org/abs/1312.6114",
)
DLGM_PAPER = Paper(
    key="rezende2014dlgm",
    authors="Danilo Jimenez Rezende, Shakir Mohamed, Daan Wierstra",
    year=2014,
    title="Stochastic Backpropagation and Approximate Inference in Deep Generative Models",
    venue="ICML 2014",
    link="https://arxiv.org/abs/1401.4082",
)
IWAE_PAPER = Paper(
    key="burda2016iwae",
    authors="Yuri Burda, Roger Grosse, Ruslan Salakhutdinov",
    year=2016,
    title="Importance Weighted Autoencoders",
    venue="ICLR 2016",
    link="https://arxiv.org/abs/1509.00519",
)
BETA_VAE_PAPER = Paper(
    key="higgins2017betavae",
    authors="Irina Higgins, Loic Matthey, Arka Pal, Christopher Burgess, Xavier Glorot, Matthew Botvinick, "
    "Shakir Mohamed, Alexander Lerchner",
    year=2017,
    title="beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework",
    venue="ICLR 2017",
    link="https://openreview.net/forum?id=Sy2fzU9gl",
)
DREG_PAPER = Paper(
    key="tucker2019dreg",
    authors="George Tucker, Dieterich Lawson, Shixiang Gu, Chris J. Maddison",
    year=2019,
    title="Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives",
    venue="ICLR 2019",
    link="https://arxiv.org/abs/1810.04152",
)
CVAE_PAPER = Paper(
    key="sohn2015cvae",
    authors="Kihyuk Sohn, Honglak Lee, Xinchen Yan",
    year=2015,
    title="Learning Structured Output Representation using Deep Conditional Generative Models",
    venue="NeurIPS 2015",
    link="https://papers.nips.cc/paper/5775-learning-structured-output-representation-using-deep-conditional-generative-models",
)
STL_PAPER = Paper(
    key="roeder2017stl",
    authors="Geoffrey Roeder, Yuhuai Wu, David Duvenaud",
    year=2017,
    title="Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference",
    venue="NeurIPS 2017",
    link="https://arxiv.org/abs/1703.09194",
)
VAMP_PAPER = Paper(
    key="tomczak2018vampprior",
    authors="Jakub M. Tomczak, Max Welling",
    year=2018,
    title="VAE with a VampPrior",
    venue="AISTATS 2018",
    link="https://arxiv.org/abs/1705.07120",
)
INFO_VAE_PAPER = Paper(
    key="zhao2017infovae",
    authors="Shengjia Zhao, Jiaming Song, Stefano Ermon",
    year=2017,
    title="InfoVAE: Information Maximizing Variational Autoencoders",
    venue="arXiv",
    link="https://arxiv.org/abs/1706.02262",
)
WAE_PAPER = Paper(
    key="tolstikhin2018wae",
    authors="Ilya Tolstikhin, Olivier Bousquet, Sylvain Gelly, Bernhard Schölkopf",
    year=2018,
    title="Wasserstein Auto-Encoders",
    venue="ICLR 2018",
    link="https://arxiv.org/abs/1711.01558",
)
VQ_VAE_PAPER = Paper(
    key="oord2017vqvae",
    authors="Aaron van den Oord, Oriol Vinyals, Koray Kavukcuoglu",
    year=2017,
    title="Neural Discrete Representation Learning",
    venue="NeurIPS 2017",
    link="https://arxiv.org/abs/1711.00937",
)
VQ_VAE_2_PAPER = Paper(
    key="razavi2019vqvae2",
    authors="Ali Razavi, Aaron van den Oord, Oriol Vinyals",
    year=2019,
    title="Generating Diverse High-Fidelity Images with VQ-VAE-2",
    venue="NeurIPS 2019",
    link="https://arxiv.org/abs/1906.00446",
)
STRAIGHT_THROUGH_PAPER = Paper(
    key="bengio2013straight",
    authors="Yoshua Bengio, Nicholas Léonard, Aaron Courville",
    year=2013,
    title="Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation",
    venue="arXiv",
    link="https://arxiv.org/abs/1308.3432",
)
LOSSY_VAE_PAPER = Paper(
    key="chen2017lossy",
    authors="Xi Chen, Diederik P. Kingma, Tim Salimans, Yan Duan, Prafulla Dhariwal, John Schulman, Ilya Sutskever, "
    "Pieter Abbeel",
    year=2017,
    title="Variational Lossy Autoencoder",
    venue="ICLR 2017",
    link="https://arxiv.org/abs/1611.02731",
)
PIXEL_VAE_PAPER = Paper(
    key="gulrajani2017pixelvae",
    authors="Ishaan Gulrajani, Kundan Kumar, Faruk Ahmed, Adrien Ali Taiga, Francesco Visin, David Vazquez, "
    "Aaron Courville",
    year=2017,
    title="PixelVAE: A Latent Variable Model for Natural Images",
    venue="ICLR 2017",
    link="https://arxiv.org/abs/1611.05013",
)
LADDER_PAPER = Paper(
    key="sonderby2016ladder",
    authors="Casper Kaae Sønderby, Tapani Raiko, Lars Maaløe, Søren Kaae Sønderby, Ole Winther",
    year=2016,
    title="Ladder Variational Autoencoders",
    venue="NeurIPS 2016",
    link="https://arxiv.org/abs/1602.02282",
)
NVAE_PAPER = Paper(
    key="vahdat2020nvae",
    authors="Arash Vahdat, Jan Kautz",
    year=2020,
    title="NVAE: A Deep Hierarchical Variational Autoencoder",
    venue="NeurIPS 2020",
    link="https://arxiv.org/abs/2007.03898",
)
VDVAE_PAPER = Paper(
    key="child2021vdvae",
    authors="Rewon Child",
    year=2021,
    title="Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images",
    venue="ICLR 2021",
    link="https://arxiv.org/abs/2011.10650",
)
BIT_SWAP_PAPER = Paper(
    key="kingma2019bitswap",
    authors="Friso H. Kingma, Pieter Abbeel, Jonathan Ho",
    year=2019,
    title="Bit-Swap: Recursive Bits-Back Coding for Lossless Compression with Hierarchical Latent Variables",
    venue="ICML 2019",
    link="https://arxiv.org/abs/1905.06845",
)
_ONE_CODE = "the bound counts one code of each example, and is below log p by what other codes add"
_QUANTISED = {
    "loss-is-likelihood": "the loss has the terms of the codebook and of the commitment besides the bound",
    "bound-tight": _ONE_CODE,
    "frequencies": _ONE_CODE,
}

NEAL_PAPER = Paper(
    key="neal1992belief",
    authors="Radford M. Neal",
    year=1992,
    title="Connectionist learning of belief networks",
    venue="Artificial Intelligence 56(1)",
    link="https://doi.org/10.1016/0004-3702(92)90065-6",
)

NVIL_PAPER = Paper(
    key="mnih2014nvil",
    authors="Andriy Mnih, Karol Gregor",
    year=2014,
    title="Neural Variational Inference and Learning in Belief Networks",
    venue="ICML 2014",
    link="https://arxiv.org/abs/1402.0030",
)

VIMCO_PAPER = Paper(
    key="mnih2016vimco",
    authors="Andriy Mnih, Danilo J. Rezende",
    year=2016,
    title="Variational Inference for Monte Carlo Objectives",
    venue="ICML 2016",
    link="https://arxiv.org/abs/1602.06725",
)

GUMBEL_PAPER = Paper(
    key="jang2017gumbel",
    authors="Eric Jang, Shixiang Gu, Ben Poole",
    year=2017,
    title="Categorical Reparameterization with Gumbel-Softmax",
    venue="ICLR 2017",
    link="https://arxiv.org/abs/1611.01144",
)

CONCRETE_PAPER = Paper(
    key="maddison2017concrete",
    authors="Chris J. Maddison, Andriy Mnih, Yee Whye Teh",
    year=2017,
    title="The Concrete Distribution: A Continuous Relaxation of Discrete Random Variables",
    venue="ICLR 2017",
    link="https://arxiv.org/abs/1611.00712",
)

WAKE_SLEEP_PAPER = Paper(
    key="hinton1995wakesleep",
    authors="Geoffrey E. Hinton, Peter Dayan, Brendan J. Frey, Radford M. Neal",
    year=1995,
    title="The wake-sleep algorithm for unsupervised neural networks",
    venue="Science 268(5214)",
    link="https://doi.org/10.1126/science.7761831",
)

HELMHOLTZ_PAPER = Paper(
    key="dayan1995helmholtz",
    authors="Peter Dayan, Geoffrey E. Hinton, Radford M. Neal, Richard S. Zemel",
    year=1995,
    title="The Helmholtz machine",
    venue="Neural Computation 7(5)",
    link="https://doi.org/10.1162/neco.1995.7.5.889",
)

RWS_PAPER = Paper(
    key="bornschein2015rws",
    authors="Jörg Bornschein, Yoshua Bengio",
    year=2015,
    title="Reweighted Wake-Sleep",
    venue="ICLR 2015",
    link="https://arxiv.org/abs/1406.2751",
)

SVI_PAPER = Paper(
    key="hoffman2013svi",
    authors="Matthew D. Hoffman, David M. Blei, Chong Wang, John Paisley",
    year=2013,
    title="Stochastic Variational Inference",
    venue="Journal of Machine Learning Research 14",
    link="https://arxiv.org/abs/1206.7051",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="vae",
        target="unsup.families.latent.vae:VAE",
        family="latent",
        summary="Variational autoencoder; beta-VAE, IWAE, conditions, flow posteriors and learned priors as options.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition"),
        events="vectors, tables, sequences and images; net=conv: images only",
        paper=VAE_PAPER,
        also=(
            DLGM_PAPER,
            IWAE_PAPER,
            BETA_VAE_PAPER,
            DREG_PAPER,
            STL_PAPER,
            CVAE_PAPER,
            PLANAR_PAPER,
            SYLVESTER_PAPER,
            IAF_PAPER,
            VAMP_PAPER,
            INFO_VAE_PAPER,
            WAE_PAPER,
            LOSSY_VAE_PAPER,
            PIXEL_VAE_PAPER,
            PIXELCNN_PLUS_PLUS_PAPER,
        ),
    ),
    Row(
        name="hierarchical-vae",
        target="unsup.families.latent.hierarchical_vae:HierarchicalVAE",
        family="latent",
        summary="Several layers of latents: ladder VAE, two-layer IWAE net, VD-VAE, NVAE cells, ResNet VAE with IAF.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition"),
        events="vectors, tables, sequences and images; net=conv: images only",
        paper=VDVAE_PAPER,
        also=(LADDER_PAPER, IWAE_PAPER, DREG_PAPER, IAF_PAPER, NVAE_PAPER, BIT_SWAP_PAPER),
    ),
    Row(
        name="vq-vae",
        target="unsup.families.latent.vq_vae:VQVAE",
        family="latent",
        summary="Autoencoder with codes from a learned codebook; the prior of the codes is uniform or another model.",
        abilities=("score", "sample", "encode", "decode", "compress"),
        events="vectors, tables, sequences and images; net=conv: images only",
        paper=VQ_VAE_PAPER,
        also=(STRAIGHT_THROUGH_PAPER,),
        exceptions=_QUANTISED,
    ),
    Row(
        name="vq-vae-2",
        target="unsup.families.latent.vq_vae_2:VQVAE2",
        family="latent",
        summary="Autoencoder with two or three maps of codes: details given global structure, each with a prior.",
        abilities=("score", "sample", "encode", "decode", "compress"),
        events="images",
        paper=VQ_VAE_2_PAPER,
        also=(VQ_VAE_PAPER, STRAIGHT_THROUGH_PAPER),
        exceptions=_QUANTISED,
    ),
    Row(
        name="latent",
        target="unsup.families.latent.latent:Latent",
        family="latent",
        summary="Binary or categorical latents, sigmoid belief nets; VIMCO, NVIL, Gumbel-softmax, wake-sleep, exact.",
        abilities=("score", "sample", "encode", "decode", "compress"),
        events="vectors, tables, sequences and images; net=conv: images only",
        paper=VIMCO_PAPER,
        also=(
            NEAL_PAPER,
            SVI_PAPER,
            IWAE_PAPER,
            NVIL_PAPER,
            GUMBEL_PAPER,
            CONCRETE_PAPER,
            STRAIGHT_THROUGH_PAPER,
            HELMHOLTZ_PAPER,
            WAKE_SLEEP_PAPER,
            RWS_PAPER,
        ),
    ),
)
