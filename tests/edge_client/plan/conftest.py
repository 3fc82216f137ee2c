"""A small T5, non-square everywhere, as a config and as a base on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.models.uneven_base import write_uneven_base
from tests.fakes.runs import UNEVEN_T5


@pytest.fixture
def config() -> dict[str, Any]:
    return dict(UNEVEN_T5)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UNEVEN_T5 with random weights."""
    folder = tmp_path_factory.mktemp("base")
    write_uneven_base(folder)
    return folder
