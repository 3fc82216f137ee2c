"""The packages' version: the release's on its tag, and one that rises from commit to commit before it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.deb.version import changelog, epoch_s, package_version


def git(folder: Path, *arguments: str, time: str = "2026-01-02T03:04:05Z") -> None:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a"}
    when = {"GIT_AUTHOR_DATE": time, "GIT_COMMITTER_DATE": time, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(
        ["git", "-C", folder, *arguments], check=True, env={**os.environ, **who, **when}, capture_output=True
    )


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return tmp_path


def newer(one: str, other: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", one, "gt", other]).returncode == 0


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed here")
def test_each_commit_is_newer_than_the_one_before(clone: Path) -> None:
    """And all are older than the release, which has its number alone."""
    first = package_version(clone)
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "two", time="2026-01-02T03:04:06Z")
    second = package_version(clone)
    git(clone, "tag", "v1.2.0")
    release = package_version(clone)

    assert first.startswith("1.2.0~20260102.030405.g")
    assert newer(second, first)
    assert release == "1.2.0"
    assert newer(release, second)


def test_the_time_is_the_commits_or_the_one_that_is_given(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the same commit gives the same files."""
    assert epoch_s(clone) == 1767323045
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert epoch_s(clone) == 5


def test_a_folder_that_is_no_clone_has_a_version(tmp_path: Path, clone: Path) -> None:
    shutil.rmtree(clone / ".git")

    assert package_version(clone) == "1.2.0"
    assert epoch_s(clone) == int((clone / "CHANGELOG.md").stat().st_mtime)


def test_the_changelog_is_in_debians_form() -> None:
    text = changelog("braid", "1.2.0", "A <a@a>", 0)

    assert text.startswith("braid (1.2.0) unstable; urgency=medium\n\n  * ")
    assert text.endswith("\n -- A <a@a>  Thu, 01 Jan 1970 00:00:00 +0000\n")
