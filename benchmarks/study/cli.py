"""Command lines of studies: the options that all of them have, and what these open."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def study_parser(description: str | None, *, processes: int = 2) -> argparse.ArgumentParser:
    """A parser with the options that every study has. `processes`: how many runs are made at once by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-folder", type=Path, default=Path("../shared/data"), help="where the published sets lie")
    parser.add_argument(
        "--folder", type=Path, help="for encoder outputs and the like, some 500 MB a process; best in memory"
    )
    parser.add_argument("--json", type=Path, help="keep all runs in this file, and go on from what is in it")
    parser.add_argument(
        "--processes", type=int, default=processes, help=f"runs at once, one thread each (default: {processes})"
    )
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that it works: no result")
    return parser


@contextmanager
def work_folder(options: argparse.Namespace) -> Iterator[Path]:
    """The folder for files of the runs: the one that was asked for, which stays, or a temporary one."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of worker processes too
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
        return
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        yield Path(folder)


def command(module: str) -> str:
    """The command line of this process, to print above its tables."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])
