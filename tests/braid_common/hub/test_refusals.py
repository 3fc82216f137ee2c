"""What the hub cannot give as a base: one error with what to do, before weights move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from braid_common.hub.errors import HubError
from braid_common.hub.fetch import fetch
from braid_common.hub.model_id import HubId, parse_hub_id
from tests.braid_common.hub.conftest import Heard
from tests.fakes.hub import FakeHub, Repo
from tests.fakes.models.flan_t5 import SMALL, XL, small_repo, xl_repo

WEIGHTS = "model.safetensors"


class Refusal(NamedTuple):
    """A model that is refused: what is asked for, the repository behind it, and words of message and hint."""

    asked: str
    repo: Repo | None
    token: str
    words: tuple[str, ...]


def without(*names: str, **files: bytes) -> Repo:
    return Repo({name: content for name, content in small_repo().files.items() if name not in names} | files)


REFUSALS = {
    "not there": Refusal("google/flan-t6", None, "", ("has no model google/flan-t6, or it is private", "HF_TOKEN")),
    "private": Refusal("a/b", Repo(small_repo().files, token="hf_owner"), "", ("or it is private", "HF_TOKEN")),
    "gated": Refusal("a/b", Repo(small_repo().files, token="hf_x", gated=True), "", ("is gated", "/a/b, then set HF_")),
    "gated, not agreed": Refusal(
        "a/b", Repo(small_repo().files, token="hf_x", gated=True), "hf_other", ("is gated", "agree to their terms")
    ),
    "bad token": Refusal("a/b", small_repo(), "hf_unknown", ("your token", "HF_TOKEN")),
    "no such revision": Refusal("a/b@v9", small_repo(), "", ("a/b has no revision v9", "leave the part from @ on out")),
    "no such commit": Refusal(f"a/b@{'1' * 40}", small_repo(), "", (f"has no revision {'1' * 40}",)),
    "no safetensors": Refusal(
        "a/b", without(WEIGHTS), "", ("no model.safetensors, only pytorch_model.bin", "`hf download a/b")
    ),
    "no tokenizer": Refusal("a/b", without("tokenizer.json"), "", ("has no tokenizer.json", "`hf download a/b")),
    "no config": Refusal("a/b", without("config.json"), "", ("has no config.json",)),
    "no T5": Refusal("a/b", without(**{"config.json": b'{"model_type": "bart"}'}), "", ("'bart', t5 is needed",)),
    "ungated T5": Refusal("a/b", small_repo(feed_forward_proj="relu"), "", ("gated-gelu is needed",)),
    "a shard that is missing": Refusal(
        "a/b",
        Repo({name: content for name, content in xl_repo().files.items() if "2-of" not in name}),
        "",
        ("has no model-00002-of-00002.safetensors, which its index names",),
    ),
    "a damaged index": Refusal(
        "a/b", Repo({**xl_repo().files, "model.safetensors.index.json": b"{}"}), "", ("index.json is damaged",)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_base_is_refused_before_its_weights_move(
    case: str, hub: FakeHub, cache: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error with what to do, and not a byte of weights."""
    asked, repo, token, words = REFUSALS[case]
    hub.repos |= {"c/d": Repo({}, token="hf_other")} | ({} if repo is None else {asked.split("@")[0]: repo})
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    model = parse_hub_id(asked)
    assert model is not None

    with pytest.raises(HubError) as caught:
        fetch(model, heard)

    said = f"{caught.value.message} → {caught.value.hint}"
    assert all(word in said for word in words), said
    assert "\n" not in said and not [ask for ask in hub.asked if ask.to_storage]


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b"[]", b"{}", b'{"id": "a/b", "siblings": 3}'])
def test_an_answer_that_is_no_hubs_is_called_that(body: bytes, hub: FakeHub, cache: Path, heard: Heard) -> None:
    """The page of a hotel's network, or a mirror that is none."""
    hub.body = body

    with pytest.raises(HubError, match="does not answer as a model hub does") as caught:
        fetch(HubId(SMALL), heard)

    assert "HF_ENDPOINT" in caught.value.hint


@pytest.mark.parametrize("address", ["ftp://somewhere", "http://nowhere.invalid", "http://:0"])
def test_an_address_that_leads_nowhere(
    address: str, hub: FakeHub, cache: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)

    with pytest.raises(HubError) as caught:
        fetch(HubId(SMALL), heard)

    assert address in caught.value.message and "HF_ENDPOINT" in caught.value.hint


def test_an_index_that_leaves_the_folder_is_refused(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """A shard's name is a plain file name."""
    index = json.dumps({"weight_map": {"w": "../../x.safetensors"}}).encode()
    hub.repos[XL] = Repo({**xl_repo().files, "model.safetensors.index.json": index})

    with pytest.raises(HubError, match=r"which is no plain \.safetensors file"):
        fetch(HubId(XL), heard)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HTTPS_PROXY": "socks5://127.0.0.1:9"}, "proxy that the environment names"),
        ({"HTTPS_PROXY": "gopher://127.0.0.1:9"}, "proxy that the environment names"),
        ({"HF_TOKEN": "hf_größer"}, "HF_TOKEN has characters that no token has"),
        ({"HF_ENDPOINT": "http://["}, "HF_"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "soon"}, "HF_"),
    ],
)
def test_variables_that_cannot_be_used_are_named(variables: dict[str, str], words: str, tmp_path: Path) -> None:
    """In a process of its own, as the library reads some of them when it is loaded."""
    script = (
        "from braid_common.hub.fetch import fetch, HubError; from braid_common.hub.model_id import HubId\n"
        "try: fetch(HubId('a/b'), None)\n"
        "except HubError as error: print(error.message, error.hint)"
    )
    settings = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}

    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **settings, **variables}, capture_output=True, text=True
    )

    assert words in done.stdout, done.stderr
