"""The base model's folder: the server starts only on the files that the run was made for."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aggregator.errors import BaseModelError, ConfigError, DiskError
from aggregator.run.setup import create, open_run
from aggregator.run.tasks import run_info
from aggregator.settings import base_model
from aggregator.store.folder import Folder
from braid_common.base.files import base_digest
from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes
from tests.fakes.hub import FakeHub, loopback_hub
from tests.fakes.models.flan_t5 import SMALL, tiny_small_repo, use_hub
from tests.fakes.runs import TINY_T5
from wire.run import Base


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


# --- from the hub --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with google/flan-t5-small in small, and an empty cache."""
    with loopback_hub({SMALL: tiny_small_repo()}) as running:
        use_hub(monkeypatch, running, tmp_path / "home")
        yield running


def test_a_run_is_made_from_a_hub_id(hub: FakeHub, tmp_path: Path) -> None:
    """run.toml keeps the commit that the branch meant, and boards are told it."""
    config = create(tmp_path / "srv", SMALL, {}, force=False)

    commit = hub.repos[SMALL].commit
    assert (config.model.id, config.model.revision, config.model.path.name) == (SMALL, commit, commit)
    assert f'revision = "{commit}"' in (tmp_path / "srv" / "run.toml").read_text()
    opened = open_run(Folder(tmp_path / "srv"), time.monotonic)
    opened.store.close()
    assert run_info(opened.run).base == Base(model=SMALL, digest=config.model.digest, revision=commit)


def test_a_named_revision_is_the_one_that_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    """A tag is resolved; the id stays what boards and PEFT take."""
    hub.repos[SMALL].names = ("main", "v1")

    model = create(tmp_path / "srv", f"{SMALL}@v1", {}, force=False).model

    assert (model.id, model.revision) == (SMALL, hub.repos[SMALL].commit)


def test_a_cache_that_was_removed_is_fetched_again_at_the_same_commit(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole or in part; the branch may have moved meanwhile. Where the hub is away, the error says what is missing."""
    model = create(tmp_path / "srv", SMALL, {}, force=False).model
    hub.repos[SMALL].names = ()
    (model.path / "model.safetensors").resolve().unlink()
    open_run(Folder(tmp_path / "srv"), time.monotonic).store.close()
    assert base_digest(model.path) == model.digest
    shutil.rmtree(tmp_path / "home")
    open_run(Folder(tmp_path / "srv"), time.monotonic).store.close()
    assert base_digest(model.path) == model.digest
    assert capsys.readouterr().err.count("fetching") == 3

    shutil.rmtree(tmp_path / "home")
    hub.repos.clear()
    with pytest.raises(BaseModelError, match=r"lacks files of the base, and .* has no model") as caught:
        open_run(Folder(tmp_path / "srv"), time.monotonic)
    assert caught.value.hint.startswith("Check its spelling")


def test_a_cache_elsewhere_serves_a_moved_run(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder that was copied to another machine finds the base there, wherever that machine's cache is."""
    model = create(tmp_path / "srv", SMALL, {}, force=False).model
    shutil.rmtree(tmp_path / "home")
    cache = use_hub(monkeypatch, hub, tmp_path / "elsewhere")

    opened = open_run(Folder(tmp_path / "srv"), time.monotonic)
    opened.store.close()

    assert opened.config.model.path == cache / "models--google--flan-t5-small" / "snapshots" / model.revision


@pytest.mark.parametrize("revision", ["main", "0" * 39, "A" * 40])
def test_a_revision_that_is_no_commit_is_refused(hub: FakeHub, tmp_path: Path, revision: str) -> None:
    """A branch moves: a run stands on files that stay the same."""
    with pytest.raises(ConfigError, match="is no commit of google/flan-t5-small"):
        create(tmp_path / "srv", SMALL, {"model.revision": revision}, force=False)


def test_a_full_disk_is_no_fault_of_the_base(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is that of disks, and nothing of a run is left."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=20_000))

    with pytest.raises(DiskError, match=r"has 19\.5 KiB free"):
        create(tmp_path / "srv", SMALL, {}, force=False)

    assert not (tmp_path / "srv").exists()
