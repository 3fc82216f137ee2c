"""A small server that speaks the real protocol, and a board that trains without torch."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from braid_common.base_files import base_digest, base_file_names
from braid_common.t5_config import T5Config
from edge_client.agent.console import Console
from edge_client.agent.enrolment import prepare_identity
from edge_client.agent.join import Client, Surroundings, open_client
from edge_client.agent.preflight import DataSummary, Preflight, Probes
from edge_client.agent.settings import JoinSettings
from edge_client.host.board import Board
from edge_client.host.matmul_speed import MatmulSpeed, matmul_key
from edge_client.network.retry import Backoff
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from edge_client.state.folder import StateFolder
from edge_client.worker.process import WorkerProcess
from wire.checks import basis_rank
from wire.codec import CONTENT_TYPE, decode, encode
from wire.manifest import manifest_digest, t5_weights
from wire.messages import (
    Adapter,
    AdapterPart,
    Base,
    BaseFile,
    BaseFiles,
    Enrol,
    Enrolled,
    Message,
    Profile,
    Receipt,
    Refusal,
    Report,
    RoundSpec,
    RunInfo,
    Task,
    Tensor,
    TrainSettings,
    Update,
)

CONFIG = {
    "model_type": "t5",
    "d_model": 64,
    "d_kv": 16,
    "num_heads": 3,
    "d_ff": 80,
    "num_layers": 1,
    "vocab_size": 100,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
TOKEN = "token-for-tests"
RANK = 4

SETTINGS = {"scope": "decoder", "learning_rate": 0.1, "batch": 2, "micro_batch": 1, "local_steps": 2}
SETTINGS |= {"max_source_tokens": 16, "max_target_tokens": 8, "sketch_batches": 1}

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@pytest.fixture(autouse=True)
def fake_matmul_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run inside the test process find a measurement: no fork, no torch. Real processes measure."""

    def measure(threads: int = 0) -> MatmulSpeed:
        return MatmulSpeed(
            key=matmul_key(threads) or "no torch",
            device="cpu",
            device_name="a processor",
            device_memory_bytes=0,
            bf16_gflops=5.0,
            fp32_gflops=20.0,
            threads=threads,
            torch="0.0",
        )

    monkeypatch.setattr("edge_client.state.matmul_speed_file.measure_matmul_speed", measure)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's files; their content matters to nobody here."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(range(256)) * 4096)
    return folder


def _empty(rows: int, columns: int) -> Tensor:
    return Tensor(dtype="fp32", shape=(rows, columns), data=bytes(4 * rows * columns))


