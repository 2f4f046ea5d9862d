"""Other instruction sets and numbers of threads, in which files of this one are decoded."""

import pytest

OTHERS = pytest.mark.parametrize(
    ("threads", "settings"),
    [
        (1, {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
        pytest.param(
            2,
            {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
            marks=pytest.mark.slow,
        ),
    ],
)
