"""The frozen bytes of protocol version 1, which most tests of the wire start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import wire.messages
import wire.run
from wire.fields import Message

# A board's core, or one that is shared, may take seconds for an example: no test fails for being slow.
settings.register_profile("unhurried", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_KINDS = vars(wire.run) | vars(wire.messages)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Folder of the committed bytes: KIND.msgpack or KIND-VARIANT.msgpack."""
    return Path(__file__).parent / "golden" / "v1"


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> dict[str, tuple[type[Message], bytes]]:
    """Per file: the kind of message it holds and its bytes."""
    files = sorted(golden_folder.glob("*.msgpack"))
    return {path.stem: (_KINDS[path.stem.split("-")[0]], path.read_bytes()) for path in files}
