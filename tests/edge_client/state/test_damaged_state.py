"""Small files of the state folder, a byte of which a worn flash card has turned into something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_client.errors import ConfigError
from edge_client.host.matmul_speed import MatmulSpeed, matmul_key
from edge_client.jobs.messages import Plan, TrainingMode
from edge_client.plan.calibration import Calibration
from edge_client.state.calibration_file import read_calibration, write_calibration
from edge_client.state.folder import Identity, StateFolder
from edge_client.state.matmul_speed_file import FILE as ARITHMETIC
from edge_client.state.matmul_speed_file import read_matmul_speed
from edge_client.state.status import StatusFile, read_status
from edge_client.state.task_files import TaskFiles, begun_task
from wire.messages import RoundSpec, Task

TASK = Task(kind="train", run_id="run-1", spec=RoundSpec(round=1, version=1, seed=3))
PLAN = Plan(
    mode=TrainingMode(format="nf4", compute="fp32", micro_batch=1),
    ranks=(2, 0),
    predicted_bytes=1,
    expected_peak_bytes=1,
    budget_bytes=2,
)


def _plan(folder: StateFolder) -> tuple[Path, Callable[[], Any]]:
    files = TaskFiles(folder.path, TASK)
    files.write_plan(PLAN)
    return next(folder.path.glob("*.plan")), files.read_plan


def _task(folder: StateFolder) -> tuple[Path, Callable[[], Any]]:
    TaskFiles(folder.path, TASK).write_plan(PLAN)
    return next(folder.path.glob("*.task")), lambda: begun_task(folder.path)


def _values(folder: StateFolder) -> tuple[Path, Callable[[], Any]]:
    files = TaskFiles(folder.path, TASK)
    files.write_values({"loss": 1.5})
    return next(folder.path.glob("*.values")), files.read_values


def _status(folder: StateFolder) -> tuple[Path, Callable[[], Any]]:
    StatusFile(folder).update(at_once=True, server="http://server", run_id="run-1")
    return folder.path / "status.json", lambda: read_status(folder.path)


def _corrections(folder: StateFolder) -> tuple[Path, Callable[[], Any]]:
    write_calibration(folder, Calibration(key="key").with_measured(PLAN, 3))
    return next(folder.path.iterdir()), lambda: read_calibration(folder, "key")


def _arithmetic(folder: StateFolder) -> tuple[Path, Callable[[], Any]]:
    found = MatmulSpeed(
        key=str(matmul_key(1, folder.path)),
        device="cpu",
        device_name="a processor",
        device_memory_bytes=0,
        bf16_gflops=1.0,
        fp32_gflops=1.0,
        threads=1,
        torch="2",
    )
    folder.write(ARITHMETIC, msgspec.json.encode(found))
    return folder.path / ARITHMETIC, lambda: read_matmul_speed(folder.path, root=folder.path)


def _identity(folder: StateFolder) -> tuple[Path, Callable[[], Any]]:
    folder.write_identity(Identity(server="http://server", install_id="0" * 32, device="d-1", credential="secret"))
    return next(folder.path.iterdir()), folder.read_identity


@pytest.mark.slow
@pytest.mark.parametrize("make", [_plan, _task, _values, _status, _corrections, _arithmetic, _identity])
def test_no_byte_of_a_small_file_ends_the_client_without_a_sentence(make: Any, tmp_path: Path) -> None:
    """Whatever byte it is: the file is read, or counts as not there, or a ConfigError says what to do."""
    folder = StateFolder(tmp_path)
    path, read = make(folder)
    sound, n_refused = path.read_bytes(), 0
    whole = read()

    for place in range(len(sound)):
        path.write_bytes(sound[:place] + b"\xff" + sound[place + 1 :])
        try:
            n_refused += read() != whole
        except ConfigError:
            n_refused += 1

    assert n_refused >= len(sound) // 2
