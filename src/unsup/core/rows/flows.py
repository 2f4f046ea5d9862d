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

ROSENBLATT_PAPER = Paper(
    key="rosenblatt1952remarks",
    authors="Murray Rosenblatt",
    year=1952,
    title="Remarks on a multivariate transformation",
    venue="Annals of Mathematical Statistics 23",
    link="https://doi.org/10.1214/aoms/1177729394",
)
PLANAR_PAPER = Paper(
    key="rezende2015variational",
    authors="Danilo Jimenez Rezende, Shakir Mohamed",
    year=2015,
    title="Variational inference with normalizing flows",
    venue="ICML 2015",
    link="https://arxiv.org/abs/1505.05770",
)

SYLVESTER_PAPER = Paper(
    key="vandenberg2018sylvester",
    authors="Rianne van den Berg, Leonard Hasenclever, Jakub M. Tomczak, Max Welling",
    year=2018,
    title="Sylvester normalizing flows for variational inference",
    venue="UAI 2018",
    link="https://arxiv.org/abs/1803.05649",
)
NAF_PAPER = Paper(
    key="huang2018neural",
    authors="Chin-Wei Huang, David Krueger, Alexandre Lacoste, Aaron Courville",
    year=2018,
    title="Neural autoregressive flows",
    venue="ICML 2018",
    link="https://arxiv.org/abs/1804.00779",
)

FFJORD_PAPER = Paper(
    key="grathwohl2019ffjord",
    authors="Will Grathwohl, Ricky T. Q. Chen, Jesse Bettencourt, Ilya Sutskever, David Duvenaud",
    year=2019,
    title="FFJORD: free-form continuous dynamics for scalable reversible generative models",
    venue="ICLR 2019",
    link="https://arxiv.org/abs/1810.01367",
)

RESIDUAL_FLOW_PAPER = Paper(
    key="chen2019residual",
    authors="Ricky T. Q. Chen, Jens Behrmann, David Duvenaud, Jörn-Henrik Jacobsen",
    year=2019,
    title="Residual flows for invertible generative modeling",
    venue="NeurIPS 2019",
    link="https://arxiv.org/abs/1906.02735",
)
FLOW_PLUS_PLUS_PAPER = Paper(
    key="ho2019flow",
    authors="Jonathan Ho, Xi Chen, Aravind Srinivas, Yan Duan, Pieter Abbeel",
    year=2019,
    title="Flow++: improving flow-based generative models with variational dequantization and architecture design",
    venue="ICML 2019",
    link="https://arxiv.org/abs/1902.00275",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="flow++",
        target="unsup.families.flows.flow_plus_plus:FlowPlusPlus",
        family="flows",
        summary="Couplings by distribution functions of mixtures, networks with attention, variational noise.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="images with sides divisible by 4, without categories of more than two values",
        paper=FLOW_PLUS_PLUS_PAPER,
    ),
    Row(
        name="ffjord",
        target="unsup.families.flows.ffjord:FFJORD",
        family="flows",
        summary="The solution of a differential equation as the map: any network, trace exact or estimated.",
        abilities=("score", "sample", "temper", "encode", "decode", "condition", "predict"),
        events="vectors, tables and images without categories of more than two values",
        paper=FFJORD_PAPER,
    ),
    Row(
        name="residual-flow",
        target="unsup.families.flows.residual_flow:ResidualFlow",
        family="flows",
        summary="Residual networks with a Lipschitz constant below 1 as the map; unbiased log-determinants.",
        abilities=("score", "sample", "temper", "encode", "decode", "condition", "predict"),
        events="vectors, tables and images without categories of more than two values",
        paper=RESIDUAL_FLOW_PAPER,
    ),
    Row(
        name="sylvester",
        target="unsup.families.flows.sylvester:Sylvester",
        family="flows",
        summary="Planar steps of higher rank: space is bent along several directions at once.",
        abilities=("score", "sample", "temper", "encode", "decode", "condition", "predict"),
        events="vectors and tables without categories of more than two values",
        paper=SYLVESTER_PAPER,
    ),
    Row(
        name="naf",
        target="unsup.families.flows.naf:NAF",
        family="flows",
        summary="Autoregressive steps whose map of each entry is a small monotone network.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="vectors, tables and images without categories of more than two values",
        paper=NAF_PAPER,
    ),
    Row(
        name="cdf-flow",
        target="unsup.families.flows.cdf_flow:CdfFlow",
        family="flows",
        summary="The distribution function of a mixture as the map, entry by entry: the flow to learn from.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="vectors and tables without categories of more than two values",
        paper=ROSENBLATT_PAPER,
    ),
    Row(
        name="planar",
        target="unsup.families.flows.planar:Planar",
        family="flows",
        summary="Steps that bend space along one direction; for two or three dimensions.",
        abilities=("score", "sample", "temper", "encode", "decode", "condition", "predict"),
        events="vectors and tables without categories of more than two values",
        paper=PLANAR_PAPER,
    ),
    Row(
        name="radial",
        target="unsup.families.flows.radial:Radial",
        family="flows",
        summary="Steps that contract or expand space around one point; for two or three dimensions.",
        abilities=("score", "sample", "temper", "encode", "decode", "condition", "predict"),
        events="vectors and tables without categories of more than two values",
        paper=PLANAR_PAPER,
    ),
    Row(
        name="glow",
        target="unsup.families.flows.glow:Glow",
        family="flows",
        summary="Activation normalisation, invertible 1×1 convolutions and affine couplings at several scales.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="images with even sides, without categories of more than two values",
        paper=GLOW_PAPER,
    ),
    Row(
        name="maf",
        target="unsup.families.flows.maf:MAF",
        family="flows",
        summary="Autoregressive affine steps in alternating orders: strong densities of tables; optional mixture base.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="vectors, tables and images without categories of more than two values",
        paper=MAF_PAPER,
    ),
    Row(
        name="iaf",
        target="unsup.families.flows.iaf:IAF",
        family="flows",
        summary="The steps of a masked autoregressive flow in the other direction: fast samples, slow densities.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="vectors, tables and images without categories of more than two values",
        paper=IAF_PAPER,
    ),
    Row(
        name="spline-flow",
        target="unsup.families.flows.spline_flow:SplineFlow",
        family="flows",
        summary="Rational-quadratic splines in couplings or autoregressive steps; for tables and images.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="vectors, tables and images without categories of more than two values",
        paper=SPLINE_PAPER,
    ),
    Row(
        name="nice",
        target="unsup.families.flows.nice:NICE",
        family="flows",
        summary="Volume-preserving additive couplings and one diagonal scale; logistic or Gaussian base.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="vectors, tables and images of two or more entries, without categories of more than two values",
        paper=NICE_PAPER,
    ),
    Row(
        name="realnvp",
        target="unsup.families.flows.realnvp:RealNVP",
        family="flows",
        summary="Affine couplings: an invertible map to a Gaussian with a triangular Jacobian; multi-scale for images.",
        abilities=("score", "sample", "temper", "encode", "decode", "compress", "condition", "predict"),
        events="vectors, tables and images of two or more entries, without categories of more than two values",
        paper=REALNVP_PAPER,
    ),
)
