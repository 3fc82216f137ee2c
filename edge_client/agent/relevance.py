"""Relevance of a task: whether the server still takes its result while the run goes on without it. Pure."""

from __future__ import annotations

from wire.messages import Task


def is_wanted(task: Task, now: Task) -> bool:
    """Whether a result of `task` still counts, when `now` is what the server would tell this board to do.

    It does while the server asks for the very same, and in a run that counts late updates as long as not too many
    versions have been published since.
    """
    if (now.run_id, now.kind, *_round(now)) == (task.run_id, task.kind, *_round(task)):
        return True
    may_be_late = task.kind == "train" and now.kind in ("train", "wait") and now.run_id == task.run_id
    return may_be_late and task.staleness_limit > 0 and now.spec.version - task.spec.version <= task.staleness_limit


def _round(task: Task) -> tuple[int, int, str]:
    return task.spec.round, task.spec.version, task.spec.version_digest
