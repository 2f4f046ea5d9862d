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
