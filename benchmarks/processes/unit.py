"""The limits of the systemd unit that is shipped for the server, as far as a process gets them without systemd."""

from __future__ import annotations

import os
import resource
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNIT = Path(__file__).parents[2] / "deploy" / "aggregator.service"

_RESOURCES = {"LimitNOFILE": resource.RLIMIT_NOFILE, "LimitAS": resource.RLIMIT_AS, "LimitNPROC": resource.RLIMIT_NPROC}
"""Settings of a unit that are limits of a process."""

_OF_A_GROUP = (
    "MemoryMax",
    "MemoryHigh",
    "CPUQuota",
    "TasksMax",
    "LimitMEMLOCK",
    "LimitCORE",
    "LimitFSIZE",
    "LimitSTACK",
)
"""Settings that limit a service in other ways, and are told where they are left out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a process is started under.

    Attributes:
        environment: variables that it gets besides.
        resources: of each (resource.RLIMIT_…) how much it may have, and to how much it may raise that.
        applied, left_out: the unit's settings, as they stand there.
    """

    environment: Mapping[str, str]
    resources: Mapping[int, tuple[int, int]]
    applied: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def take(self) -> None:
        """Put this process under the limits."""
        for number, most in self.resources.items():
            resource.setrlimit(number, most)

    def full_environment(self) -> dict[str, str]:
        """This process's environment with the unit's variables."""
        return {**os.environ, **self.environment}


def unit_limits(path: Path = UNIT) -> Limits:
    """The limits of a unit; less, where this process is not allowed to have as much."""
    environment: dict[str, str] = {}
    resources: dict[int, tuple[int, int]] = {}
    applied, left_out = [], []
    for line in path.read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "Environment":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(value))
            applied.append(value)
        elif key in _RESOURCES and value.isdigit():
            number, most = _RESOURCES[key], _allowed(_RESOURCES[key], int(value))
            resources[number] = (most, most)
            applied.append(line if most == int(value) else f"{line} (here {most})")
        elif key in _RESOURCES or key in _OF_A_GROUP:
            left_out.append(line)
    return Limits(environment, resources, tuple(applied), tuple(left_out))


def descriptors(soft: int) -> Limits:
    """The limit of a service whose unit says nothing: so many descriptors, unless it takes more itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limits({}, {resource.RLIMIT_NOFILE: (soft, hard)}, (f"LimitNOFILESoft={soft}",))


def _allowed(number: int, wanted: int) -> int:
    """The amount of a resource that this process may have, at most what is wanted."""
    _, hard = resource.getrlimit(number)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