@dataclass
class FakeServer:
    """One run from profiling to the end, for one board. What must not happen twice is counted."""

    base: Path
    rounds: int = 2
    url: str = ""
    state: str = "profiling"
    version: int = 0
    round: int = 0
    devices: dict[str, str] = field(default_factory=dict)  # install id → credential
    revoked: bool = False
    commits: list[tuple[int, str]] = field(default_factory=list)  # (round, digest)
    profiles: int = 0
    parts: dict[str, bytearray] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    evaluated: set[int] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)  # "METHOD /path/" → faults, each used once
    fired: list[str] = field(default_factory=list)
    refuse_updates: str = ""
    staleness_limit: int = 0  # rounds by which an update may be late and is taken
    max_rank: int = RANK
    settings: dict[str, Any] = field(default_factory=dict)  # of the run, where they differ
    idle_until: asyncio.Event | None = None  # long polls wait for it

    # --- the run -----------------------------------------------------------------------------------------------

    def run(self) -> RunInfo:
        weights = t5_weights(T5Config.parse(CONFIG), "decoder")
        ranks = [basis_rank(weight, self.max_rank) for weight in weights]
        values = tuple(tuple((rank - i) / 10 for i in range(rank)) for rank in ranks) if self.version else ()
        return RunInfo(
            protocol=1,
            run_id="run-1",
            state=self.state,  # type: ignore[arg-type]
            base=Base(model=str(self.base), digest=base_digest(self.base)),
            weights=weights,
            manifest=manifest_digest(weights),
            settings=TrainSettings(**{**SETTINGS, **self.settings}),
            max_rank=self.max_rank,
            server_rank=8,
            rounds=self.rounds,
            round=self.round,
            version=self.version,
            values=values,
        )

    def task(self) -> Task:
        kind = {"profiling": "profile", "training": "train", "finished": "evaluate"}[self.state]
        if self.state == "finished" and self.version in self.evaluated:
            kind = "finished"
        return Task(
            kind=kind,  # type: ignore[arg-type]
            run_id="run-1",
            spec=RoundSpec(round=self.round, version=self.version, seed=7),
            staleness_limit=self.staleness_limit,
        )

    def adapter(self, version: int, ranks: list[int]) -> bytes:
        parts = tuple(
            AdapterPart(
                name=weight.name,
                frozen_b=_empty(weight.rows, 0),
                frozen_a=_empty(0, weight.columns),
                basis=_empty(rank, weight.columns),
            )
            for weight, rank in zip(self.run().weights, ranks, strict=True)
        )
        run = self.run()
        return encode(Adapter(protocol=1, run_id=run.run_id, version=version, manifest=run.manifest, parts=parts))

    def _round_done(self) -> None:
        self.version += 1
        if self.state == "training" and self.round == self.rounds:
            self.state = "finished"
        else:
            self.state, self.round = "training", self.round + 1

    # --- the calls ---------------------------------------------------------------------------------------------

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._middleware], client_max_size=1 << 26)
        app.router.add_post("/v1/devices", self.enrol)
        app.router.add_get("/v1/run", self.get_run)
        app.router.add_get("/v1/work", self.work)
        app.router.add_post("/v1/profiles", self.profile)
        app.router.add_get("/v1/adapters/{version}", self.get_adapter)
        app.router.add_route("HEAD", "/v1/uploads/{round}", self.offset)
        app.router.add_patch("/v1/uploads/{round}", self.upload)
        app.router.add_post("/v1/reports", self.report)
        app.router.add_get("/v1/base", self.base_files)
        app.router.add_get("/v1/base/{file}", self.base_file)
        return app

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        line = f"{request.method} {request.path_qs}"
        self.requests.append(line)
        for point, faults in self.faults.items():
            if line.startswith(point) and faults:
                fault = faults.pop(0)
                self.fired.append(line)
                answer = await fault(request)
                if answer is not None:
                    return answer
        if request.path != "/v1/devices":
            if self.revoked:
                return refusal(403, "revoked", "this device was revoked")
            known = [f"Bearer {credential}" for credential in self.devices.values()]
            if request.headers.get("Authorization") not in known:
                return refusal(401, "unauthorised", "this credential is not known")
        return await handler(request)

    async def enrol(self, request: web.Request) -> web.Response:
        message = decode(await request.read(), Enrol)
        if message.token != TOKEN:
            return refusal(401, "unauthorised", "this join token is not valid")
        self.devices[message.install_id] = f"credential-{len(self.devices)}"
        credential = self.devices[message.install_id]
        return answer(Enrolled(device=f"d-{len(self.devices)}", credential=credential, run=self.run()))

    async def get_run(self, _: web.Request) -> web.Response:
        return answer(self.run())

    async def work(self, _: web.Request) -> web.Response:
        if self.idle_until is not None:
            await self.idle_until.wait()
        return answer(self.task())

    async def profile(self, request: web.Request) -> web.Response:
        decode(await request.read(), Profile)
        if self.state == "profiling":
            self.profiles += 1
            self._round_done()
        return answer(Receipt(accepted=True))

    async def get_adapter(self, request: web.Request) -> web.StreamResponse:
        ranks = [int(rank) for rank in request.query["ranks"].split(".")]
        return ranged(request, self.adapter(int(request.match_info["version"]), ranks))

    async def base_files(self, _: web.Request) -> web.Response:
        names = base_file_names(self.base)
        files = (BaseFile(name=name, size_bytes=(self.base / name).stat().st_size) for name in names)
        return answer(BaseFiles(files=tuple(files)))

    async def base_file(self, request: web.Request) -> web.StreamResponse:
        return ranged(request, (self.base / request.match_info["file"]).read_bytes())

    async def offset(self, request: web.Request) -> web.Response:
        digest = request.headers["Upload-Digest"]
        done = (int(request.match_info["round"]), digest) in self.commits
        return web.Response(
            headers={"Upload-Offset": str(len(self.parts.get(digest, b""))), "Upload-Complete": str(int(done))}
        )

    async def upload(self, request: web.Request) -> web.Response:
        round_id, digest = int(request.match_info["round"]), request.headers["Upload-Digest"]
        if (round_id, digest) in self.commits:
            return answer(Receipt(accepted=not self.refuse_updates, reason=self.refuse_updates))
        if not 0 <= self.round - round_id <= self.staleness_limit or self.state != "training":
            return refusal(410, "gone", f"round {round_id} is over")
        if any(known == round_id for known, _ in self.commits):
            return refusal(409, "conflict", "another update is here")
        part = self.parts.setdefault(digest, bytearray())
        if int(request.headers["Upload-Offset"]) != len(part):
            return refusal(409, "conflict", "wrong offset", {"Upload-Offset": str(len(part))})
        async for chunk in request.content.iter_any():
            part += chunk
        assert len(part) == int(request.headers["Upload-Length"])
        assert hashlib.sha256(part).hexdigest() == digest
        decode(bytes(part), Update)
        self.commits.append((round_id, digest))
        if round_id == self.round:
            self._round_done()
        return answer(Receipt(accepted=not self.refuse_updates, reason=self.refuse_updates))

    async def report(self, request: web.Request) -> web.Response:
        report = decode(await request.read(), Report)
        self.reports.append(report)
        if report.kind == "evaluation":
            self.evaluated.add(report.version)
        return web.Response(status=204)


