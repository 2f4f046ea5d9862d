"""Energy-based models and score matching."""

from unsup.core.rows.record import Paper, Row

XIE_PAPER = Paper(
    key="xie2016generativeconvnet",
    authors="Jianwen Xie, Yang Lu, Song-Chun Zhu, Ying Nian Wu",
    year=2016,
    title="A Theory of Generative ConvNet",
    venue="ICML 2016",
    link="https://arxiv.org/abs/1602.03264",
)
SHORT_RUN_PAPER = Paper(
    key="nijkamp2019shortrun",
    authors="Erik Nijkamp, Mitch Hill, Song-Chun Zhu, Ying Nian Wu",
    year=2019,
    title="Learning Non-Convergent Non-Persistent Short-Run MCMC Toward Energy-Based Model",
    venue="NeurIPS 2019",
    link="https://arxiv.org/abs/1904.09770",
)
IMPLICIT_GENERATION_PAPER = Paper(
    key="du2019implicit",
    authors="Yilun Du, Igor Mordatch",
    year=2019,
    title="Implicit Generation and Modeling with Energy-Based Models",
    venue="NeurIPS 2019",
    link="https://arxiv.org/abs/1903.08689",
)
SCORE_MATCHING_PAPER = Paper(
    key="hyvarinen2005scorematching",
    authors="Aapo Hyvärinen",
    year=2005,
    title="Estimation of Non-Normalized Statistical Models by Score Matching",
    venue="Journal of Machine Learning Research 6",
    link="https://jmlr.org/papers/v6/hyvarinen05a.html",
)
DENOISING_PAPER = Paper(
    key="vincent2011denoising",
    authors="Pascal Vincent",
    year=2011,
    title="A Connection Between Score Matching and Denoising Autoencoders",
    venue="Neural Computation 23(7)",
    link="https://doi.org/10.1162/NECO_a_00142",
)
SLICED_PAPER = Paper(
    key="song2019sliced",
    authors="Yang Song, Sahaj Garg, Jiaxin Shi, Stefano Ermon",
    year=2019,
    title="Sliced Score Matching: A Scalable Approach to Density and Score Estimation",
    venue="UAI 2019",
    link="https://arxiv.org/abs/1905.07088",
)
CONTRASTIVE_DIVERGENCE_PAPER = Paper(
    key="hinton2002cd",
    authors="Geoffrey E. Hinton",
    year=2002,
    title="Training Products of Experts by Minimizing Contrastive Divergence",
    venue="Neural Computation 14(8)",
    link="https://doi.org/10.1162/089976602760128018",
)
PERSISTENT_PAPER = Paper(
    key="tieleman2008pcd",
    authors="Tijmen Tieleman",
    year=2008,
    title="Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient",
    venue="ICML 2008",
    link="https://doi.org/10.1145/1390156.1390290",
)
RBM_PARTITION_PAPER = Paper(
    key="salakhutdinov2008quantitative",
    authors="Ruslan Salakhutdinov, Iain Murray",
    year=2008,
    title="On the Quantitative Analysis of Deep Belief Networks",
    venue="ICML 2008",
    link="https://doi.org/10.1145/1390156.1390266",
)
CENTRING_PAPER = Paper(
    key="montavon2012centering",
    authors="Grégoire Montavon, Klaus-Robert Müller",
    year=2012,
    title="Deep Boltzmann Machines and the Centering Trick",
    venue="Neural Networks: Tricks of the Trade",
    link="https://doi.org/10.1007/978-3-642-35289-8_33",
    entry="incollection",
)

DBN_PAPER = Paper(
    key="hinton2006dbn",
    authors="Geoffrey E. Hinton, Simon Osindero, Yee-Whye Teh",
    year=2006,
    title="A Fast Learning Algorithm for Deep Belief Nets",
    venue="Neural Computation 18(7)",
    link="https://doi.org/10.1162/neco.2006.18.7.1527",
)

DBM_PAPER = Paper(
    key="salakhutdinov2009dbm",
    authors="Ruslan Salakhutdinov, Geoffrey E. Hinton",
    year=2009,
    title="Deep Boltzmann Machines",
    venue="AISTATS 2009",
    link="https://proceedings.mlr.press/v5/salakhutdinov09a.html",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="dbm",
        target="unsup.families.energy.dbm:DBM",
        family="energy",
        summary="Deep Boltzmann machine: undirected layers, by mean field and persistent chains.",
        abilities=("score", "sample", "encode", "decode", "complete"),
        events="binary data of any shape",
        paper=DBM_PAPER,
        also=(PERSISTENT_PAPER, RBM_PARTITION_PAPER, CENTRING_PAPER),
        exceptions={
            "loss-is-likelihood": "the loss is a difference of energies; only its gradient is that of the bound",
            "bound-rises": "the mean field is almost exact with weights as small as those of this law",
            "descent": "the loss is a difference of energies that stays near 0; the chains follow the parameters",
        },
    ),
    Row(
        name="dbn",
        target="unsup.families.energy.dbn:DBN",
        family="energy",
        summary="Deep belief network: an RBM on top of directed layers, trained layer by layer, then up-down.",
        abilities=("score", "sample", "encode", "decode"),
        events="binary data of any shape",
        paper=DBN_PAPER,
        also=(RBM_PARTITION_PAPER,),
        exceptions={
            "loss-is-likelihood": "the losses are contrastive divergence and wake-sleep; they are not the bound",
        },
    ),
    Row(
        name="ebm",
        target="unsup.families.energy.ebm:EBM",
        family="energy",
        summary="Energy-based model by maximum likelihood; Langevin chains start from a replay buffer, data or noise.",
        abilities=("sample", "energy", "gradient"),
        events="vectors, tables, sequences and images without categories of more than two values",
        paper=XIE_PAPER,
        also=(SHORT_RUN_PAPER, IMPLICIT_GENERATION_PAPER),
        exceptions={
            "descent": "the loss is a difference of energies that stays near 0; the chains follow the parameters"
        },
    ),
    Row(
        name="rbm",
        target="unsup.families.energy.rbm:RBM",
        family="energy",
        summary="Restricted Boltzmann machine, by contrastive divergence or persistent chains.",
        abilities=("score", "sample", "encode", "decode", "complete", "energy"),
        events="binary data of any shape",
        paper=CONTRASTIVE_DIVERGENCE_PAPER,
        also=(PERSISTENT_PAPER, RBM_PARTITION_PAPER, CENTRING_PAPER),
        exceptions={
            "loss-is-likelihood": "the loss is a difference of free energies; only its gradient is the likelihood's",
            "descent": "the loss is a difference of free energies that stays near 0; the chains follow the parameters",
        },
    ),
    Row(
        name="score-matching",
        target="unsup.families.energy.score_matching:ScoreMatching",
        family="energy",
        summary="Score matching of an energy network: exact, sliced or denoising.",
        abilities=("sample", "energy", "gradient"),
        events="vectors, tables, sequences and images without categories of more than two values; real entries for "
        "exact and sliced",
        paper=SCORE_MATCHING_PAPER,
        also=(DENOISING_PAPER, SLICED_PAPER),
    ),
)
