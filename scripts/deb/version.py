"""The version of the packages, and the time of their files, from the clone."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

from scripts.deb.contents import ROOT


def package_version(root: Path = ROOT) -> str:
    """The release's number on its tag; before it, that number with the commit's time, so that each is newer than the
    one before and older than the release."""
    found = re.search(r'^version = "(.+)"$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    release = found[1]
    commit = _git(root, "rev-parse", "--short=8", "HEAD")
    if not commit or f"v{release}" in _git(root, "tag", "--points-at", "HEAD").split():
        return release
    time = datetime.fromtimestamp(epoch_s(root), timezone.utc)
    return f"{release}~{time:%Y%m%d.%H%M%S}.g{commit}"


def epoch_s(root: Path = ROOT) -> int:
    """Seconds since 1970: SOURCE_DATE_EPOCH, or the commit's time, or that of CHANGELOG.md where there is no git."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct")
    return int(given) if given else int((root / "CHANGELOG.md").stat().st_mtime)


def changelog(name: str, version: str, maintainer: str, time_s: int) -> str:
    """The changelog that Debian asks for; what changed for users is in CHANGELOG.md beside it."""
    date = format_datetime(datetime.fromtimestamp(time_s, timezone.utc))
    return f"{name} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {maintainer}  {date}\n"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)  # noqa: S607 (of the path)
    return done.stdout.strip() if done.returncode == 0 else ""
