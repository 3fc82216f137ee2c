"""A real server on a real folder with a tiny base, and boards that are scripts instead of models."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from aggregator.http.app import make_app
from aggregator.run.setup import Opened, open_run
from aggregator.store.folder import Folder
from aggregator.store.secrets import new_secret, secret_hash
from tests.fakes.clock import FakeClock
from wire.checks import basis_rank
from wire.codec import CONTENT_TYPE, decode, encode
from wire.fields import Dtype, Message
from wire.limits import PROTOCOL_VERSION
from wire.messages import (
    Adapter,
    Enrol,
    Enrolled,
    NamedTensor,
    Profile,
    Receipt,
    Refusal,
    Report,
    Task,
    Update,
    UpdatePart,
)
from wire.run import RunInfo
from wire.tensors import pack
from wire.text_lengths import PERCENTS, TextLengths

M = TypeVar("M", bound=Message)


@dataclass
class Server:
    """A running application on a port of its own."""

    opened: Opened
    client: TestClient[web.Request, web.Application]
    operator: str
    token: str

    @property
    def run(self) -> Any:
        return self.opened.run

    async def board(self, name: str, install: int = 0) -> FakeBoard:
        """Enrol a board."""
        install_id = f"{install or abs(hash(name)):032x}"[-32:]
        message = Enrol(
            protocol=PROTOCOL_VERSION, token=self.token, install_id=install_id, name=name, client_version="test"
        )
        enrolled = await self.post("/v1/devices", message, Enrolled)
        return FakeBoard(self, enrolled.device, enrolled.credential, enrolled.run, seed=len(name))

    async def post(self, path: str, message: Message, answer: type[M]) -> M:
        async with self.client.post(path, data=encode(message), headers={"Content-Type": CONTENT_TYPE}) as response:
            body = await response.read()
            assert response.status == 200, decode(body, Refusal)
            return decode(body, answer)

    async def status(self) -> dict[str, Any]:
        async with self.client.get("/v1/status", headers={"Authorization": f"Bearer {self.operator}"}) as response:
            assert response.status == 200
            facts: dict[str, Any] = await response.json()
            return facts


@dataclass
class FakeBoard:
    """A board that sends random numbers instead of training."""

    server: Server
    device: str
    credential: str
    info: RunInfo
    seed: int = 0
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"Authorization": f"Bearer {self.credential}", "Content-Type": CONTENT_TYPE}

    @property
    def client(self) -> TestClient[web.Request, web.Application]:
        return self.server.client

    async def get(self, path: str, answer: type[M], **params: str) -> M:
        async with self.client.get(path, headers=self.headers, params=params) as response:
            body = await response.read()
            assert response.status == 200, decode(body, Refusal)
            return decode(body, answer)

    async def work(self, wait_s: float = 30.0, after: int = -1) -> Task:
        return await self.get("/v1/work", Task, wait=f"{wait_s:g}", after=str(after))

    async def adapter(self, version: int, rank: int) -> Adapter:
        ranks = ".".join(str(min(rank, basis_rank(w, self.info.max_rank))) for w in self.info.weights)
        return await self.get(f"/v1/adapters/{version}", Adapter, ranks=ranks)

    def profile(self, n_examples: int = 10, scores: Sequence[float] | None = None) -> bytes:
        """Random sketches, and where the run wants scores `scores` or the same for all weights."""
        if scores is None:
            scores = () if self.info.settings.importance == "sketch" else (1.0,) * len(self.info.weights)
        rng = np.random.default_rng([7, self.seed])
        sketches = tuple(
            NamedTensor(name=w.name, tensor=_random(rng, basis_rank(w, self.info.max_rank), w.columns))
            for w in self.info.weights
        )
        run = self.info
        return encode(
            Profile(
                protocol=1,
                run_id=run.run_id,
                manifest=run.manifest,
                n_examples=n_examples,
                sketches=sketches,
                scores=tuple(scores),
            )
        )

    def update(
        self, task: Task, *, rank: int = 2, scale: float = 0.01, n_examples: int = 10, rename: str = ""
    ) -> bytes:
        """A round's update with random B; `rename` puts another name on its first weight."""
        rng = np.random.default_rng([self.seed, task.spec.round])
        run = self.info
        parts = [
            UpdatePart(
                name=w.name,
                b=_random(rng, w.rows, rank, scale),
                sketch=_random(rng, basis_rank(w, run.max_rank), w.columns) if task.spec.sketch else None,
            )
            for w in run.weights
        ]
        if rename:
            parts[0] = UpdatePart(name=rename, b=parts[0].b, sketch=parts[0].sketch)
        return encode(
            Update(
                protocol=1,
                run_id=run.run_id,
                round=task.spec.round,
                version=task.spec.version,
                version_digest=task.spec.version_digest,
                manifest=run.manifest,
                n_examples=n_examples,
                parts=tuple(parts),
            )
        )

    async def send_profile(self, body: bytes | None = None) -> tuple[int, Receipt | Refusal]:
        status, answer, _ = await self.upload(0, self.profile() if body is None else body)
        return status, answer

    async def upload(
        self, round_id: int, body: bytes, *, offset: int = 0, stop: int | None = None, digest: str = ""
    ) -> tuple[int, Receipt | Refusal, str]:
        """PATCH `body[offset:stop]`, and wait for the judgement; status, answer and the Upload-Offset of the last
        call."""
        status, answer, reached = await self.patch(round_id, body, offset=offset, stop=stop, digest=digest)
        if status != 202:
            return status, answer, reached
        headers = {**self.headers, "Upload-Digest": digest or hashlib.sha256(body).hexdigest()}
        async with self.client.get(f"/v1/uploads/{round_id}?wait=30", headers=headers) as response:
            return response.status, _decoded(response.status, await response.read()), ""

    async def patch(
        self, round_id: int, body: bytes, *, offset: int = 0, stop: int | None = None, digest: str = ""
    ) -> tuple[int, Any, str]:
        """PATCH `body[offset:stop]`; status, answer and the Upload-Offset that came with it."""
        headers = {
            **self.headers,
            "Upload-Digest": digest or hashlib.sha256(body).hexdigest(),
            "Upload-Length": str(len(body)),
            "Upload-Offset": str(offset),
        }
        async with self.client.patch(f"/v1/uploads/{round_id}", data=body[offset:stop], headers=headers) as response:
            data = await response.read()
            answer = None if response.status == 202 else _decoded(response.status, data)
            return response.status, answer, response.headers.get("Upload-Offset", "")

    async def report(self, report: Report) -> int:
        async with self.client.post("/v1/reports", data=encode(report), headers=self.headers) as response:
            return response.status

    async def tell_lengths(self, source: int, target: int, n_examples: int = 10) -> int:
        """Report that all of the board's texts have these lengths, under the limits that it knows of."""
        form = self.info.settings.text_form
        lengths = TextLengths(
            n_examples=n_examples,
            n_measured=n_examples,
            source_tokens=(source,) * len(PERCENTS),
            target_tokens=(target,) * len(PERCENTS),
            max_source_tokens=form.max_source_tokens,
            max_target_tokens=form.max_target_tokens,
            sources_cut=float(source > form.max_source_tokens),
            targets_cut=float(target > form.max_target_tokens),
        )
        return await self.report(Report(kind="data", values=lengths.values()))

    async def train(self, task: Task, **options: Any) -> Receipt:
        """Carry a task out, as a board does."""
        status, answer, _ = await self.upload(task.spec.round, self.update(task, **options))
        assert status == 200 and isinstance(answer, Receipt), answer
        return answer


