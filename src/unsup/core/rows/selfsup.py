"""Self-supervised models: encoders that learn by made-up tasks or by contrasting views."""

from unsup.core.rows.record import Paper, Row

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
        name="cpc",
        target="unsup.families.selfsup.cpc:CPC",
        family="selfsup",
        summary="Contrastive predictive coding of sound (a GRU) and images (masked convolutions over patches).",
        abilities=("encode",),
        events="sound and images of numbers",
        paper=CPC_PAPER,
        also=(CPC_2_PAPER,),
    ),
)
