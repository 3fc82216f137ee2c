"""What the command lines of all benchmarks of fleets have in common."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.study.machine import describe_machine
from benchmarks.study.runner import Runs


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-folder", type=Path, default=Path("../shared/data"), help="where the published sets lie")
    parser.add_argument("--folder", type=Path, help="for encoder outputs, some 500 MB a process; best in memory")
    parser.add_argument("--json", type=Path, help="keep all runs in this file, and go on from what is in it")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each (default: 2)")


def begin(options: argparse.Namespace) -> Runs:
    os.environ["OMP_NUM_THREADS"] = "1"  # of workers too
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fleets-"))
    folder.mkdir(parents=True, exist_ok=True)
    return Runs(options.json, describe_machine("torch"), options.data_folder, folder, options.processes)


def command(module: str) -> str:
    """As it was typed."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])
