"""Records of made-up runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.report.whole_run.record import Record, Terms
from aggregator.store.records import Answer, Arrival, Device, Loss, Round, StoredReport

TERMS = Terms(
    run_id="run-1",
    name="made up",
    base="builtin",
    rounds=2,
    mode="synchronous",
    scope="decoder",
    upload="bf16",
    rule="weave",
    defence="none",
    weight_bound=3.0,
    fairness=0.0,
    staleness_power=0.5,
)


def device(name: str, *, enrolled_at: float = 100.0, **others: Any) -> Device:
    """A board that enrolled; its id is its name."""
    known = {"install_id": "i", "credential": "secret", "revoked": False, "has_left": False, "bytes_up": 0}
    return Device(device=name, name=name, enrolled_at=enrolled_at, **{**known, "bytes_down": 0, **others})


def round_of(number: int, opened_at: float, closed_at: float | None, state: str = "merged") -> Round:
    """A round on the version of its own number."""
    return Round(number, state, number, opened_at, closed_at, "quorum")


def update(device: str, number: int, at: float, *, n_examples: int = 10, **others: Any) -> Arrival:
    """An update that counted in its own round."""
    known = {"counted_in": number, "digest": "d", "size_bytes": 1000, "accepted": True}
    return Arrival(Answer(round=number, device=device, n_examples=n_examples, **{**known, **others}), at)


def evaluation(device: str, version: int, values: Mapping[str, float], at: float = 200.0) -> StoredReport:
    """What a board reported of a version."""
    return StoredReport(device, "evaluation", version, version, "", values, at)


def record(
    devices: Sequence[Device] = (),
    rounds: Sequence[Round] = (),
    arrivals: Sequence[Arrival] = (),
    reports: Sequence[StoredReport] = (),
    losses: Sequence[Loss] = (),
    terms: Terms = TERMS,
) -> Record:
    """A record, read 1,000 s after 1970."""
    groups = (tuple(group) for group in (devices, rounds, arrivals, reports, losses))
    return Record(terms, *groups, version=len(rounds) + 1, now=1000.0)
