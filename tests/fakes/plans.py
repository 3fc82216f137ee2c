"""Plans that differ from a given one."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_client.jobs.messages import Plan


def with_mode(plan: Plan, **changes: Any) -> Plan:
    """The plan, but trained in a mode that is changed so."""
    return msgspec.structs.replace(plan, mode=msgspec.structs.replace(plan.mode, **changes))
