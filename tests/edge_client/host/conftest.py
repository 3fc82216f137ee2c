"""Tests of the board's own measurements: here nothing stands in for them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def fake_matmul_speed() -> None:
    """The measurement itself is tested in this room, so the one that other rooms are given is not put in its place."""
