"""A fetch in a process of its own, for a client that must stay small: `python -m braid_common.hub ORG/NAME@REVISION`.

huggingface_hub takes 25 MiB of memory, which are gone again when this process ends. Standard output has one JSON object
a line: {"say": text}, {"done_bytes": n, "total_bytes": n}, and last {"folder": path} or {"message", "hint", "is_disk"}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from braid_common.hub.errors import HubDiskError, HubError
from braid_common.hub.fetch import fetch
from braid_common.hub.model_id import parse_hub_id


class _Lines:
    """Progress as lines for the process that started this one."""

    def say(self, text: str) -> None:
        _write(say=text)

    def moved(self, done_bytes: int, total_bytes: int) -> None:
        _write(done_bytes=done_bytes, total_bytes=total_bytes)


def _write(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Fetch the model that the one argument names."""
    model = parse_hub_id(sys.argv[1])
    if model is None:
        raise SystemExit(f"{sys.argv[1]} is no name on the hub")
    try:
        _write(folder=str(fetch(model, _Lines()).folder))
    except HubError as error:
        _write(message=error.message, hint=error.hint, is_disk=isinstance(error, HubDiskError))


if __name__ == "__main__":
    main()
