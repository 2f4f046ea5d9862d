"""Autoregressive models."""

from unsup.core.rows.record import Paper, Row

MADE_PAPER = Paper(
    key="germain2015made",
    authors="Mathieu Germain, Karol Gregor, Iain Murray, Hugo Larochelle",
    year=2015,
    title="MADE: Masked Autoencoder for Distribution Estimation",
    venue="ICML 2015",
    link="https://arxiv.org/abs/1502.03509",
)
PIXELRNN_PAPER = Paper(
    key="oord2016pixel",
    authors="Aäron van den Oord, Nal Kalchbrenner, Koray Kavukcuoglu",
    year=2016,
    title="Pixel Recurrent Neural Networks",
    venue="ICML 2016",
    link="https://arxiv.org/abs/1601.06759",
)
CONDITIONAL_PIXELCNN_PAPER = Paper(
    key="oord2016conditional",
    authors="Aäron van den Oord, Nal Kalchbrenner, Oriol Vinyals, Lasse Espeholt, Alex Graves, Koray Kavukcuoglu",
    year=2016,
    title="Conditional Image Generation with PixelCNN Decoders",
    venue="NeurIPS 2016",
    link="https://arxiv.org/abs/1606.05328",
)
ATTENTION_PAPER = Paper(
    key="vaswani2017attention",
    authors="Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez, Łukasz Kaiser, "
    "Illia Polosukhin",
    year=2017,
    title="Attention Is All You Need",
    venue="NeurIPS 2017",
    link="https://arxiv.org/abs/1706.03762",
)
COURSE = Paper(
    key="abbeel2020deep",
    authors="Pieter Abbeel, Xi Chen, Jonathan Ho, Aravind Srinivas",
    year=2020,
    title="CS294-158 Deep Unsupervised Learning, Homework 1",
    venue="UC Berkeley",
    link="https://sites.google.com/view/berkeley-cs294-158-sp20",
)
FVSBN_PAPER = Paper(
    key="neal1992connectionist",
    authors="Radford M. Neal",
    year=1992,
    title="Connectionist Learning of Belief Networks",
    venue="Artificial Intelligence 56(1)",
    link="https://doi.org/10.1016/0004-3702(92)90065-6",
)
WAKE_SLEEP_PAPER = Paper(
    key="frey1996does",
    authors="Brendan J. Frey, Geoffrey E. Hinton, Peter Dayan",
    year=1996,
    title="Does the Wake-Sleep Algorithm Produce Good Density Estimators?",
    venue="NeurIPS 1995",
    link="https://proceedings.neurips.cc/paper/1995/hash/f3173935ed8ac4bf073c1bcd63171f8a-Abstract.html",
)
NADE_PAPER = Paper(
    key="larochelle2011neural",
    authors="Hugo Larochelle, Iain Murray",
    year=2011,
    title="The Neural Autoregressive Distribution Estimator",
    venue="AISTATS 2011",
    link="https://proceedings.mlr.press/v15/larochelle11a.html",
)
ORDERLESS_PAPER = Paper(
    key="uria2014deep",
    authors="Benigno Uria, Iain Murray, Hugo Larochelle",
    year=2014,
    title="A Deep and Tractable Density Estimator",
    venue="ICML 2014",
    link="https://arxiv.org/abs/1310.1757",
)
MULTISCALE_PAPER = Paper(
    key="reed2017parallel",
    authors="Scott Reed, Aäron van den Oord, Nal Kalchbrenner, Sergio Gómez Colmenarejo, Ziyu Wang, Yutian Chen, "
    "Dan Belov, Nando de Freitas",
    year=2017,
    title="Parallel Multiscale Autoregressive Density Estimation",
    venue="ICML 2017",
    link="https://arxiv.org/abs/1703.03664",
)
SUBSCALE_PAPER = Paper(
    key="menick2018generating",
    authors="Jacob Menick, Nal Kalchbrenner",
    year=2018,
    title="Generating High Fidelity Images with Subscale Pixel Networks and Multidimensional Upscaling",
    venue="ICLR 2019",
    link="https://arxiv.org/abs/1812.01608",
)

ROWS: tuple[Row, ...] = (
    Row(
        name="made",
        target="unsup.families.autoregressive.made:MADE",
        family="autoregressive",
        summary="Masked autoencoder: all conditionals of an ordering in one pass of a masked MLP.",
        abilities=("score", "sample", "temper", "compress"),
        events="vectors, tables, sequences and images",
        paper=MADE_PAPER,
    ),
    Row(
        name="pixelcnn",
        target="unsup.families.autoregressive.pixelcnn:PixelCNN",
        family="autoregressive",
        summary="Masked convolutions in raster order, channel by channel; softmax pixels, optionally given a class.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=PIXELRNN_PAPER,
        also=(CONDITIONAL_PIXELCNN_PAPER,),
    ),
    Row(
        name="gated-pixelcnn",
        target="unsup.families.autoregressive.gated_pixelcnn:GatedPixelCNN",
        family="autoregressive",
        summary="Gated convolutions in two stacks without a blind spot; softmax pixels, optionally given a class.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=CONDITIONAL_PIXELCNN_PAPER,
        also=(PIXELRNN_PAPER,),
    ),
    Row(
        name="transformer",
        target="unsup.families.autoregressive.transformer:Transformer",
        family="autoregressive",
        summary="Pre-norm decoder with causal self-attention over tokens, colours or codes.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="sequences, images and vectors of discrete entries",
        paper=ATTENTION_PAPER,
    ),
    Row(
        name="conditional-2d",
        target="unsup.families.autoregressive.conditional_2d:Conditional2d",
        family="autoregressive",
        summary="Two discrete entries: a table of p(x1), and an MLP for p(x2 | x1).",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="two discrete entries with the same levels",
        paper=COURSE,
    ),
    Row(
        name="fvsbn",
        target="unsup.families.autoregressive.fvsbn:FVSBN",
        family="autoregressive",
        summary="Fully visible sigmoid belief network: a logistic regression of each entry on the earlier ones.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="vectors, sequences and images of discrete entries",
        paper=FVSBN_PAPER,
        also=(WAKE_SLEEP_PAPER,),
    ),
    Row(
        name="nade",
        target="unsup.families.autoregressive.nade:NADE",
        family="autoregressive",
        summary="Hidden units with shared weights for all conditionals of an order; optionally for all orders.",
        abilities=("score", "sample", "temper", "complete", "compress"),
        events="vectors, sequences and images of discrete entries",
        paper=NADE_PAPER,
        also=(ORDERLESS_PAPER,),
    ),
    Row(
        name="parallel-multiscale",
        target="unsup.families.autoregressive.parallel_multiscale:ParallelMultiscale",
        family="autoregressive",
        summary="From coarse to fine grids, in groups of pixels that are independent given coarser ones.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels, and sides that can be halved",
        paper=MULTISCALE_PAPER,
    ),
    Row(
        name="subscale",
        target="unsup.families.autoregressive.subscale:Subscale",
        family="autoregressive",
        summary="Interleaved slices of an image in turn; gated convolutions and attention over the pixels of a slice.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=SUBSCALE_PAPER,
    ),
    Row(
        name="subscale-depth",
        target="unsup.families.autoregressive.subscale:SubscaleDepth",
        family="autoregressive",
        summary="Two subscale networks: the most significant bits of all pixels, then the other bits given them.",
        abilities=("score", "sample", "temper"),
        events="images with ordinal pixels",
        paper=SUBSCALE_PAPER,
    ),
)
