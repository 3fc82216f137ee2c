"""Fuzz targets, each the reader of one kind of bytes that somebody else made; they are found here by name.

A target's module is imported when it is named, so that the fuzzer can trace all that it imports. To add one, write its
module, add a line here, and put some honest inputs into `fuzz/corpus/NAME`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from fuzz.contract import Target

SHARES: Mapping[str, float] = MappingProxyType(
    {
        "messages": 2.0,
        "uploads": 1.0,
        "answers": 1.0,
        "base": 0.5,
        "data": 0.5,
        "requests": 4.0,
        "crowds": 1.0,
    }
)
"""Targets by name, in the order in which they run, with their shares of a run's time. Requests through a socket take a
hundred times as long as messages, and need the most."""

_MODULES = {"crowds": "requests"}
"""Modules below this folder of targets that are not called as they are."""


def load(name: str) -> Target:
    """The target of that name. Raises KeyError for another one."""
    if name not in SHARES:
        raise KeyError(name)
    module = importlib.import_module(f"fuzz.targets.{_MODULES.get(name, name)}")
    target: Target = getattr(module, name.upper())
    return target
