"""Classical density models."""

from unsup.core.rows.record import Paper, Row

ROSENBLATT = Paper(
    key="rosenblatt1956remarks",
    authors="Murray Rosenblatt",
    year=1956,
    title="Remarks on Some Nonparametric Estimates of a Density Function",
    venue="Annals of Mathematical Statistics 27(3)",
    link="https://doi.org/10.1214/aoms/1177728190",
)
DEMPSTER = Paper(
    key="dempster1977maximum",
    authors="Arthur P. Dempster, Nan M. Laird, Donald B. Rubin",
    year=1977,
    title="Maximum Likelihood from Incomplete Data via the EM Algorithm",
    venue="Journal of the Royal Statistical Society B 39(1)",
    link="https://doi.org/10.1111/j.2517-6161.1977.tb01600.x",
)
KMEANS_PLUS_PLUS = Paper(
    key="arthur2007kmeans",
    authors="David Arthur, Sergei Vassilvitskii",
    year=2007,
    title="k-means++: The Advantages of Careful Seeding",
    venue="SODA 2007",
    link="https://dl.acm.org/doi/10.5555/1283383.1283494",
)
JUAN = Paper(
    key="juan2004bernoulli",
    authors="Alfons Juan, Enrique Vidal",
    year=2004,
    title="Bernoulli Mixture Models for Binary Images",
    venue="ICPR 2004",
    link="http://users.dsic.upv.es/~ajuan/research/2004/Juan04_08b.pdf",
)
TIPPING = Paper(
    key="tipping1999probabilistic",
    authors="Michael E. Tipping, Christopher M. Bishop",
    year=1999,
    title="Probabilistic Principal Component Analysis",
    venue="Journal of the Royal Statistical Society B 61(3)",
    link="https://doi.org/10.1111/1467-9868.00196",
)
HALKO = Paper(
    key="halko2011finding",
    authors="Nathan Halko, Per-Gunnar Martinsson, Joel A. Tropp",
    year=2011,
    title="Finding Structure with Randomness: Probabilistic Algorithms for Constructing Approximate Matrix "
    "Decompositions",
    venue="SIAM Review 53(2)",
    link="https://arxiv.org/abs/0909.4061",
)
RUBIN = Paper(
    key="rubin1982em",
    authors="Donald B. Rubin, Dorothy T. Thayer",
    year=1982,
    title="EM Algorithms for ML Factor Analysis",
    venue="Psychometrika 47(1)",
    link="https://doi.org/10.1007/BF02293851",
)
JORESKOG = Paper(
    key="joreskog1967some",
    authors="Karl G. Jöreskog",
    year=1967,
    title="Some Contributions to Maximum Likelihood Factor Analysis",
    venue="Psychometrika 32(4)",
    link="https://doi.org/10.1007/BF02289658",
)
LIU = Paper(
    key="liu1998parameter",
    authors="Chuanhai Liu, Donald B. Rubin, Ying Nian Wu",
    year=1998,
    title="Parameter Expansion to Accelerate EM: The PX-EM Algorithm",
    venue="Biometrika 85(4)",
    link="https://doi.org/10.1093/biomet/85.4.755",
)
PARZEN = Paper(
    key="parzen1962estimation",
    authors="Emanuel Parzen",
    year=1962,
    title="On Estimation of a Probability Density Function and Mode",
    venue="Annals of Mathematical Statistics 33(3)",
    link="https://doi.org/10.1214/aoms/1177704472",
)
DUIN = Paper(
    key="duin1976choice",
    authors="Robert P. W. Duin",
    year=1976,
    title="On the Choice of Smoothing Parameters for Parzen Estimators of Probability Density Functions",
    venue="IEEE Transactions on Computers 25(11)",
    link="https://doi.org/10.1109/TC.1976.1674577",
)
AITCHISON = Paper(
    key="aitchison1976multivariate",
    authors="John Aitchison, Colin G. G. Aitken",
    year=1976,
    title="Multivariate Binary Discrimination by the Kernel Method",
    venue="Biometrika 63(3)",
    link="https://doi.org/10.1093/biomet/63.3.413",
)

BAUM = Paper(
    key="baum1970maximization",
    authors="Leonard E. Baum, Ted Petrie, George Soules, Norman Weiss",
    year=1970,
    title="A Maximization Technique Occurring in the Statistical Analysis of Probabilistic Functions of Markov Chains",
    venue="Annals of Mathematical Statistics 41(1)",
    link="https://doi.org/10.1214/aoms/1177697196",
)

RABINER = Paper(
    key="rabiner1989tutorial",
    authors="Lawrence R. Rabiner",
    year=1989,
    title="A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition",
    venue="Proceedings of the IEEE 77(2)",
    link="https://doi.org/10.1109/5.18626",
)

VITERBI = Paper(
    key="viterbi1967error",
    authors="Andrew J. Viterbi",
    year=1967,
    title="Error Bounds for Convolutional Codes and an Asymptotically Optimum Decoding Algorithm",
    venue="IEEE Transactions on Information Theory 13(2)",
    link="https://doi.org/10.1109/TIT.1967.1054010",
)

