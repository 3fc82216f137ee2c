"""The record of a run: all that its report is made of, as frozen values without a database or a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aggregator.store.records import Answer, Arrival, Device, Loss, Round, StoredReport


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings of a run that its report tells of, by the names of run.toml.

    `weight_bound`: how many boards of the middle weight one may count as, 0 for no bound.
    """

    run_id: str
    name: str
    base: str
    rounds: int
    mode: str
    scope: str
    upload: str
    rule: str
    defence: str
    weight_bound: float
    fairness: float
    staleness_power: float


@dataclass(frozen=True, slots=True)
class Record:
    """A run's records as they stand. `now`: when they were read, seconds since 1970; `reports` are those that are
    kept: the last of each kind, device and version."""

    terms: Terms
    devices: tuple[Device, ...]
    rounds: tuple[Round, ...]
    arrivals: tuple[Arrival, ...]
    reports: tuple[StoredReport, ...]
    losses: tuple[Loss, ...]
    version: int
    now: float

    @property
    def members(self) -> tuple[Device, ...]:
        """The boards that the report has a line for: those that were not removed."""
        return tuple(device for device in self.devices if not device.removed)

    def evaluations(self) -> dict[str, dict[int, Mapping[str, float]]]:
        """Device → version → the numbers that it reported of it."""
        found: dict[str, dict[int, Mapping[str, float]]] = {device.device: {} for device in self.members}
        for report in self.reports:
            if report.kind == "evaluation" and report.device in found:
                found[report.device][report.version] = believable(report.values)
        return found

    def by_device(self) -> dict[str, list[Answer]]:
        """Device → its profile and updates, in the order in which they were stored."""
        found: dict[str, list[Answer]] = {device.device: [] for device in self.devices}
        for arrival in self.arrivals:
            found.setdefault(arrival.answer.device, []).append(arrival.answer)
        return found

    def by_round(self) -> dict[int, list[Arrival]]:
        """Round → the updates that counted in it."""
        found: dict[int, list[Arrival]] = {row.round: [] for row in self.rounds}
        for arrival in self.arrivals:
            if arrival.answer.round:
                found.setdefault(arrival.answer.counted_in, []).append(arrival)
        return found

    def last(self, kind: str) -> dict[str, StoredReport]:
        """The newest report of a kind, by device."""
        return {report.device: report for report in self.reports if report.kind == kind}


LARGEST_NUMBER = 1e15
"""Larger numbers, and negative ones, are no losses, counts or bytes: no figure is made of them."""


def believable(values: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a report that can be true."""
    return {name: value for name, value in values.items() if 0 <= value <= LARGEST_NUMBER}
