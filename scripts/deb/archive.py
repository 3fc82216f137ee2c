"""The .deb file of a folder: its control files, written from the table, and the archive, made by dpkg-deb."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

from scripts.deb.contents import FILES
from scripts.deb.packages import PYTHONS, Package

SCRIPTS = ("postinst", "prerm", "postrm")
MAINTAINER = "Braid maintainers <maintainers@braid-fl.example>"
"""Whoever publishes packages sets DEBFULLNAME and DEBEMAIL, as for all of Debian's tools."""


def make(package: Package, architecture: str, version: str, root: Path, target: Path, epoch_s: int) -> None:
    """Write the archive of a folder that was laid out.

    Args:
        package: which one.
        architecture: Debian's name.
        version: the package's.
        root: the folder; gets a folder DEBIAN.
        target: the file.
        epoch_s: the time of all files, in seconds since 1970.
    """
    control = root / "DEBIAN"
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    size_kib = sum(-(-path.stat().st_size // 1024) for path in files) + sum(1 for _ in root.rglob("*"))
    control.mkdir()
    (control / "control").write_text("\n".join(fields(package, architecture, version, size_kib)) + "\n")
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
        for path in files
    ]
    (control / "md5sums").write_text("".join(sums))
    for name in (*SCRIPTS, "triggers"):
        shutil.copyfile(FILES / f"{package.name}.{name}", control / name)
        (control / name).chmod(0o755 if name in SCRIPTS else 0o644)
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)
    # Wheels are compressed already: xz takes a minute for each package, for nothing. lintian wants some compression.
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(target)]
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s)}
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)


def fields(package: Package, architecture: str, version: str, size_kib: int) -> Iterator[str]:
    """The lines of the control file."""
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    above = f"{newest.split('.')[0]}.{int(newest.split('.')[1]) + 1}"
    yield f"Package: {package.name}"
    yield f"Version: {version}"
    yield f"Architecture: {architecture}"
    yield f"Maintainer: {maintainer()}"
    yield f"Installed-Size: {size_kib}"
    yield "Depends: " + ", ".join((f"python3 (>= {oldest})", f"python3 (<< {above}~)", *package.depends))
    yield "Section: science"
    yield "Priority: optional"
    yield f"Description: {package.summary}"
    yield from (f" {line}" if line else " ." for line in _wrapped(package.description))


def maintainer() -> str:
    """Who made the package."""
    name, address = os.environ.get("DEBFULLNAME"), os.environ.get("DEBEMAIL")
    return f"{name} <{address}>" if name and address else MAINTAINER


def _wrapped(paragraphs: tuple[str, ...]) -> list[str]:
    parts = [textwrap.wrap(paragraph, 78) for paragraph in paragraphs]
    return [line for index, part in enumerate(parts) for line in ([""] if index else []) + part]
