"""A base model's digest says whether two folders hold the same model; what is wrong is said in a sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from braid_common.base.files import (
    MAX_CONFIG_BYTES,
    MAX_INDEX_BYTES,
    BaseFilesError,
    base_digest,
    base_file_names,
    read_config_json,
    read_t5_config,
)
from braid_common.base.t5_config import FLAN_T5


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that looks like a base model's."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (folder / "tokenizer.json").write_text("{}")
    shards = {"model-00002.safetensors": b"second" * 300_000, "model-00001.safetensors": b"first"}
    for name, content in shards.items():
        (folder / name).write_bytes(content)
    write_index(folder, shards)
    (folder / "README.md").write_text("not part of it")
    (folder / "generation_config.json").write_text("{}")
    return folder


def write_index(folder: Path, shards: Iterable[str]) -> None:
    weight_map = {f"tensor {i}": name for i, name in enumerate(shards)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_digest_is_that_of_the_definition(base: Path) -> None:
    """SHA-256 over "NAME SHA-256" lines, sorted by name: what docs/concepts/protocol.md tells other implementers."""
    shards = ("model-00001.safetensors", "model-00002.safetensors", "model.safetensors.index.json")
    names = ("config.json", *shards, "tokenizer.json")
    lines = "".join(f"{name} {sha256((base / name).read_bytes())}\n" for name in names)

    assert base_file_names(base) == names
    assert base_digest(base) == sha256(lines.encode())


def test_digest_sees_every_change_that_matters(base: Path) -> None:
    """Content, names and the set of files count; other files, and where the folder lies, do not."""
    before = base_digest(base)
    moved = base.rename(base.parent / "elsewhere")
    (moved / "README.md").write_text("changed")
    assert base_digest(moved) == before

    (moved / "tokenizer.json").unlink()
    without_tokenizer = base_digest(moved)
    (moved / "model-00001.safetensors").write_bytes(b"First")
    changed = base_digest(moved)
    (moved / "model-00001.safetensors").rename(moved / "model-00003.safetensors")
    write_index(moved, ("model-00002.safetensors", "model-00003.safetensors"))

    assert len({before, without_tokenizer, changed, base_digest(moved)}) == 4


def test_one_file_of_weights_is_the_base_whatever_lies_beside_it(base: Path) -> None:
    """As for transformers: model.safetensors comes before an index, and a variant in another precision is no part."""
    (base / "model.safetensors").write_bytes(b"all")
    (base / "model.fp16.safetensors").write_bytes(b"half")

    assert base_file_names(base) == ("config.json", "model.safetensors", "tokenizer.json")


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (b"{", "is damaged"),
        (b'{"weight_map": []}', "is damaged"),
        (b'{"weight_map": {}}', "names no file"),
        (b'{"weight_map": {"a": "../x.safetensors"}}', r"names '\.\./x\.safetensors', which is no plain"),
        (b'{"weight_map": {"a": "x.bin"}}', "names 'x.bin'"),
        (b"\xff", "is damaged"),
        (b" " * (MAX_INDEX_BYTES + 1), f"more than {MAX_INDEX_BYTES} bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b'{"weight_map": {"a": "model-00009.safetensors"}}', "has no model-00009.safetensors, which"),
    ],
)
def test_an_index_that_leads_nowhere_is_named(base: Path, index: bytes, said: str) -> None:
    """Damaged, pointing out of the folder, or naming a shard that is not there."""
    (base / "model.safetensors.index.json").write_bytes(index)

    with pytest.raises(BaseFilesError, match=said):
        base_file_names(base)


def test_config_is_read(base: Path) -> None:
    """As it is, and as the numbers of a T5; a file that is no T5's is named."""
    assert read_config_json(base) == {"model_type": "t5"}
    with pytest.raises(BaseFilesError, match=r"config\.json is not a FLAN-T5's: feed_forward_proj is None"):
        read_t5_config(base)

    (base / "config.json").write_text(json.dumps(FLAN_T5["flan-t5-small"].to_json()))

    assert read_t5_config(base) == FLAN_T5["flan-t5-small"]


def test_a_config_may_stand_alone(tmp_path: Path) -> None:
    """A plan needs no weights: config.json is enough to read it."""
    (tmp_path / "config.json").write_text("{}")

    assert read_config_json(tmp_path) == {}


def test_an_endless_config_is_not_read(base: Path) -> None:
    """Its first megabyte is enough to say that it is none."""
    (base / "config.json").write_bytes(b" " * (MAX_CONFIG_BYTES + 1))

    with pytest.raises(BaseFilesError, match=f"more than {MAX_CONFIG_BYTES} bytes"):
        read_config_json(base)


def test_folder_absent(tmp_path: Path) -> None:
    """The folder is named, and what to give instead."""
    for read in (base_digest, base_file_names, read_config_json, read_t5_config):
        with pytest.raises(BaseFilesError, match=r"nowhere does not exist: give a folder that holds config\.json"):
            read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "said"),
    [("config.json", "has no config.json: download"), ("model.safetensors", "has no .safetensors file")],
)
def test_file_missing(tmp_path: Path, name: str, said: str) -> None:
    """Which file is missing, and what to do."""
    for other in {"config.json", "model.safetensors"} - {name}:
        (tmp_path / other).write_text("{}")

    reads_config = (read_config_json, read_t5_config) if name == "config.json" else ()
    for read in (base_digest, base_file_names, *reads_config):
        with pytest.raises(BaseFilesError, match=said):
            read(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b'{"d_model": ', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "holds no JSON object"),
    ],
)
def test_config_damaged(base: Path, content: bytes, said: str) -> None:
    """A cut or foreign config.json is an error that says to download again."""
    (base / "config.json").write_bytes(content)

    with pytest.raises(BaseFilesError, match=f"{said}.*download the model again"):
        read_t5_config(base)


def test_unreadable_file(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission, or a dying disk, is told with the file's name (tests may run as root, so the error is made)."""
    fired = []

    def refuse(self: Path, *_: object, **__: object) -> None:
        fired.append(self.name)
        raise PermissionError(13, "Permission denied")

    (base / "model.safetensors.index.json").unlink()
    (base / "model-00001.safetensors").rename(base / "model.safetensors")
    for method, read in (("open", base_digest), ("open", read_t5_config), ("iterdir", base_file_names)):
        with (
            monkeypatch.context() as patch,
            pytest.raises(BaseFilesError, match=r"cannot be read \(Permission denied\)"),
        ):
            patch.setattr(Path, method, refuse)
            read(base)
    assert fired == ["config.json", "config.json", "base"]


def test_a_config_may_begin_with_a_byte_order_mark(base: Path) -> None:
    """Editors on other systems write one."""
    (base / "config.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(FLAN_T5["flan-t5-small"].to_json()).encode())

    assert read_t5_config(base) == FLAN_T5["flan-t5-small"]
