"""Classifiers that learn from few labels and many examples without."""

from unsup.core.rows.record import Paper, Row

REALISTIC_PAPER = Paper(
    key="oliver2018realistic",
    authors="Avital Oliver, Augustus Odena, Colin Raffel, Ekin D. Cubuk, Ian J. Goodfellow",
    year=2018,
    title="Realistic Evaluation of Deep Semi-Supervised Learning Algorithms",
    venue="NeurIPS 2018",
    link="https://arxiv.org/abs/1804.09170",
)
ENTROPY_PAPER = Paper(
    key="grandvalet2005semi",
    authors="Yves Grandvalet, Yoshua Bengio",
    year=2005,
    title="Semi-supervised Learning by Entropy Minimization",
    venue="NIPS 2004",
    link="https://papers.nips.cc/paper/2740-semi-supervised-learning-by-entropy-minimization",
)
PI_PAPER = Paper(
    key="laine2017temporal",
    authors="Samuli Laine, Timo Aila",
    year=2017,
    title="Temporal Ensembling for Semi-Supervised Learning",
    venue="ICLR 2017",
    link="https://arxiv.org/abs/1610.02242",
)
PSEUDO_LABEL_PAPER = Paper(
    key="lee2013pseudo",
    authors="Dong-Hyun Lee",
    year=2013,
    title="Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks",
    venue="ICML 2013",
    link="https://www.researchgate.net/publication/280581078",
)
VAT_PAPER = Paper(
    key="miyato2018virtual",
    authors="Takeru Miyato, Shin-ichi Maeda, Masanori Koyama, Shin Ishii",
    year=2018,
    title="Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised Learning",
    venue="IEEE Transactions on Pattern Analysis and Machine Intelligence 41(8)",
    link="https://arxiv.org/abs/1704.03976",
)
MEAN_TEACHER_PAPER = Paper(
    key="tarvainen2017mean",
    authors="Antti Tarvainen, Harri Valpola",
    year=2017,
    title="Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised deep "
    "learning results",
    venue="NIPS 2017",
    link="https://arxiv.org/abs/1703.01780",
)
MIXMATCH_PAPER = Paper(
    key="berthelot2019mixmatch",
    authors="David Berthelot, Nicholas Carlini, Ian J. Goodfellow, Nicolas Papernot, Avital Oliver, Colin Raffel",
    year=2019,
    title="MixMatch: A Holistic Approach to Semi-Supervised Learning",
    venue="NeurIPS 2019",
    link="https://arxiv.org/abs/1905.02249",
)
UDA_PAPER = Paper(
    key="xie2020unsupervised",
    authors="Qizhe Xie, Zihang Dai, Eduard H. Hovy, Minh-Thang Luong, Quoc V. Le",
    year=2020,
    title="Unsupervised Data Augmentation for Consistency Training",
    venue="NeurIPS 2020",
    link="https://arxiv.org/abs/1904.12848",
)
FIXMATCH_PAPER = Paper(
    key="sohn2020fixmatch",
    authors="Kihyuk Sohn, David Berthelot, Chun-Liang Li, Zizhao Zhang, Nicholas Carlini, Ekin D. Cubuk, Alex Kurakin, "
    "Han Zhang, Colin Raffel",
    year=2020,
    title="FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
    venue="NeurIPS 2020",
    link="https://arxiv.org/abs/2001.07685",
)

_EVENTS = "any; other networks than mlp take images of levels"
_ABLE = ("encode", "predict")

ROWS: tuple[Row, ...] = (
    Row(
        name="supervised",
        target="unsup.families.semisup.supervised:Supervised",
        family="semisup",
        summary="A classifier of the labelled examples alone, the baseline of the others.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=REALISTIC_PAPER,
    ),
    Row(
        name="entropy-minimisation",
        target="unsup.families.semisup.entropy_minimisation:EntropyMinimisation",
        family="semisup",
        summary="Unlabelled examples are to have certain classes; consistency of two views (Pi-model) as an option.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=ENTROPY_PAPER,
        also=(PI_PAPER,),
    ),
    Row(
        name="pseudo-label",
        target="unsup.families.semisup.pseudo_label:PseudoLabel",
        family="semisup",
        summary="The predicted class of an unlabelled example is taken for its label.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=PSEUDO_LABEL_PAPER,
    ),
    Row(
        name="vat",
        target="unsup.families.semisup.vat:VAT",
        family="semisup",
        summary="Virtual adversarial training: predictions hardly change in the direction in which they change most.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=VAT_PAPER,
    ),
    Row(
        name="mean-teacher",
        target="unsup.families.semisup.mean_teacher:MeanTeacher",
        family="semisup",
        summary="Predictions agree with those of an average of the network over steps.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=MEAN_TEACHER_PAPER,
    ),
    Row(
        name="mixmatch",
        target="unsup.families.semisup.mixmatch:MixMatch",
        family="semisup",
        summary="Guessed labels of unlabelled examples, and mixtures of all examples with their labels.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=MIXMATCH_PAPER,
    ),
    Row(
        name="uda",
        target="unsup.families.semisup.uda:UDA",
        family="semisup",
        summary="Predictions of strongly augmented examples are those of the unchanged ones.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=UDA_PAPER,
    ),
    Row(
        name="fixmatch",
        target="unsup.families.semisup.fixmatch:FixMatch",
        family="semisup",
        summary="The certain class of a weak view is the label of a strong view.",
        abilities=_ABLE,
        events=_EVENTS,
        paper=FIXMATCH_PAPER,
    ),
)
