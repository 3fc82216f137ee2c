"""`python -m scripts.deb`: packages for Debian and Ubuntu, into dist/deb.

    python -m scripts.deb [--out FOLDER] [--architecture amd64] [--package braid-aggregator] [--version 0.1.0+1]

Needs dpkg-deb and, for the wheels, pip's index; neither a compiler nor a machine of that architecture.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from braid_common.units import MIB
from scripts.deb import archive, contents
from scripts.deb.packages import MACHINES, PACKAGES, PIP, PYTHONS, Package
from scripts.deb.version import changelog, epoch_s, package_version
from scripts.deb.wheels import Target, fetch, pip


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the packages that were asked for; the exit status."""
    flags = _parser().parse_args(arguments)
    if shutil.which("dpkg-deb") is None:
        print("error: there is no dpkg-deb here\n  → apt-get install dpkg, on any Linux", file=sys.stderr)
        return 1
    time_s = epoch_s()
    os.environ["SOURCE_DATE_EPOCH"] = str(time_s)  # for pip, which makes wheels of sources
    version = flags.version or package_version()
    flags.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        own = Path(scratch) / "own"
        braid = own_wheels(own)
        for architecture in flags.architecture or MACHINES:
            for package in PACKAGES:
                if package.name in (flags.package or [each.name for each in PACKAGES]):
                    folder = Path(scratch) / f"{package.name}-{architecture}"
                    wheels = _wheels_for(package, architecture, own, Path(scratch) / architecture)
                    target = flags.out / f"{package.name}_{version}_{architecture}.deb"
                    build(package, architecture, version, braid, wheels, target, folder / "root")
                    print(f"{target}  {target.stat().st_size / MIB:.1f} MiB", flush=True)
    return 0


def own_wheels(folder: Path) -> Path:
    """Make the wheels that no index has: those of packages that are published as sources alone, and Braid's, which is
    returned."""
    sources = (contents.DEPLOY / "offline-packages.txt").read_text().splitlines()
    names = [line.split()[0] for line in sources if line.endswith("# sdist")]
    constraints = contents.ROOT / "constraints.txt"
    pip("wheel", "--no-deps", f"--wheel-dir={folder}", f"--constraint={constraints}", *names, str(contents.ROOT))
    return next(folder.glob("braid_fl-*.whl"))


def build(
    package: Package, architecture: str, version: str, braid: Path, wheels: Sequence[Path], target: Path, root: Path
) -> None:
    """Make one package of its wheels, in an empty folder."""
    root.mkdir(parents=True)
    time_s = epoch_s()
    text = changelog(package.name, version, archive.maintainer(), time_s)
    contents.lay_out(package, root, version, braid, wheels, text)
    archive.make(package, architecture, version, root, target, time_s)


def _wheels_for(package: Package, architecture: str, own: Path, folder: Path) -> list[Path]:
    """Every Python's wheels, each once, without Braid's own."""
    roots = [f"braid-fl[{','.join(package.extras)}]", PIP]
    constraints = [*(contents.ROOT / "constraints.txt").read_text().splitlines(), PIP]
    found: dict[str, Path] = {}
    for python in PYTHONS:
        print(f"{package.name} {architecture}: wheels for Python {python}", file=sys.stderr, flush=True)
        into = folder / python
        into.mkdir(parents=True, exist_ok=True)
        fetched = fetch(roots, Target(python, MACHINES[architecture]), constraints, own, into)
        found |= {path.name: path for path in fetched if not path.name.startswith("braid_fl-")}
    return [found[name] for name in sorted(found)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.deb", description="Make packages for Debian and Ubuntu.")
    parser.add_argument("--out", type=Path, default=contents.ROOT / "dist" / "deb", help="where they go")
    parser.add_argument("--architecture", action="append", choices=list(MACHINES), help="only this one")
    parser.add_argument("--package", action="append", choices=[each.name for each in PACKAGES], help="only this one")
    parser.add_argument("--version", default="", help="instead of the clone's own")
    return parser


if __name__ == "__main__":
    sys.exit(main())
