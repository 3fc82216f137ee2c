"""The choice of torch as a command for scripts that run before anything is installed. Standard library only.

    python -m edge_client.host.torch_build                      a line `name: value` for each field of the build
    python -m edge_client.host.torch_build --constraints FILE   the constraints on that board, the build's own in them

A clone or a wheel in PYTHONPATH is enough. Status 3, and two lines on stderr, where no build serves the board.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_client.host.torch_build.choose import Build, NoBuildError, choose, named
from edge_client.host.torch_build.facts import numbers, read_facts
from edge_client.host.torch_build.markers import pins_on

NO_BUILD = 3
"""Exit status: the one that `edge-client` has for settings that cannot be right."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was asked for; the exit status."""
    flags = _parser().parse_args(arguments)
    facts = read_facts(
        flags.root,
        machine=flags.machine,
        python=numbers(flags.python),
        glibc=numbers(flags.glibc) if flags.glibc else None,
    )
    try:
        build = named(flags.build, facts) if flags.build else choose(facts)
    except NoBuildError as error:
        print(f"error: {error.message}\n  → {error.hint}", file=sys.stderr)  # noqa: T201 (a script's output)
        return NO_BUILD
    lines = fields(build, "" if flags.build else facts.model)
    if flags.constraints is not None:
        pins = pins_on(flags.constraints.read_text(encoding="utf-8").splitlines(), facts.python, build.machine)
        lines = constraints(pins, build)
    print("\n".join(lines))  # noqa: T201 (a script's output)
    return 0


def fields(build: Build, model: str = "") -> list[str]:
    """Lines that a shell can read with sed; several values are separated by spaces."""
    values = {
        "name": build.name,
        "machine": build.machine,
        "board": model or build.board,
        "version": build.version,
        "requirement": build.requirement,
        "wheel": build.wheel,
        "index": build.index,
        "also": " ".join(build.also),
        "beside_torch": " ".join(build.beside_torch),
        "gpu": "yes" if build.gpu else "no",
        "disk_mib": str(build.disk_mib),
        "why": build.why,
    }
    return [f"{name}: {value}" for name, value in values.items()]


def constraints(lines: Sequence[str], build: Build) -> list[str]:
    """Constraints in which torch is this build's, and so is whatever it asks for besides. A wheel by its address, which
    is asked for once, is not constrained."""
    own = [*([] if build.wheel else [build.requirement]), *build.also]
    names = {"torch", *map(_name, own)}
    return [line for line in lines if _name(line) not in names] + own


def _name(line: str) -> str:
    """The distribution of a requirement, "" for a comment."""
    found = re.match(r"[A-Za-z0-9._-]+", line)
    return found[0].lower() if found else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_client.host.torch_build", description="Which torch is for this board."
    )
    parser.add_argument("--constraints", type=Path, help="print this file, with the build's own versions in it")
    parser.add_argument("--build", default="", help="this row of the table instead of the one for a board")
    parser.add_argument("--root", type=Path, default=Path("/"), help="read the board's files below this folder")
    parser.add_argument("--machine", default="", help="processor architecture, where it is not this machine's")
    parser.add_argument("--python", default="", help="version of Python, where it is not this one")
    parser.add_argument("--glibc", default="", help="version of the C library, where it is not this machine's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
