"""Settings of every test, made before numpy is loaded."""

from __future__ import annotations

import os

# The matrices here are small. OpenBLAS's threads spin while they wait for each other, which on a busy machine of two
# cores made one test take 42 s instead of 0.5 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
