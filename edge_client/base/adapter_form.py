"""The form of the texts that an adapter was trained on, as `aggregator export` writes it into the adapter's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from braid_common.json_file import read_small
from braid_common.text_form import Cut, TextForm
from edge_client.errors import ConfigError
from wire.fields import Prefix, Tokens

MARKER = "braid.json"
"""The file in an adapter's folder that says it. Folders that PEFT wrote have none."""

MAX_MARKER_BYTES = 64 * 1024
"""A marker has some 200 bytes beside its prefix, which may take 4,000."""


class _Marker(msgspec.Struct, frozen=True):
    """The part of the marker that is read here; the rest says which run and version the adapter is of."""

    prefix: Prefix
    truncate_source: Cut
    max_source_tokens: Tokens
    max_target_tokens: Tokens


def read_form(adapter: Path) -> TextForm | None:
    """The form that an adapter's folder names; None where it names none, or `adapter` is no folder.

    Raises ConfigError where it names one that cannot be read.
    """
    path = adapter / MARKER
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_MARKER_BYTES:
            raise ValueError(f"it is larger than {MAX_MARKER_BYTES} bytes")
        marker = msgspec.json.decode(path.read_bytes(), type=_Marker)
        if not (marker.max_source_tokens and marker.max_target_tokens):
            raise ValueError("its lengths are 0")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} does not say in which form the adapter met its texts: {error}",
            "export the adapter again with `aggregator export`, or copy the whole folder again",
        ) from error
    return TextForm(**{name: getattr(marker, name) for name in marker.__struct_fields__})


def read_run(adapter: Path) -> str:
    """The run that an adapter's folder says it is of; "" where it says nothing that can be read."""
    path = adapter / MARKER
    is_small = path.is_file() and path.stat().st_size <= MAX_MARKER_BYTES
    marker = read_small(path, dict[str, Any]) if is_small else None
    run_id = (marker or {}).get("run", "")
    return run_id if isinstance(run_id, str) else ""
