"""A server that means harm can waste a board's time, but not its disk, memory, secrets or terminal."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from braid_common.base.t5_config import T5Config
from edge_client.agent.console import Console
from edge_client.errors import NoPlanError, RefusedError
from edge_client.host.board import Board
from edge_client.network.api import largest_adapter_bytes
from edge_client.network.errors import RequestError, Unavailable
from edge_client.network.proxy import environment_proxy
from edge_client.network.retry import MAX_RETRY_AFTER_S, Backoff
from edge_client.network.transfer import download
from edge_client.network.transport import Transport
from edge_client.plan.choose import choose
from edge_client.plan.situation import Situation
from wire.codec import CONTENT_TYPE, encode
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Refusal
from wire.run import RunInfo, TrainSettings

MIB = 1 << 20
ABSURD = TrainSettings(
    scope="all",
    learning_rate=1e300,
    batch=4096,
    micro_batch=4096,
    local_steps=100_000,
    max_source_tokens=8192,
    max_target_tokens=8192,
    sketch_batches=1024,
)
"""The largest of everything that the wire lets through."""

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies of the machine that tests."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def get_run(server: Any) -> RunInfo:
    server.devices["x"] = "credential-1"
    async with Transport(server.url, credential="credential-1") as transport:
        return await transport.call("GET", "/v1/run", RunInfo)


async def test_passwords_of_other_programs_stay_where_they_are(
    server: Any, board: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """~/.netrc is neither sent with an enrolment nor in the way of the credential."""
    (tmp_path / "netrc").write_text("default login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    sent: list[str] = []

    async def look(request: web.Request) -> None:
        sent.append(request.headers.get("Authorization", ""))

    server.faults["POST /v1/devices"], server.faults["GET /v1/run"] = [look], [look]

    async with board.client() as client:
        await client.enrol()
    await get_run(server)

    assert sent == ["", "Bearer credential-1"]


async def test_a_redirect_takes_the_credential_nowhere(server: Any) -> None:
    """It is an error that names the target; nobody is asked there."""

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{server.url}/v1/elsewhere"})

    server.faults["GET /v1/run"] = [elsewhere]

    with pytest.raises(Unavailable, match="redirects to"):
        await get_run(server)
    assert not any("elsewhere" in line for line in server.requests)


async def test_compressed_answers_are_not_unpacked(server: Any) -> None:
    """A megabyte that would become a gigabyte stays what it is: no answer that can be read."""

    async def bomb(_: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE, "Content-Encoding": "gzip"}
        return web.Response(body=gzip.compress(encode(server.run())), headers=headers)

    server.faults["GET /v1/run"] = [bomb]

    with pytest.raises(Unavailable, match="cannot be read"):
        await get_run(server)


async def test_a_download_without_end_is_cut_and_removed(server: Any, tmp_path: Path) -> None:
    """At the limit the part is dropped, with what it took on the disk."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"ETag": f'"{hashlib.sha256(b"").hexdigest()}"'})
        await response.prepare(request)
        while True:
            await response.write(bytes(64 * 1024))
            await asyncio.sleep(0)

    server.faults["GET /v1/endless"] = [endless]
    server.devices["x"] = "credential-1"

    async with Transport(server.url, credential="credential-1") as transport:
        with pytest.raises(RequestError, match="more than the 1048576 bytes"):
            await download(transport, "/v1/endless", tmp_path / "file", backoff=Backoff(attempts=1), max_bytes=MIB)

    assert not list(tmp_path.iterdir())


def test_an_adapter_may_be_as_large_as_its_ranks_make_it(server: Any) -> None:
    """The limit of a download holds every honest adapter, and not much more."""
    run = server.run()
    ranks = [4] * len(run.weights)

    honest = len(server.adapter(0, ranks))

    frozen_bytes = 4 * sum(run.server_rank * (weight.rows + weight.columns) for weight in run.weights)
    assert honest + frozen_bytes <= largest_adapter_bytes(run, ranks) <= honest + frozen_bytes + 2048 * len(ranks)


async def test_codes_for_the_terminal_are_taken_out(server: Any) -> None:
    """A refusal's sentence cannot clear the screen, move the cursor or add lines."""

    async def refuse(_: web.Request) -> web.Response:
        body = encode(Refusal(code="unauthorised", message="a\x1b[2Jb\nerror: c\x9b", hint="\r\x00d"))
        return web.Response(status=401, body=body, headers={"Content-Type": CONTENT_TYPE})

    server.faults["GET /v1/run"] = [refuse]

    with pytest.raises(RefusedError) as caught:
        await get_run(server)

    assert caught.value.message == "a?[2Jb?error: c?"
    assert caught.value.hint == "??d"


@pytest.mark.slow
async def test_the_reason_of_a_refused_update_is_cleaned_too(
    board: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in the same terminal, by another way."""
    server.refuse_updates = "too \x1b[31mlarge"
    journal_text: list[str] = []
    monkeypatch.setattr(Console, "event", lambda self, name, text="", **fields: journal_text.append(text))

    await board.join()

    assert any("too ?[31mlarge" in text for text in journal_text)


async def test_a_pause_of_years_is_not_kept(board: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board asks again after ten minutes at the latest."""
    honest = server.task

    def task() -> Any:
        monkeypatch.setattr(server, "task", honest)
        return msgspec.structs.replace(honest(), kind="wait", retry_after_s=1e300)

    monkeypatch.setattr(server, "task", task)

    await board.join()

    assert max(board.slept_s) == MAX_RETRY_AFTER_S


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", [1, 100])
def test_absurd_settings_find_no_plan(server: Any, n_layers: int) -> None:
    """The largest batch, texts and ranks that the wire allows: a sentence with the memory it would take."""
    config = {"d_model": 64, "d_kv": 16, "num_heads": 3, "d_ff": 80, "vocab_size": 100, "num_layers": n_layers}
    config |= {"model_type": "t5", "feed_forward_proj": "gated-gelu"}
    weights = t5_weights(T5Config.parse(config), "all")
    run = msgspec.structs.replace(
        server.run(),
        weights=weights,
        manifest=manifest_digest(weights),
        settings=ABSURD,
        max_rank=256,
        server_rank=256,
        values=(),
    )

    with pytest.raises(NoPlanError, match=r"GiB .* the board has 800 MiB"):
        choose(Situation(Board(800 * MIB, "as the test says", 2, "x86_64", False), run, T5Config.parse(config)))


def test_the_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scheme, and not for what no_proxy names."""
    assert environment_proxy("https://server:1") is None
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    monkeypatch.setenv("no_proxy", "near")

    assert str(environment_proxy("https://server:1")) == "http://me:secret@proxy:3128"
    assert environment_proxy("https://near:1") is None
    assert environment_proxy("http://server:1") is None
