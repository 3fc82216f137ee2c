"""The study runner: what is kept, what is made again, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from benchmarks.study.runner import Runner, Study


class Squared(msgspec.Struct, frozen=True):
    """A run that squared its key in a process."""

    key: int
    value: int
    process: int

    @property
    def line(self) -> str:
        return f"{self.key}: {self.value}"


class Squares(Study, frozen=True, kw_only=True):
    settings: str
    runs: tuple[Squared, ...] = ()


def square(number: int) -> Squared:
    """Called in a worker process."""
    return Squared(number, number * number, os.getpid())


def fail(number: int) -> Squared:
    """Called where nothing may be run."""
    raise AssertionError(f"{number} was run")


@pytest.mark.slow
def test_runs_are_made_once_in_other_processes_and_kept(tmp_path: Path) -> None:
    """A second study of the same file makes none of them, and keeps the machine that made them."""
    path = tmp_path / "study.json"

    with Runner(Squares(machine="first", settings="s"), path, processes=2) as runner:
        made = runner.run([3, 2, 3], square)
    again = Runner(Squares(machine="second", settings="s"), path, processes=1)

    assert [run.value for run in made] == [9, 4, 9]
    assert os.getpid() not in {run.process for run in made}
    assert again.run([2, 3], fail) == [made[1], made[0]]
    assert again.missing([2, 4, 4]) == [4]
    assert again.study.machine == "first"


def test_a_file_of_another_study_is_refused(tmp_path: Path) -> None:
    """No two studies are mixed in one file: of other settings, of another base, or of another kind."""
    path = tmp_path / "study.json"
    Runner(Squares(machine="m", settings="s"), path, processes=1).keep(runs=())

    with pytest.raises(SystemExit, match="other settings"):
        Runner(Squares(machine="m", settings="t"), path, processes=1)
    path.write_bytes(msgspec.json.encode(Squares(machine="m", base="0123", settings="s")))
    with pytest.raises(SystemExit, match=r"another base \(0123; this one is [0-9a-f]{12}\)"):
        Runner(Squares(machine="m", settings="s"), path, processes=1)
    path.write_bytes(b'{"machine": "m", "settings": {}}')
    with pytest.raises(SystemExit, match="is no Squares"):
        Runner(Squares(machine="m", settings="s"), path, processes=1)
