"""The wheel holds the base's model and not the script that trained it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def test_training_is_left_out_by_the_project_file() -> None:
    """A board has no use for the script, nor for what it imports."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert "builtin_base" in wheel["packages"]
    assert "/builtin_base/training" in wheel["exclude"]
    assert (ROOT / "builtin_base" / "training").is_dir()


@pytest.mark.slow
def test_the_wheel_has_the_model_alone(tmp_path: Path) -> None:
    """The same of a wheel that is really built, where hatchling is installed."""
    wheel = pytest.importorskip("hatchling.builders.wheel")

    (path,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    names = [name for name in zipfile.ZipFile(path).namelist() if name.startswith("builtin_base/")]
    assert {"builtin_base/__init__.py", "builtin_base/docstrings.py", "builtin_base/model/model.safetensors"} <= {
        *names
    }
    assert not [name for name in names if name.startswith("builtin_base/training/")]
