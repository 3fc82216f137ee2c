"""constraints.txt pins everything that gets installed, also what is needed by what we need: it can be audited."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILE = Path(__file__).parents[2] / "constraints.txt"
PINNED_BY_TORCH = re.compile(r"(nvidia|cuda|triton)\b")


def pinned() -> dict[str, str]:
    """Name → version of what is pinned on this Python and platform."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    assert all(str(each.specifier).startswith("==") for each in found), "a range is no pin"
    here = [each for each in found if each.marker is None or each.marker.evaluate()]
    assert len({canonicalize_name(each.name) for each in here}) == len(here), "pinned twice"
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in here}


def needed(root: str) -> set[str]:
    """Names of all that a requirement brings, as the installed packages say."""
    seen: set[str] = set()
    waiting = [Requirement(root)]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        key = f"{name}[{','.join(sorted(asked.extras))}]"
        if key in seen or PINNED_BY_TORCH.match(name):
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # of another platform, or an extra that was not installed
            continue
        seen |= {key}
        for line in requires:
            inner = Requirement(line)
            extras = ({"extra": extra} for extra in ("", *asked.extras))
            if inner.marker is None or any(inner.marker.evaluate(extra) for extra in extras):
                waiting.append(inner)
    return {key.partition("[")[0] for key in seen}


def test_all_that_is_needed_is_pinned() -> None:
    names = needed("braid-fl[dev]")

    assert {"aiohttp", "yarl", "torch", "mpmath"} <= names  # ours, and what those need
    assert names - {"braid-fl"} - set(pinned()) == set()
