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
SEQUENCES_PAPER = Paper(
    key="graves2013generating",
    authors="Alex Graves",
    year=2013,
    title="Generating Sequences With Recurrent Neural Networks",
    venue="arXiv",
    link="https://arxiv.org/abs/1308.0850",
)
LSTM_PAPER = Paper(
    key="hochreiter1997long",
    authors="Sepp Hochreiter, Jürgen Schmidhuber",
    year=1997,
    title="Long Short-Term Memory",
    venue="Neural Computation 9(8)",
    link="https://doi.org/10.1162/neco.1997.9.8.1735",
)
GRU_PAPER = Paper(
    key="cho2014learning",
    authors="Kyunghyun Cho, Bart van Merriënboer, Caglar Gulcehre, Dzmitry Bahdanau, Fethi Bougares, Holger Schwenk, "
    "Yoshua Bengio",
    year=2014,
    title="Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
    venue="EMNLP 2014",
    link="https://arxiv.org/abs/1406.1078",
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
CHARACTERS_PAPER = Paper(
    key="alrfou2019character",
    authors="Rami Al-Rfou, Dokook Choe, Noah Constant, Mandy Guo, Llion Jones",
    year=2019,
    title="Character-Level Language Modeling with Deeper Self-Attention",
    venue="AAAI 2019",
    link="https://arxiv.org/abs/1808.04444",
)
GPT2_PAPER = Paper(
    key="radford2019language",
    authors="Alec Radford, Jeffrey Wu, Rewon Child, David Luan, Dario Amodei, Ilya Sutskever",
    year=2019,
    title="Language Models are Unsupervised Multitask Learners",
    venue="OpenAI technical report",
    link="https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
)
IMAGE_GPT_PAPER = Paper(
    key="chen2020generative",
    authors="Mark Chen, Alec Radford, Rewon Child, Jeffrey Wu, Heewoo Jun, David Luan, Ilya Sutskever",
    year=2020,
    title="Generative Pretraining from Pixels",
    venue="ICML 2020",
    link="https://proceedings.mlr.press/v119/chen20s.html",
)
SPARSE_PAPER = Paper(
    key="child2019generating",
    authors="Rewon Child, Scott Gray, Alec Radford, Ilya Sutskever",
    year=2019,
    title="Generating Long Sequences with Sparse Transformers",
    venue="arXiv",
    link="https://arxiv.org/abs/1904.10509",
)
XL_PAPER = Paper(
    key="dai2019transformer",
    authors="Zihang Dai, Zhilin Yang, Yiming Yang, Jaime Carbonell, Quoc V. Le, Ruslan Salakhutdinov",
    year=2019,
    title="Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context",
    venue="ACL 2019",
    link="https://arxiv.org/abs/1901.02860",
)
WAVENET_PAPER = Paper(
    key="oord2016wavenet",
    authors="Aäron van den Oord, Sander Dieleman, Heiga Zen, Karen Simonyan, Oriol Vinyals, Alex Graves, "
    "Nal Kalchbrenner, Andrew Senior, Koray Kavukcuoglu",
    year=2016,
    title="WaveNet: A Generative Model for Raw Audio",
    venue="arXiv",
    link="https://arxiv.org/abs/1609.03499",
)
FAST_WAVENET_PAPER = Paper(
    key="lepaine2016fast",
    authors="Tom Le Paine, Pooya Khorrami, Shiyu Chang, Yang Zhang, Prajit Ramachandran, Mark A. Hasegawa-Johnson, "
    "Thomas S. Huang",
    year=2016,
    title="Fast Wavenet Generation Algorithm",
    venue="arXiv",
    link="https://arxiv.org/abs/1611.09482",
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
        abilities=("score", "sample", "temper", "complete", "compress"),
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
        name="rnn",
        target="unsup.families.autoregressive.rnn:RNN",
        family="autoregressive",
        summary="LSTM or GRU layers over symbols, pixels, frames or real numbers, optionally given a class.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="sequences, images and vectors of binary, ordinal, nominal or real entries",
        paper=SEQUENCES_PAPER,
        also=(LSTM_PAPER, GRU_PAPER),
    ),
    Row(
        name="pixelrnn",
        target="unsup.families.autoregressive.pixelrnn:PixelRNN",
        family="autoregressive",
        summary="Two-dimensional LSTM layers (Row LSTM, Diagonal BiLSTM) in raster order; softmax pixels.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=PIXELRNN_PAPER,
    ),
    Row(
        name="transformer",
        target="unsup.families.autoregressive.transformer:Transformer",
        family="autoregressive",
        summary="Pre-norm decoder with causal self-attention over tokens, colours or codes.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="sequences, images and vectors of discrete entries",
        paper=ATTENTION_PAPER,
        also=(GPT2_PAPER, IMAGE_GPT_PAPER, CHARACTERS_PAPER),
    ),
    Row(
        name="pixelcnn++",
        target="unsup.families.autoregressive.pixelcnn_plus_plus:PixelCNNPlusPlus",
        family="autoregressive",
        summary="Gated blocks at three resolutions; whole pixels by mixtures of logistics; optionally given a class.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="images with binary, ordinal or nominal pixels",
        paper=PIXELCNN_PLUS_PLUS_PAPER,
        also=(WEIGHT_NORM_PAPER,),
    ),
    Row(
        name="sparse-transformer",
        target="unsup.families.autoregressive.sparse_transformer:SparseTransformer",
        family="autoregressive",
        summary="Pre-norm decoder with strided or fixed sparse attention, for long sequences: n √n instead of n².",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="sequences, images and vectors of discrete entries",
        paper=SPARSE_PAPER,
    ),
    Row(
        name="transformer-xl",
        target="unsup.families.autoregressive.transformer_xl:TransformerXL",
        family="autoregressive",
        summary="Decoder over segments with a memory of the features before them, and relative positions.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="sequences, images and vectors of discrete entries",
        paper=XL_PAPER,
    ),
    Row(
        name="wavenet",
        target="unsup.families.autoregressive.wavenet:WaveNet",
        family="autoregressive",
        summary="Gated dilated causal convolutions over sound and other sequences; images with coordinates.",
        abilities=("score", "sample", "temper", "complete", "compress", "condition", "predict"),
        events="sequences, images and vectors of entries of one kind",
        paper=WAVENET_PAPER,
        also=(FAST_WAVENET_PAPER,),
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
        abilities=("score", "sample", "temper", "compress"),
        events="images with ordinal pixels",
        paper=SUBSCALE_PAPER,
    ),
)
