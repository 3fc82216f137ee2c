"""What a worker tells Python before torch is imported."""

from __future__ import annotations

import warnings

from edge_client.host.worker_memory import keep_fallbacks_quiet

TRACE = "mkldnn_matmul failed, switching to BLAS gemm:could not create a primitive\nException raised from …\n" + 34 * (
    "frame #1: at::native::mkldnn_matmul(…)\n"
)
"""As torch warns on a Cortex-A72, with its 36 lines of C++."""


def test_torchs_trace_about_a_fallback_is_left_out_and_nothing_else() -> None:
    """Another warning of torch still comes."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        keep_fallbacks_quiet()
        warnings.warn(TRACE, UserWarning, stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)

    assert [str(warning.message) for warning in seen] == ["another"]
    assert TRACE.count("\n") == 36


def test_a_text_that_quotes_the_words_is_shown() -> None:
    """They must be its first."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        keep_fallbacks_quiet()
        warnings.warn("reported: mkldnn_matmul failed, switching to BLAS gemm", UserWarning, stacklevel=1)

    assert len(seen) == 1
