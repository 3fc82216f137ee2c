"""Number formats of what a run sends, as its uploads' format implies them."""

from __future__ import annotations

from wire.fields import Dtype


def sketch_dtype(upload: Dtype) -> Dtype:
    """The number format of sketches in a run of these uploads. They only decide directions: docs/concepts/merging.md
    shows how little it takes away when a third of a sketch is noise."""
    return "int4" if upload == "int4" else "int8"


def download_dtype(upload: Dtype) -> Dtype:
    """The number format of what boards of such a run are sent to train, or in patches to train beside."""
    return "fp32" if upload == "fp32" else "bf16"


def frozen_dtype(download: Dtype) -> Dtype:
    """Number format of what lies frozen beside strands of the global adapter itself (aggregator/merge/slices.py)."""
    return "fp32" if download == "fp32" else "int8"