MARON = Paper(
    key="maron1961automatic",
    authors="M. E. Maron",
    year=1961,
    title="Automatic Indexing: An Experimental Inquiry",
    venue="Journal of the ACM 8(3)",
    link="https://doi.org/10.1145/321075.321084",
)

PEARL = Paper(
    key="pearl1988probabilistic",
    authors="Judea Pearl",
    year=1988,
    title="Probabilistic Reasoning in Intelligent Systems: Networks of Plausible Inference",
    venue="Morgan Kaufmann",
    link="https://doi.org/10.1016/C2009-0-27609-4",
    entry="book",
)

CHOW = Paper(
    key="chow1968approximating",
    authors="C. K. Chow, C. N. Liu",
    year=1968,
    title="Approximating Discrete Probability Distributions with Dependence Trees",
    venue="IEEE Transactions on Information Theory 14(3)",
    link="https://doi.org/10.1109/TIT.1968.1054142",
)

HECKERMAN = Paper(
    key="heckerman1995learning",
    authors="David Heckerman, Dan Geiger, David M. Chickering",
    year=1995,
    title="Learning Bayesian Networks: The Combination of Knowledge and Statistical Data",
    venue="Machine Learning 20(3)",
    link="https://doi.org/10.1007/BF00994016",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="histogram",
        target="unsup.families.classical.histogram:Histogram",
        family="classical",
        summary="Smoothed frequencies of levels and bins: one joint table if it is small, else independent entries.",
        abilities=("score", "sample", "temper", "complete", "compress"),
        events="any",
        paper=ROSENBLATT,
    ),
    Row(
        name="gaussian-mixture",
        target="unsup.families.classical.gaussian_mixture:GaussianMixture",
        family="classical",
        summary="Mixture of Gaussians, and in tables of products with categories and rounded Gaussians, by EM or "
        "gradient ascent.",
        abilities=("score", "sample", "encode", "complete", "compress"),
        events="real data, tables of any columns, sequences and images without categories",
        paper=DEMPSTER,
        also=(KMEANS_PLUS_PLUS,),
    ),
    Row(
        name="bernoulli-mixture",
        target="unsup.families.classical.bernoulli_mixture:BernoulliMixture",
        family="classical",
        summary="Mixture of products of Bernoullis, by EM: exact likelihood, clusters and completion of binary data.",
        abilities=("score", "sample", "encode", "decode", "complete", "compress"),
        events="binary data of any shape",
        paper=JUAN,
        also=(DEMPSTER, KMEANS_PLUS_PLUS),
    ),
    Row(
        name="ppca",
        target="unsup.families.classical.ppca:PPCA",
        family="classical",
        summary="Probabilistic PCA: a Gaussian with M principal directions and equal noise in all others.",
        abilities=("score", "sample", "temper", "encode", "decode", "complete", "compress"),
        events="data of two or more entries without categories; compresses real data",
        paper=TIPPING,
        also=(HALKO, LIU),
    ),
    Row(
        name="factor-analysis",
        target="unsup.families.classical.factor_analysis:FactorAnalysis",
        family="classical",
        summary="Factor analysis: a Gaussian with M common factors and noise of its own in every entry, by EM.",
        abilities=("score", "sample", "temper", "encode", "decode", "complete", "compress"),
        events="data of two or more entries without categories; compresses real data",
        paper=RUBIN,
        also=(JORESKOG, LIU),
    ),
    Row(
        name="kde",
        target="unsup.families.classical.kde:KDE",
        family="classical",
        summary="Kernel density estimate; its bandwidths maximise the leave-one-out likelihood.",
        abilities=("score", "sample", "complete", "compress"),
        events="real data, tables of any columns, sequences and images without categories",
        paper=PARZEN,
        also=(ROSENBLATT, DUIN, AITCHISON),
        exceptions={
            "ascent": "examples are stored, and bandwidths chosen, before the first pass",
            "margins": "kernels widen the frequencies of the data",
        },
    ),
    Row(
        name="hmm",
        target="unsup.families.classical.hmm:HiddenMarkovModel",
        family="classical",
        summary="Hidden Markov model of symbols, binary frames or Gaussians, by EM: exact likelihood, states and "
        "completion of sequences.",
        abilities=("score", "sample", "encode", "complete", "compress"),
        events="sequences, also of different lengths and with missing entries",
        paper=BAUM,
        also=(RABINER, VITERBI, DEMPSTER),
        exceptions={"margins": "the emissions of a state are the same at all steps, the frequencies are not"},
    ),
    Row(
        name="naive-bayes",
        target="unsup.families.classical.naive_bayes:NaiveBayes",
        family="classical",
        summary="Columns that are independent given the class, by counting: frequencies and Gaussians; a classifier.",
        abilities=("score", "sample", "complete", "compress", "condition", "predict"),
        events="any; the condition is a class",
        paper=MARON,
    ),
    Row(
        name="bayes-net",
        target="unsup.families.classical.bayes_net:BayesNet",
        family="classical",
        summary="Bayesian network of discrete columns: a graph that is given or learned, exact inference with any "
        "entries missing.",
        abilities=("score", "sample", "complete", "compress"),
        events="discrete entries of at most 256 levels",
        paper=PEARL,
        also=(CHOW, HECKERMAN),
    ),
)