def answer(message: Message) -> web.Response:
    return web.Response(body=encode(message), headers={"Content-Type": CONTENT_TYPE})


def refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = encode(Refusal(code=code, message=message))  # type: ignore[arg-type]
    return web.Response(status=status, body=body, headers={"Content-Type": CONTENT_TYPE, **(headers or {})})


def ranged(request: web.Request, data: bytes) -> web.Response:
    """`data`, or the part of it that was asked for, under the ETag of the whole."""
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"ETag": etag, "Content-Type": "application/octet-stream"}
    wanted = request.headers.get("Range", "")
    if wanted and request.headers.get("If-Range") == etag:
        first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(data):
            return refusal(416, "bad_request", "nothing is left")
        return web.Response(status=206, body=data[first:], headers=headers)
    return web.Response(body=data, headers=headers)


@pytest.fixture
async def server(base_folder: Path) -> AsyncIterator[FakeServer]:
    """A running FakeServer."""
    fake = FakeServer(base_folder)
    async with TestServer(fake.app()) as running:
        fake.url = str(running.make_url("")).rstrip("/")
        yield fake


@dataclass
class FakeBoard:
    """Builds clients on one state folder, as restarts of one board do."""

    server: FakeServer
    folder: Path
    slept_s: list[float] = field(default_factory=list)
    output: io.StringIO = field(default_factory=io.StringIO)
    worker_flags: tuple[str, ...] = ()
    watch_every_s: float = 15.0
    summary: DataSummary = field(default_factory=lambda: DataSummary(10, 2, 0, ""))
    cache_bytes: int = 1 << 20
    memory_bytes: int = 2 << 30  # at the start
    memory_left_bytes: int = 2 << 30  # when it ran short
    limits: RoundLimits = NO_LIMITS

    def settings(self, **changes: Any) -> JoinSettings:
        values: dict[str, Any] = {
            "server": self.server.url,
            "token": TOKEN,
            "fingerprint": "",
            "data": "data.jsonl",
            "model": "",
            "memory": "",
            "state": self.folder,
            "name": "board-1",
            "wait": False,
            "threads": 1,
        }
        return JoinSettings(**{**values, **changes})

    def probes(self) -> Probes:
        """A preflight's looks at this board, without data, packages and a child process."""
        return Probes(packages=lambda: None, fork=lambda call, kind: self.summary)  # type: ignore[arg-type]

    def backoff(self, **arguments: Any) -> Backoff:
        async def sleep(delay_s: float) -> None:
            self.slept_s.append(delay_s)
            await asyncio.sleep(0)

        return Backoff(**arguments, sleep=sleep)

    def worker(self) -> WorkerProcess:
        script = Path(__file__).parents[1] / "fakes" / "worker.py"
        return WorkerProcess([sys.executable, str(script), *self.worker_flags])

    @asynccontextmanager
    async def client(self, **changes: Any) -> AsyncIterator[Client]:
        settings = self.settings(**changes)
        state = StateFolder(self.folder)
        state.lock()
        try:
            board = Board(self.memory_bytes, "as the test says", 2, "x86_64", False)
            identity = prepare_identity(state, settings)
            checked = Preflight(board, self.summary, state, identity, self.cache_bytes, self.limits)
            surroundings = Surroundings(
                new_backoff=self.backoff,
                sleep=self._short_sleep,
                watch_every_s=self.watch_every_s,
                measure=lambda: Board(self.memory_left_bytes, "as is left", 2, "x86_64", False),
            )
            console = Console(as_json=True, stream=self.output)
            async with open_client(settings, checked, console, self.worker(), surroundings) as client:
                yield client
        finally:
            state.unlock()

    async def join(self, **changes: Any) -> None:
        """One client from start to end."""
        async with self.client(**changes) as client:
            await client.run_to_end()

    async def _short_sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await asyncio.sleep(0)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of one kind that the console printed."""
        lines = [json.loads(line) for line in self.output.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]


@pytest.fixture
def board(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    """A board with an empty state folder; its worker finds this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return FakeBoard(server, tmp_path / "state")
