"""Finding the base: builtin, a folder, the hub; and refusing one that is not the run's."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from braid_common.base_files import base_digest
from edge_client.base.locate import open_base, require_whole, resolve
from edge_client.errors import BaseModelError
from tests.fakes.bases import write_base
from tests.fakes.runs import TINY_T5

WEIGHTS = (len(HEADER := b'{"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}')).to_bytes(
    8, "little"
) + HEADER
WEIGHTS += b"nine byte"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_base(tmp_path, TINY_T5)
    return tmp_path


def hub(answer: Any) -> SimpleNamespace:
    """A huggingface_hub that returns or raises `answer`."""

    def snapshot_download(model: str, allow_patterns: list[str]) -> str:
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    return SimpleNamespace(snapshot_download=snapshot_download)


def test_a_folder_is_itself(folder: Path) -> None:
    """A path that exists is never looked up on the hub."""
    assert resolve(str(folder)) == folder


def test_the_runs_own_base_is_opened(folder: Path) -> None:
    """Equal digests: the folder comes back."""
    assert open_base(str(folder), base_digest(folder)) == folder


def test_another_base_is_refused_with_both_digests(folder: Path) -> None:
    """Twelve digits of each, so that people can compare them."""
    with pytest.raises(BaseModelError) as caught:
        open_base(str(folder), "ab" * 32)

    assert base_digest(folder)[:12] in caught.value.message
    assert "abababababab" in caught.value.message


@pytest.mark.parametrize("size_bytes", [0, 5, 8, 30, len(WEIGHTS) - 9, len(WEIGHTS) - 1])
def test_a_truncated_weights_file_is_called_that(folder: Path, size_bytes: int) -> None:
    """Cut anywhere: the file is named with its size, rather than two digests that differ."""
    digest = base_digest(folder)
    (folder / "model.safetensors").write_bytes(WEIGHTS[:size_bytes])

    with pytest.raises(BaseModelError, match=f"model.safetensors is damaged or truncated: it has {size_bytes} "):
        open_base(str(folder), digest)


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"a": 3}', b'{"a": {"data_offsets": []}}', b"[" * 9999, b"\xff"])
def test_a_header_that_is_none_is_damage(folder: Path, header: bytes) -> None:
    """Whatever stands there: one error type."""
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(BaseModelError, match="damaged"):
        require_whole(folder)


def test_what_is_wrong_with_a_folder_says_more_than_two_digests(folder: Path) -> None:
    """A base that lost its tokenizer on the way is named by that."""
    digest = base_digest(folder)
    (folder / "tokenizer.json").unlink()

    with pytest.raises(BaseModelError, match=r"has no tokenizer\.json: download it"):
        open_base(str(folder), digest)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """What is missing is said."""
    with pytest.raises(BaseModelError, match=r"config\.json"):
        open_base(str(tmp_path), "ab" * 32)


def test_a_hub_id_is_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's cache folder is the base."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub(folder))

    assert resolve("google/flan-t5-small") == folder


@pytest.mark.parametrize("answer", [OSError("no route to host"), ValueError("bad id"), None])
def test_a_hub_that_cannot_be_reached_says_what_else_works(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not reachable, or huggingface_hub not installed (None in sys.modules): pass a folder, or let the server serve."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None if answer is None else hub(answer))

    with pytest.raises(BaseModelError) as caught:
        resolve("google/flan-t5-small")

    assert "folder" in caught.value.hint
    assert "aggregator" in caught.value.hint


@pytest.mark.parametrize("model", ["/no/such/folder", "../nothing", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    """No network is asked about a mistyped path."""
    with pytest.raises(BaseModelError, match="is no folder"):
        resolve(model)
