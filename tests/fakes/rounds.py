"""The [rounds] section of a run.toml for tests of the schedule, without what the schedule does not read."""

from __future__ import annotations

from aggregator.settings.config import RoundsSection


def rounds_section(
    total: int = 1,
    min_devices: int = 1,
    quorum: int = 1,
    *,
    deadline_s: float = 1000.0,
    grace_s: float = 10.0,
    profile_deadline_s: float = 10.0,
    is_asynchronous: bool = False,
) -> RoundsSection:
    return RoundsSection(
        total=total,
        mode="asynchronous" if is_asynchronous else "synchronous",
        min_devices=min_devices,
        quorum=quorum,
        deadline_s=deadline_s,
        grace_s=grace_s,
        liveness_s=120.0,
        profile_deadline_s=profile_deadline_s,
        staleness_limit=0,
        staleness_power=0.5,
    )
