"""The base model's folder: the server starts only on the files that the run was made for."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import BaseModelError
from aggregator.run.setup import create, open_run
from aggregator.settings import base_model
from braid_common.base_files import base_digest
from braid_common.t5_config import T5Config
from braid_common.t5_layout import tensor_shapes
from tests.fakes.runs import TINY_T5


def test_a_changed_base_stops_the_server_at_its_start(make_folder: Any, server_base: Path) -> None:
    """Boards would all refuse it later; the sentence names the folder and what to do."""
    folder = make_folder()
    open_run(folder, time.monotonic).store.close()
    weights = server_base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")  # as whole as before, and another model

    with pytest.raises(BaseModelError, match="digest is another") as caught:
        open_run(folder, time.monotonic)

    assert str(server_base) in caught.value.message and "aggregator init" in caught.value.hint


def test_files_that_have_not_changed_are_read_once(
    server_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart does not read gigabytes again; a file of another size or time is read, and so is all after damage."""
    read: list[str] = []
    whole = base_model.file_digest
    monkeypatch.setattr(base_model, "file_digest", lambda path: (read.append(path.name), whole(path))[1])
    cache, digest = tmp_path / "base.json", base_digest(server_base)

    first = base_model.verify(server_base, digest, cache)
    assert sorted(read) == sorted(first) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert base_model.verify(server_base, digest, cache) == first and len(read) == 3
    os.utime(server_base / "config.json", ns=(1, 1))
    base_model.verify(server_base, digest, cache)
    assert read[3:] == ["config.json"]
    for damaged in (b"{", b"[]", b'{"config.json": {"size_bytes": 1}}', b'{"config.json": 3}', b"\xff"):
        cache.write_bytes(damaged)
        assert sorted(base_model.verify(server_base, digest, cache)) == sorted(first)


def test_a_file_that_boards_could_not_ask_for_is_refused(server_base: Path, tmp_path: Path) -> None:
    """Names go into URLs as they are."""
    (server_base / "model.safetensors").rename(server_base / "my model?.safetensors")
    weight_map = dict.fromkeys(tensor_shapes(T5Config.parse(TINY_T5)), "my model?.safetensors")
    (server_base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    with pytest.raises(BaseModelError, match="rename"):
        create(tmp_path / "srv", str(server_base), {}, force=False)
