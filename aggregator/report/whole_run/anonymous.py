"""Records without names: boards by number in place of what their people called them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aggregator.report.whole_run.record import Record

UNKNOWN = "a board"
"""What replaces the name of a device that the record does not know."""


def anonymous(record: Record) -> Record:
    """The record with every board's id and name a number, by the order in which they enrolled.

    The sentences that boards have written, or that quote what they sent, are gone: anything could stand in them. What
    the server has lost is told without whose it was.
    """
    numbers = {device.device: f"board {place}" for place, device in enumerate(record.devices, 1)}

    def number(device: str) -> str:
        return numbers.get(device, UNKNOWN)

    return replace(
        record,
        devices=tuple(
            replace(device, device=number(device.device), name=number(device.device), install_id="", credential="")
            for device in record.devices
        ),
        arrivals=tuple(
            replace(arrival, answer=replace(arrival.answer, device=number(arrival.answer.device), reason=""))
            for arrival in record.arrivals
        ),
        reports=tuple(replace(report, device=number(report.device), text="") for report in record.reports),
        losses=tuple(replace(loss, what=_without_names(loss.what, numbers)) for loss in record.losses),
    )


def _without_names(what: str, numbers: Mapping[str, str]) -> str:
    """A loss's words with numbers for device ids, the longest first: one id may begin another."""
    for device in sorted(numbers, key=len, reverse=True):
        what = what.replace(device, numbers[device])
    return what
