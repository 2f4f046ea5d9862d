"""Normalizing flows."""

from unsup.core.rows.record import Paper, Row

NICE_PAPER = Paper(
    key="dinh2014nice",
    authors="Laurent Dinh, David Krueger, Yoshua Bengio",
    year=2014,
    title="NICE: Non-linear Independent Components Estimation",
    venue="ICLR 2015 workshop",
    link="https://arxiv.org/abs/1410.8516",
)
REALNVP_PAPER = Paper(
    key="dinh2017density",
    authors="Laurent Dinh, Jascha Sohl-Dickstein, Samy Bengio",
    year=2017,
    title="Density estimation using Real NVP",
    venue="ICLR 2017",
    link="https://arxiv.org/abs/1605.08803",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="nice",
        target="unsup.families.flows.nice:NICE",
        family="flows",
        summary="Volume-preserving additive couplings and one diagonal scale; logistic or Gaussian base.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress"),
        events="vectors, tables and images without categories of more than two values",
        paper=NICE_PAPER,
    ),
    Row(
        name="realnvp",
        target="unsup.families.flows.realnvp:RealNVP",
        family="flows",
        summary="Affine couplings: an invertible map to a Gaussian with a triangular Jacobian; multi-scale for images.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress"),
        events="vectors, tables and images without categories of more than two values",
        paper=REALNVP_PAPER,
    ),
)
