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

MAF_PAPER = Paper(
    key="papamakarios2017masked",
    authors="George Papamakarios, Theo Pavlakou, Iain Murray",
    year=2017,
    title="Masked autoregressive flow for density estimation",
    venue="NeurIPS 2017",
    link="https://arxiv.org/abs/1705.07057",
)
IAF_PAPER = Paper(
    key="kingma2016improved",
    authors="Diederik P. Kingma, Tim Salimans, Rafal Jozefowicz, Xi Chen, Ilya Sutskever, Max Welling",
    year=2016,
    title="Improving variational inference with inverse autoregressive flow",
    venue="NeurIPS 2016",
    link="https://arxiv.org/abs/1606.04934",
)
SPLINE_PAPER = Paper(
    key="durkan2019neural",
    authors="Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios",
    year=2019,
    title="Neural spline flows",
    venue="NeurIPS 2019",
    link="https://arxiv.org/abs/1906.04032",
)

GLOW_PAPER = Paper(
    key="kingma2018glow",
    authors="Diederik P. Kingma, Prafulla Dhariwal",
    year=2018,
    title="Glow: generative flow with invertible 1x1 convolutions",
    venue="NeurIPS 2018",
    link="https://arxiv.org/abs/1807.03039",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="glow",
        target="unsup.families.flows.glow:Glow",
        family="flows",
        summary="Activation normalisation, invertible 1×1 convolutions and affine couplings at several scales.",
        abilities=("score", "sample", "temper", "encode", "decode", "classify", "compress"),
        events="images with even sides, without categories of more than two values",
        paper=GLOW_PAPER,
    ),
    Row(
        name="maf",
        target="unsup.families.flows.maf:MAF",
        family="flows",
        summary="Autoregressive affine steps in alternating orders: strong densities of tables; optional mixture base.",
        abilities=("score", "sample", "temper", "encode", "decode", "classify"),
        events="vectors, tables and images without categories of more than two values",
        paper=MAF_PAPER,
    ),
    Row(
        name="iaf",
        target="unsup.families.flows.iaf:IAF",
        family="flows",
        summary="The steps of a masked autoregressive flow in the other direction: fast samples, slow densities.",
        abilities=("score", "sample", "temper", "encode", "decode", "classify"),
        events="vectors, tables and images without categories of more than two values",
        paper=IAF_PAPER,
    ),
    Row(
        name="spline-flow",
        target="unsup.families.flows.spline_flow:SplineFlow",
        family="flows",
        summary="Rational-quadratic splines in couplings or autoregressive steps: the strongest flow of tables.",
        abilities=("score", "sample", "temper", "encode", "decode", "classify"),
        events="vectors, tables and images without categories of more than two values",
        paper=SPLINE_PAPER,
    ),
    Row(
        name="nice",
        target="unsup.families.flows.nice:NICE",
        family="flows",
        summary="Volume-preserving additive couplings and one diagonal scale; logistic or Gaussian base.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "classify"),
        events="vectors, tables and images without categories of more than two values",
        paper=NICE_PAPER,
    ),
    Row(
        name="realnvp",
        target="unsup.families.flows.realnvp:RealNVP",
        family="flows",
        summary="Affine couplings: an invertible map to a Gaussian with a triangular Jacobian; multi-scale for images.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "classify"),
        events="vectors, tables and images without categories of more than two values",
        paper=REALNVP_PAPER,
    ),
)
