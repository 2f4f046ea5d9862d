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
PIXELCNN_PLUS_PLUS_PAPER = Paper(
    key="salimans2017pixelcnn",
    authors="Tim Salimans, Andrej Karpathy, Xi Chen, Diederik P. Kingma",
    year=2017,
    title="PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications",
    venue="ICLR 2017",
    link="https://arxiv.org/abs/1701.05517",
)
WEIGHT_NORM_PAPER = Paper(
    key="salimans2016weight",
    authors="Tim Salimans, Diederik P. Kingma",
    year=2016,
    title="Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
    venue="NeurIPS 2016",
    link="https://arxiv.org/abs/1602.07868",
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
PIXELSNAIL_PAPER = Paper(
    key="chen2018pixelsnail",
    authors="Xi Chen, Nikhil Mishra, Mostafa Rohaninejad, Pieter Abbeel",
    year=2018,
    title="PixelSNAIL: An Improved Autoregressive Generative Model",
    venue="ICML 2018",
    link="https://arxiv.org/abs/1712.09763",
)
IMAGE_TRANSFORMER_PAPER = Paper(
    key="parmar2018image",
    authors="Niki Parmar, Ashish Vaswani, Jakob Uszkoreit, Łukasz Kaiser, Noam Shazeer, Alexander Ku, Dustin Tran",
    year=2018,
    title="Image Transformer",
    venue="ICML 2018",
    link="https://arxiv.org/abs/1802.05751",
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
        name="pixelcnn++",
        target="unsup.families.autoregressive.pixelcnn_plus_plus:PixelCNNPlusPlus",
        family="autoregressive",
        summary="Gated residual blocks at three resolutions; pixels by a mixture of logistics, optionally given a class.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=PIXELCNN_PLUS_PLUS_PAPER,
        also=(WEIGHT_NORM_PAPER,),
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
        name="pixelsnail",
        target="unsup.families.autoregressive.pixelsnail:PixelSNAIL",
        family="autoregressive",
        summary="Gated causal convolutions alternating with attention over all earlier pixels, pixel by pixel.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=PIXELSNAIL_PAPER,
    ),
    Row(
        name="image-transformer",
        target="unsup.families.autoregressive.image_transformer:ImageTransformer",
        family="autoregressive",
        summary="Self-attention within local blocks of an image, one- or two-dimensional.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=IMAGE_TRANSFORMER_PAPER,
    ),
)