def _decoded(status: int, body: bytes) -> Receipt | Refusal:
    return decode(body, Receipt) if status == 200 else decode(body, Refusal)


def _random(rng: np.random.Generator, rows: int, columns: int, scale: float = 1.0, dtype: Dtype = "fp32") -> Any:
    return pack((scale * rng.standard_normal((rows, columns))).astype(np.float32), dtype)


@pytest.fixture
async def start(clock: FakeClock) -> AsyncIterator[Callable[..., Any]]:
    """Start a server on a folder; several may run one after another (restarts). All end with the test."""
    running: list[Server] = []

    async def begin(folder: Folder, wall_clock: Callable[[], float] = time.time) -> Server:
        opened = open_run(folder, clock, wall_clock)
        operator = folder.secret(folder.operator_token)
        app = make_app(opened, secret_hash(operator))
        listening = TestServer(app)
        await listening.start_server(auto_decompress=False)  # as `serve` does
        client = TestClient(listening)
        token = new_secret()
        opened.store.add_token(secret_hash(token), "of the tests", uses=100)
        server = Server(opened, client, operator, token)
        running.append(server)
        return server

    async def end(server: Server) -> None:
        await server.client.close()
        server.opened.store.close()

    begin.stop = end  # type: ignore[attr-defined]
    yield begin
    for server in running:
        await end(server)


@pytest.fixture
def stop(start: Any) -> Callable[[Server], Any]:
    """End a server as SIGTERM would."""
    return start.stop  # type: ignore[no-any-return]


@pytest.fixture
def begin_training() -> Callable[..., Any]:
    """Bring boards through profiling; return their first tasks."""

    async def begin(boards: list[FakeBoard]) -> list[Task]:
        for board in boards:
            assert (await board.work()).kind == "profile"
            status, answer = await board.send_profile()
            assert status == 200 and isinstance(answer, Receipt) and answer.accepted, answer
        return [await board.work() for board in boards]

    return begin
