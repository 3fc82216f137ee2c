"""`python -m arm64`: proof on ARM without an ARM board; docs/results/arm.md gets its tables.

    python -m arm64 [--cores "cortex-a72 max"] [--parts "cores memory tests"] [--again]

As root on x86-64 Linux, with debootstrap, qemu-user-static and a kernel with binfmt_misc. What was made is kept in
$XDG_CACHE_HOME/braid/arm64, and a core's row that the same package has given is not made again.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from arm64.binfmt import foreign_programs
from arm64.cores import CORES, Core, cores_named
from arm64.emulated import Emulated
from arm64.fast_tests import PYTHON, VARIABLES, run_tests
from arm64.held_memory import N_SETTINGS
from arm64.proof import prove
from arm64.results import Results
from arm64.roots import Kept, build_for, install, make_bare, newest_package, put_sources
from arm64.shell import NotPossibleError, run, say
from braid_common.terminal import use_any_terminal
from demo.fleet import DemoError

PARTS = ("cores", "memory", "tests")
NEEDED = {"debootstrap": "debootstrap", "unshare": "util-linux", "chroot": "coreutils"}
"""Programs, and the packages that have them."""

INSIDE = "BRAID_ARM64_INSIDE"
"""Set in the process that has namespaces of its own."""

MEMORY_CORES = ("cortex-a72", "cortex-a76")
"""One for each build of torch."""

TESTS_CORE = "cortex-a72"

NOT_POSSIBLE = 3
"""Exit status where this machine cannot do it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 1 where something failed, 3 where this machine cannot do it."""
    use_any_terminal()
    flags = _parser().parse_args(arguments)
    try:
        cores = cores_named(flags.cores)
        if not os.environ.get(INSIDE):
            _require()
            _enter_namespaces()
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # a first process ignores it else
        kept = Kept(_folder())
        with _alone(kept), foreign_programs():
            make_bare(kept, flags.mirror)
            _prove(kept, cores, flags)
    except NotPossibleError as error:
        print(f"error: {error.message}\n  → {error.hint}", file=sys.stderr)
        return NOT_POSSIBLE
    except (DemoError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say("done")
    return 0


def _prove(kept: Kept, cores: Sequence[Core], flags: argparse.Namespace) -> None:
    """Do the parts that were asked for, one after the other."""
    package, results, parts = newest_package().name, Results(kept.folder / "results"), flags.parts.split()
    for core in cores if "cores" in parts else ():
        if not flags.again and results.has_core(core.name, package):
            say(f"{core.name}: {package} has given its row already (--again makes it anew)")
            continue
        root = install(kept, build_for(kept, core.name), core.name)
        results.keep_core(prove(root, core.name, core.boards, package, kept.folder / "run"))
    for name in MEMORY_CORES if "memory" in parts else ():
        _measure_memory(kept, name, results)
    if "tests" in parts:
        root = install(kept, build_for(kept, TESTS_CORE), TESTS_CORE)
        put_sources(kept, root)
        with Emulated(root, TESTS_CORE) as board:
            results.keep_tests(run_tests(board, kept.log("tests")))


def _measure_memory(kept: Kept, core: str, results: Results) -> None:
    """Every setting of arm64.held_memory in a process of its own, emulated and on this machine."""
    root = install(kept, build_for(kept, core), core)
    put_sources(kept, root)
    module = ("-m", "arm64.held_memory")
    for number in range(N_SETTINGS):
        say(f"memory: training {number + 1} of {N_SETTINGS}, {core} and this machine")
        with Emulated(root, core) as board:
            emulated = board.run("/bin/sh", "-c", f"{VARIABLES} exec {PYTHON} {' '.join(module)} {number}")
        results.keep_memory(f"{core}-{number}", json.loads(emulated) | {"where": f"aarch64 ({core})", "emulated": True})
        native = run([sys.executable, *module, str(number)])
        results.keep_memory(f"native-{number}", json.loads(native) | {"where": "x86-64", "emulated": False})


def _require() -> None:
    """Raise NotPossibleError for what this machine lacks."""
    if os.geteuid() != 0:
        raise NotPossibleError(
            "this must be run as root: it mounts, and makes another system's root", "sudo make arm64"
        )
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            raise NotPossibleError(f"there is no {program}", f"apt-get install {package}")


def _enter_namespaces() -> None:
    """Start anew in namespaces of one's own: every mount and every process of them ends with this one, however it
    ends."""
    words = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[INSIDE] = "yes"
    os.execvp(words[0], [*words, sys.executable, "-m", "arm64", *sys.argv[1:]])  # noqa: S606 (no shell is needed)


@contextmanager
def _alone(kept: Kept) -> Iterator[None]:
    """Nobody else works in the folder meanwhile. Raises NotPossibleError where somebody does."""
    kept.folder.mkdir(parents=True, exist_ok=True)
    with (kept.folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NotPossibleError(f"another `make arm64` works in {kept.folder}", "wait for it") from error
        yield


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "braid/arm64"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m arm64", description="Proof on ARM without an ARM board.")
    parser.add_argument("--cores", default="", help=f"of {', '.join(core.name for core in CORES)} [all]")
    parser.add_argument("--parts", default=" ".join(PARTS), help="what is done [%(default)s]")
    parser.add_argument("--mirror", default=os.environ.get("MIRROR", ""), help="of Debian [debootstrap's own]")
    parser.add_argument("--again", action="store_true", help="make rows anew that the same package has given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
