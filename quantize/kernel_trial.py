"""Self-test: whether bitsandbytes unpacks nf4 on this machine's GPU to the very numbers of plain torch.

python -m quantize.kernel_trial        started by quantize.kernels; prints the choice as JSON on one line
"""

from __future__ import annotations

import torch

from quantize.kernels import BITSANDBYTES, ON_SHARED_MEMORY, PLAIN_TORCH, Kernel, as_line
from quantize.nf4 import Nf4Weight, to_nf4, unpack_with_bitsandbytes, unpack_with_torch

SHAPE = (96, 200)
"""300 blocks of 64 values."""


def try_kernel(device: torch.device) -> Kernel:
    """The choice for a CUDA device, whose process may not survive this."""
    if device.type == "cuda" and torch.cuda.get_device_properties(device).is_integrated:
        return Kernel(PLAIN_TORCH, ON_SHARED_MEMORY)
    weight = to_nf4(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))).to(device)
    try:
        same = all(_is_same(weight, dtype) for dtype in (torch.bfloat16, torch.float32))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return Kernel(PLAIN_TORCH, f"bitsandbytes has no kernel that runs on this GPU ({said})")
    if not same:
        return Kernel(PLAIN_TORCH, "bitsandbytes' kernel gives other numbers on this GPU")
    return Kernel(BITSANDBYTES, "its kernel gives plain torch's numbers on this GPU")


def _is_same(weight: Nf4Weight, dtype: torch.dtype) -> bool:
    theirs, ours = (torch.empty(SHAPE[0] * SHAPE[1], dtype=dtype, device=weight.device) for _ in range(2))
    unpack_with_bitsandbytes(weight.codes, weight.absmax, theirs)
    unpack_with_torch(weight.codes, weight.absmax, ours)
    return torch.equal(theirs, ours)


if __name__ == "__main__":
    print(as_line(try_kernel(torch.device("cuda"))))  # noqa: T201 (read by quantize.kernels)
