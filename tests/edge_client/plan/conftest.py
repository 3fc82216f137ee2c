"""A small T5, non-square everywhere, as a config."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.runs import UNEVEN_T5


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(UNEVEN_T5)
