"""The files of a package, laid out below a folder as they will lie on a machine."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from scripts.commands_docs import PROGRAMS
from scripts.deb import man_pages
from scripts.deb.packages import BOARD, Package

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = Path(__file__).parent / "files"

SETUP = "edge-client-setup"
SETUP_SUMMARY = "finish a board: torch, settings, service, doctor"

Wheels = Iterable[Path]


def lay_out(package: Package, root: Path, version: str, braid: Path, wheels: Wheels, changelog: str) -> None:
    """Write everything but the control files.

    Args:
        package: which one.
        root: an empty folder.
        version: the package's.
        braid: Braid's own wheel.
        wheels: all others.
        changelog: in Debian's form.
    """
    _wheels(package, root, braid, wheels)
    folder = root / package.folder
    _copy(FILES / "make-venv", folder / "make-venv", mode=0o755)
    _copy(ROOT / "constraints.txt", folder / "constraints.txt")
    for name in package.installer:
        _copy(DEPLOY / name, folder / name, mode=0o755 if name.endswith(".sh") else 0o644)
    for unit in package.units:
        _copy(DEPLOY / unit, root / "usr/lib/systemd/system" / unit)
    _program(package, root, version)
    _documents(package, root, changelog)
    if package is BOARD:
        _copy(FILES / SETUP, root / "usr/sbin" / SETUP, mode=0o755)
        page = man_pages.setup_page(SETUP, SETUP_SUMMARY, setup_help(), version)
        _compressed(page.encode(), root / f"usr/share/man/man8/{SETUP}.8.gz")


def setup_help() -> str:
    """Help of `edge-client-setup`: that of the installer, as the package calls it."""
    env = {**os.environ, "INSTALL_BOARD_PACKAGED": "yes"}
    command = [str(DEPLOY / "install-board.sh"), "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def _wheels(package: Package, root: Path, braid: Path, wheels: Wheels) -> None:
    """The wheels, and their sums, by which an environment knows whether it is made of these."""
    folder = root / package.folder
    _copy(braid, folder / braid.name)
    for wheel in wheels:
        _copy(wheel, folder / "wheels" / wheel.name)
    found = sorted(path for path in folder.rglob("*.whl"))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in found]
    (folder / "wheels.sha256").write_text("".join(sums))


def _program(package: Package, root: Path, version: str) -> None:
    """The command, its manual page and its completion."""
    link = root / "usr/bin" / package.program
    link.parent.mkdir(parents=True)
    link.symlink_to(f"{package.venv}/bin/{package.program}")
    program = PROGRAMS[package.program]
    see_also = f"/usr/share/doc/{package.name}/RUNBOOK.md.gz"
    page = man_pages.man_page(package.program, program, version, see_also)
    _compressed(page.encode(), root / f"usr/share/man/man1/{package.program}.1.gz")
    for shell, place in man_pages.COMPLETIONS.items():
        path = root / place.format(package.program)
        path.parent.mkdir(parents=True)
        path.write_text(man_pages.completion(shell, package.program, program))


def _documents(package: Package, root: Path, changelog: str) -> None:
    folder = root / "usr/share/doc" / package.name
    _copy(FILES / "copyright", folder / "copyright")
    _compressed(changelog.encode(), folder / "changelog.gz")
    _compressed((ROOT / "CHANGELOG.md").read_bytes(), folder / "CHANGELOG.md.gz")
    _compressed((DEPLOY / "RUNBOOK.md").read_bytes(), folder / "RUNBOOK.md.gz")
    for name in package.examples:
        _copy(DEPLOY / name, folder / "examples" / name)


def _copy(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _compressed(data: bytes, target: Path) -> None:
    """A file as gzip -9n makes it: without a name and a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(data, mtime=0))
