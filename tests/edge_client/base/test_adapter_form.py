"""The form that an adapter's folder names: what `aggregator export` wrote is what is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aggregator.export import Origin, export_peft
from aggregator.merge.state import AdapterState, WeightState
from braid_common.text_form import DEFAULT_FORM, TextForm
from edge_client.base.adapter_form import MARKER, MAX_MARKER_BYTES, read_form
from edge_client.cli.generate import _form_of
from edge_client.errors import ConfigError

GOOD = {"prefix": "Read:\n", "truncate_source": "middle", "max_source_tokens": 320, "max_target_tokens": 48}


def test_what_an_export_wrote_is_read(tmp_path: Path) -> None:
    """Prefix, cut and lengths come back, to the last space."""
    weight = WeightState(
        frozen_b=np.ones((3, 1), np.float32),
        frozen_a=np.ones((1, 2), np.float32),
        basis=np.zeros((0, 2), np.float32),
        values=np.zeros(0),
    )
    form = TextForm(" Dialogue:\n\t", 512, 96, "start")

    export_peft(AdapterState(version=3, weights={"w": weight}), tmp_path / "out", Origin("b", form=form))

    assert read_form(tmp_path / "out") == form


def test_a_folder_that_names_none(tmp_path: Path) -> None:
    """PEFT's own folders, and adapter files: the usual form is for them."""
    assert read_form(tmp_path) is None
    (tmp_path / "adapter").write_bytes(b"x")
    assert read_form(tmp_path / "adapter") is None
    assert _form_of(tmp_path, None, None, None) == _form_of(None, None, None, None) == DEFAULT_FORM


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        json.dumps({"version": 3, "n_weights": 2}),
        json.dumps(GOOD | {"prefix": 3}),
        json.dumps(GOOD | {"prefix": "\x1b[2J"}),
        json.dumps(GOOD | {"truncate_source": "left"}),
        json.dumps(GOOD | {"max_source_tokens": 0}),
        json.dumps(GOOD | {"max_target_tokens": 1 << 40}),
        json.dumps(GOOD) + " " * MAX_MARKER_BYTES,
    ],
)
def test_a_damaged_one_is_one_error(content: str, tmp_path: Path) -> None:
    """It names the file and what to do; a guess would write with the wrong words before each text."""
    (tmp_path / MARKER).write_text(content)

    with pytest.raises(ConfigError, match=r"braid\.json") as caught:
        read_form(tmp_path)

    assert "export" in caught.value.hint


def test_what_is_said_on_the_command_line_is_stronger(tmp_path: Path) -> None:
    """--prefix, also an empty one, and --max-tokens replace what the folder names; the rest stays."""
    (tmp_path / MARKER).write_text(json.dumps(GOOD | {"version": 3, "run": "r", "later": "ignored"}))

    assert _form_of(tmp_path, None, None, None) == TextForm("Read:\n", 320, 48, "middle")
    assert _form_of(tmp_path, None, "", 5) == TextForm("", 320, 5, "middle")
