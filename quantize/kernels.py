"""The choice of code that unpacks nf4 on a device: bitsandbytes' kernel or plain torch. torch is not imported here.

Both give the same numbers, or bitsandbytes is not taken. Its place is a GPU with memory of its own; its speed there was
not measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec

BITSANDBYTES, PLAIN_TORCH = "bitsandbytes", "plain torch"

SELF_TEST_S = 120.0
"""Longest time the self-test may take. It imports torch and bitsandbytes and starts CUDA: seconds, unless it hangs."""

ON_PROCESSOR = "bitsandbytes would be faster, but importing it takes 118 MiB"
"""Measured (x86-64, one thread, bitsandbytes 0.50.2, torch 2.13): FLAN-T5-base's largest layer, 2048 × 768, in 0.24 ms
instead of 0.74 ms into bf16, in 0.29 ms instead of 0.90 ms into fp32. The planner takes 4 bits only where bf16 and int8
do not fit, and 118 MiB are more than 4 bits save over int8 on FLAN-T5-base."""

ON_SHARED_MEMORY = "this GPU shares the board's memory, of which importing bitsandbytes takes 118 MiB"
"""Jetsons. Besides, bitsandbytes' aarch64 wheel has no kernel for Orin's GPU (compute capability 8.7)."""


@dataclass(frozen=True)
class Kernel:
    """The code that unpacks nf4, BITSANDBYTES or PLAIN_TORCH, and why it does."""

    name: str
    reason: str


@cache
def nf4_kernel(device_type: str) -> Kernel:
    """The choice for "cpu" or "cuda". For CUDA with bitsandbytes installed it takes seconds: the self-test runs in a
    process of its own, since bitsandbytes ends the process where it has no kernel for a GPU."""
    if device_type != "cuda":
        return Kernel(PLAIN_TORCH, ON_PROCESSOR)
    if find_spec("bitsandbytes") is None:
        return Kernel(PLAIN_TORCH, "bitsandbytes is not installed")
    return _self_test()


def _self_test() -> Kernel:
    command = [sys.executable, "-m", "quantize.kernel_trial"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_S)
    except subprocess.TimeoutExpired:
        return Kernel(PLAIN_TORCH, f"bitsandbytes did not finish its self-test in {SELF_TEST_S:.0f} s")
    if done.returncode == 0:
        try:
            return Kernel(**json.loads(done.stdout.splitlines()[-1]))
        except (ValueError, TypeError, IndexError):
            pass  # it was ended before it could speak
    said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return Kernel(PLAIN_TORCH, f"bitsandbytes has no kernel that runs on this GPU ({said})")


def as_line(kernel: Kernel) -> str:
    """The output of the self-test's process."""
    return json.dumps(asdict(kernel))
