"""settings.json may be edited, and a slip in it is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builtin_base.training.settings import SETTINGS, Settings, read_settings


def test_settings_refuse_unknown_names(tmp_path: Path) -> None:
    """A mistyped name in settings.json is an error, not a default."""
    (tmp_path / SETTINGS).write_text(json.dumps({"matrix_rl": 1.0}))
    with pytest.raises(ValueError, match="matrix_rl"):
        read_settings(tmp_path)


@pytest.mark.parametrize("written", ['{"warmup_steps": 2.5}', '{"matrix_lr": "fast"}', '{"seed": true}', "[1]"])
def test_settings_refuse_what_is_no_number(tmp_path: Path, written: str) -> None:
    """The message names the file, and the setting where there is one."""
    (tmp_path / SETTINGS).write_text(written)
    with pytest.raises(ValueError, match=SETTINGS):
        read_settings(tmp_path)


def test_defaults_are_written_down(tmp_path: Path) -> None:
    """The first start writes what it took, so that there is something to edit."""
    assert read_settings(tmp_path) == Settings() == Settings(**json.loads((tmp_path / SETTINGS).read_text()))
