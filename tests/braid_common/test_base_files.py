"""A base model's digest says whether two folders hold the same model; what is wrong is said in a sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from braid_common.base_files import base_digest, base_file_names, read_base_config
from wire.errors import WireError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that looks like a base model's."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model-00002.safetensors").write_bytes(b"second" * 300_000)
    (folder / "model-00001.safetensors").write_bytes(b"first")
    (folder / "README.md").write_text("not part of it")
    return folder


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_digest_is_that_of_the_definition(base: Path) -> None:
    """SHA-256 over "NAME SHA-256" lines, sorted by name: what docs/protocol.md tells other implementers."""
    names = ("config.json", "model-00001.safetensors", "model-00002.safetensors", "tokenizer.json")
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

    assert len({before, without_tokenizer, changed, base_digest(moved)}) == 4


def test_config_is_read(base: Path) -> None:
    """The config as a dict."""
    assert read_base_config(base) == {"model_type": "t5"}


def test_folder_absent(tmp_path: Path) -> None:
    """The folder is named, and what to give instead."""
    for read in (base_digest, base_file_names, read_base_config):
        with pytest.raises(WireError, match=r"nowhere does not exist: give a folder that holds config\.json"):
            read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "said"),
    [("config.json", "has no config.json: download"), ("model.safetensors", "has no .safetensors file")],
)
def test_file_missing(tmp_path: Path, name: str, said: str) -> None:
    """Which file is missing, and what to do."""
    for other in {"config.json", "model.safetensors"} - {name}:
        (tmp_path / other).write_text("{}")

    for read in (base_digest, base_file_names, read_base_config):
        with pytest.raises(WireError, match=said):
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

    with pytest.raises(WireError, match=f"{said}.*download the model again"):
        read_base_config(base)


def test_unreadable_file(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission, or a dying disk, is told with the file's name (tests may run as root, so the error is made)."""
    fired = []

    def refuse(self: Path, *_: object, **__: object) -> None:
        fired.append(self.name)
        raise PermissionError(13, "Permission denied")

    for method, read in (("open", base_digest), ("read_text", read_base_config), ("iterdir", base_file_names)):
        with monkeypatch.context() as patch, pytest.raises(WireError, match=r"cannot be read \(Permission denied\)"):
            patch.setattr(Path, method, refuse)
            read(base)
    assert fired == ["config.json", "config.json", "base"]
