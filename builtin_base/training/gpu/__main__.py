"""Train on a lent GPU: ``python -m builtin_base.training.gpu CARRIED --out OUT --minutes 8 --size large``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Train one model within the minutes given."""
    # Everything heavy is imported here, since the processes that draw batches import this file first.
    from builtin_base.training.gpu.sizes import SIZES
    from builtin_base.training.gpu.train import train

    parser = argparse.ArgumentParser(prog="python -m builtin_base.training.gpu", description=main.__doc__)
    parser.add_argument("carried", type=Path, help="folder that pack-for-gpu wrote")
    parser.add_argument("--size", choices=list(SIZES), default="large", help="which model (default: large)")
    parser.add_argument("--minutes", type=float, required=True, help="of training, all starts together")
    parser.add_argument("--out", type=Path, required=True, help="folder to bring back: weights in parts, logs")
    parser.add_argument("--work", type=Path, help="folder of the run here (default: gpu-run/SIZE); resumed if there")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2 - 1), help="processes that draw batches"
    )
    args = parser.parse_args(argv)
    try:
        train(args.carried, args.work or Path("gpu-run", args.size), args.out, args.size, args.minutes, args.workers)
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
