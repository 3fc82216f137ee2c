"""Join tokens and devices as tables: who was let in, by which token, and who is shut out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.report.tables import table
from aggregator.store.join_tokens import Token, token_state
from aggregator.store.records import Device
from aggregator.store.store import Store
from braid_common.units import show_seconds


def token_facts(token: Token, now: float) -> dict[str, Any]:
    """A join token for programs. `now`: seconds since 1970."""
    return {
        "id": token.id,
        "label": token.label,
        "state": token_state(token, now),
        "uses": token.uses,
        "used": len(token.devices),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "expires_in_s": max(0.0, token.expires_at - now),
        "revoked": token.revoked,
        "devices": list(token.devices),
    }


def tokens_text(facts: Sequence[Mapping[str, Any]]) -> str:
    """`aggregator token list`."""
    rows = [
        [
            str(token["id"]),
            token["label"],
            token["state"],
            f"{token['used']} of {token['uses']}",
            show_seconds(round(token["expires_in_s"])) if token["state"] in ("valid", "used up") else "",
            ", ".join(token["devices"]),
        ]
        for token in facts
    ]
    return table(["number", "label", "state", "used", "ends in", "devices"], rows)


def device_facts(store: Store) -> list[dict[str, Any]]:
    """The devices for programs, each with the join token that it came by last."""
    by_device = {device: token.id for token in store.tokens() for device in token.devices}
    return [
        {
            "device": device.device,
            "name": device.name,
            "state": device_state(device),
            "token": by_device.get(device.device),
            "enrolled_at": device.enrolled_at,
            "revoked": device.revoked,
            "has_left": device.has_left,
            "removed": device.removed,
        }
        for device in store.all_devices()
        if device.revoked or not device.removed
    ]


def device_state(device: Device) -> str:
    """Whether a device takes part, in a word or two."""
    if device.revoked:
        return "removed, shut out" if device.removed else "revoked"
    return "left" if device.has_left else "enrolled"


def devices_text(facts: Sequence[Mapping[str, Any]]) -> str:
    """`aggregator device list`."""
    rows = [
        [device["device"], device["name"], device["state"], "" if device["token"] is None else str(device["token"])]
        for device in facts
    ]
    return table(["device", "name", "state", "token"], rows)
