"""A control group's files are read in both of the kernel's spellings, and settings ask for what they say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import builtin_base
from benchmarks.memory.control_group import ControlGroup
from benchmarks.memory.settings import SETTINGS, Setting, ranks_of, run_of
from braid_common.base.files import read_t5_config


@pytest.mark.parametrize(
    ("v2", "files"),
    [
        (True, {"memory.events": "low 0\noom_kill 3\n", "memory.stat": "file 9\nanon 70\n", "memory.peak": "123\n"}),
        (
            False,
            {
                "memory.oom_control": "under_oom 0\noom_kill 3\n",
                "memory.stat": "total_cache 9\ntotal_rss 70\n",
                "memory.max_usage_in_bytes": "123\n",
            },
        ),
    ],
)
def test_kills_and_memory_are_read(v2: bool, files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    group = ControlGroup(tmp_path, v2)

    assert (group.oom_kills, group.held_bytes, group.peak_bytes) == (3, 70, 123)


def test_a_command_enters_the_group_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    done = subprocess.run(ControlGroup(tmp_path, True).command("sh", "-c", "echo $$"), capture_output=True, text=True)

    assert (tmp_path / "cgroup.procs").read_text() == done.stdout


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.base == "builtin"], ids=str)
def test_ranks_take_the_share_that_was_asked_for(setting: Setting) -> None:
    """None of a frozen encoder's, and of evenly spread ones the same part of every weight."""
    run = run_of(setting, read_t5_config(builtin_base.folder()))
    ranks = ranks_of(setting, run)

    frozen = [r for r, weight in zip(ranks, run.weights, strict=True) if weight.is_encoder and setting.frozen_encoder]
    trained = [r for r, weight in zip(ranks, run.weights, strict=True) if not (weight.is_encoder and frozen)]
    assert not any(frozen)
    if not setting.uneven:
        assert len(set(trained)) == 1
        assert trained[0] == pytest.approx(setting.share * run.max_rank, abs=1)
