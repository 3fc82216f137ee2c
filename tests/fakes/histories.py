"""Histories of runs that were never made, for tests of what is concluded of them."""

from __future__ import annotations

from benchmarks.simulation.setting import History, Point, Setting


def point(round_: int, losses: list[float]) -> Point:
    """A point of ten boards or so, with 100 bytes up and 200 down in each round."""
    return Point(round=round_, up_bytes=100 * round_, down_bytes=200 * round_, losses=tuple(losses))


def history(rate: float, losses: list[float], *, seed: int = 1, failed: str = "") -> History:
    """A run at a learning rate whose boards all have these losses, evaluated after every round."""
    setting = Setting(rule="braid", learning_rate=rate, seed=seed)
    points = tuple(point(round_, [loss] * 10) for round_, loss in enumerate(losses))
    return History(setting=setting, points=points, failed=failed)
