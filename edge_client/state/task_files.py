"""The files of one task, by which a client that was killed knows where it was.

KEY.task            the task itself
KEY.plan            the plan that the task goes by; a leaner one replaces it when memory runs short
KEY.adapter         the version to train on, or to evaluate
KEY.training_state  the training, saved every few steps
KEY.values          the numbers of the finished work
KEY.result          the finished profile or update, until the server has answered it
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from braid_common.atomic_file import write_atomically
from braid_common.json_file import read_small
from edge_client.errors import disk_errors
from edge_client.jobs.messages import Plan
from wire.messages import Task


class TaskFiles:
    """`folder` holds the files; their names begin with what tells this task from every other."""

    def __init__(self, folder: Path, task: Task) -> None:
        text = f"{task.run_id} {task.kind} {task.spec.round} {task.spec.version} {task.spec.seed}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._folder, self._task = folder, task
        self._key = f"{task.kind}-{task.spec.round}-{task.spec.version}-{digest[:12]}"
        self.adapter, self.result = self._path("adapter"), self._path("result")
        self.training_state = self._path("training_state")

    def read_plan(self) -> Plan | None:
        """The plan kept, None where there is none that can be read."""
        return read_small(self._path("plan"), Plan)

    def write_plan(self, plan: Plan) -> None:
        """Go by `plan` from now on. An adapter that was fetched for other ranks goes; the saved training stays, for it
        serves fewer strands too."""
        before = self.read_plan()
        if before is None or before.ranks != plan.ranks:
            self.drop_adapter()
        self._write("task", msgspec.json.encode(self._task))
        self._write("plan", msgspec.json.encode(plan))

    def drop_adapter(self) -> None:
        """Remove the adapter, so that it is fetched again. Raises DiskError."""
        with disk_errors(self.adapter):
            self.adapter.unlink(missing_ok=True)

    def read_values(self) -> dict[str, float]:
        """The numbers kept, none where they were not written in time."""
        return read_small(self._path("values"), dict[str, float]) or {}

    def write_values(self, values: Mapping[str, float]) -> None:
        self._write("values", msgspec.json.encode(dict(values)))

    def remove(self) -> None:
        """The task is over, or begins anew."""
        self._sweep(f"{self._key}.*")

    def sweep_others(self) -> None:
        """Remove the files of every other task: a board has one at a time. Folders are not ours, and stay."""
        with disk_errors(self._folder):
            for path in self._folder.iterdir():
                if not path.name.startswith(f"{self._key}.") and not path.is_dir():
                    path.unlink(missing_ok=True)

    def _sweep(self, pattern: str) -> None:
        with disk_errors(self._folder):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._key}.{suffix}"

    def _write(self, suffix: str, data: bytes) -> None:
        path = self._path(suffix)
        with disk_errors(path):
            write_atomically(path, data)


def begun_task(folder: Path) -> Task | None:
    """The training task that was begun there and is not over; None where there is none that can be read."""
    for path in folder.glob("train-*.task"):
        if (task := read_small(path, Task)) is not None:
            return task
    return None
