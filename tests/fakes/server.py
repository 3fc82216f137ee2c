"""A small server that speaks the real protocol: one run, for one board."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from braid_common.base.files import base_digest, base_file_names
from braid_common.base.t5_config import T5Config
from wire.checks import basis_rank
from wire.codec import CONTENT_TYPE, decode, encode
from wire.errors import WireError
from wire.fields import Message
from wire.manifest import manifest_digest, t5_weights
from wire.messages import (
    Adapter,
    AdapterPart,
    BaseFile,
    BaseFiles,
    Enrol,
    Enrolled,
    History,
    Profile,
    Proof,
    Prove,
    Receipt,
    Refusal,
    Renew,
    Report,
    RoundSpec,
    Task,
    Tensor,
    Update,
    Version,
)
from wire.proof import certificate_proof, credential_hash, empty_history, next_history, server_proof
from wire.run import Base, RunInfo, TrainSettings

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
    ids: dict[str, str] = field(default_factory=dict)  # device → install id
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
    chosen: dict[str, Any] = field(default_factory=dict)  # lengths, once a board has told its own and asks for work
    idle_until: asyncio.Event | None = None  # long polls wait for it
    next_credentials: dict[str, str] = field(default_factory=dict)  # install id → hash
    renew: bool = False  # whether tasks ask for a renewal, until there was one
    notice: str = ""  # of tasks
    certificate: str = ""  # fingerprint of the one that the server calls its own
    base_said: str = ""  # digest of the base, where the server says another one than it has
    run_id: str = "run-1"
    versions: dict[int, str] = field(default_factory=dict)  # digests, where they are others than usual

    # --- the run -----------------------------------------------------------------------------------------------

    def run(self) -> RunInfo:
        weights = t5_weights(T5Config.parse(CONFIG), "decoder")
        ranks = [basis_rank(weight, self.max_rank) for weight in weights]
        values = tuple(tuple((rank - i) / 10 for i in range(rank)) for rank in ranks) if self.version else ()
        return RunInfo(
            protocol=1,
            run_id=self.run_id,
            state=self.state,  # type: ignore[arg-type]
            base=Base(model=str(self.base), digest=self.base_said or base_digest(self.base)),
            weights=weights,
            manifest=manifest_digest(weights),
            history=self.history(manifest_digest(weights)),
            settings=TrainSettings(**{**SETTINGS, **self.settings}),
            max_rank=self.max_rank,
            server_rank=8,
            rounds=self.rounds,
            round=self.round,
            version=self.version,
            values=values,
        )

    def history(self, manifest: str) -> str:
        value = empty_history(self.run_id, self.base_said or base_digest(self.base), manifest)
        for version in range(1, self.version + 1):
            value = next_history(value, version, self.version_digest(version))
        return value

    def version_digest(self, version: int) -> str:
        return self.versions.get(version, f"{version:064x}")

    def task(self) -> Task:
        if not self.run().settings.has_lengths:
            return Task(kind="wait", run_id=self.run_id, spec=RoundSpec(round=0, version=0))
        kind = {"profiling": "profile", "training": "train", "finished": "evaluate"}[self.state]
        if self.state == "finished" and self.version in self.evaluated:
            kind = "finished"
        return Task(
            kind=kind,  # type: ignore[arg-type]
            run_id=self.run_id,
            spec=RoundSpec(round=self.round, version=self.version, seed=7),
            staleness_limit=self.staleness_limit,
            renew=self.renew,
            notice=self.notice,
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
        app.router.add_post("/v1/proofs", self.prove)
        app.router.add_delete("/v1/device", self.leave)
        app.router.add_put("/v1/credential", self.renew_credential)
        app.router.add_get("/v1/versions", self.get_versions)
        app.router.add_get("/v1/run", self.get_run)
        app.router.add_get("/v1/work", self.work)
        app.router.add_get("/v1/adapters/{version}", self.get_adapter)
        app.router.add_route("HEAD", "/v1/uploads/{round}", self.offset)
        app.router.add_patch("/v1/uploads/{round}", self.upload)
        app.router.add_get("/v1/uploads/{round}", self.receipt, allow_head=False)
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
        if request.path not in ("/v1/devices", "/v1/proofs"):
            if self.revoked:
                return refusal(403, "revoked", "this device was revoked")
            sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
            for install_id, awaited in self.next_credentials.items():
                if awaited == credential_hash(sent):  # used for the first time: the one before ends
                    self.devices[install_id], self.next_credentials[install_id], self.renew = sent, "", False
            if sent not in self.devices.values():
                return refusal(401, "unauthorised", "this credential is not known")
        try:
            return await handler(request)
        except WireError as error:  # as an aggregator answers what is no message
            return refusal(400, "bad_request", str(error))

    async def enrol(self, request: web.Request) -> web.Response:
        message = decode(await request.read(), Enrol)
        if message.token != TOKEN:
            return refusal(401, "unauthorised", "this join token is not valid")
        self.devices[message.install_id] = f"credential-{len(self.devices)}"
        credential = self.devices[message.install_id]
        device = f"d-{len(self.devices)}"
        self.ids[device] = message.install_id
        return answer(Enrolled(device=device, credential=credential, run=self.run()))

    async def prove(self, request: web.Request) -> web.Response:
        question = decode(await request.read(), Prove)
        known = credential_hash(self.devices.get(self.ids.get(question.device, ""), "of nobody"))
        proof = server_proof(known, question.device, question.nonce)
        if not self.certificate:
            return answer(Proof(proof=proof))
        of_certificate = certificate_proof(known, question.device, question.nonce, self.certificate)
        return answer(Proof(proof=proof, certificate=of_certificate))

    async def renew_credential(self, request: web.Request) -> web.Response:
        sent = request.headers["Authorization"].removeprefix("Bearer ")
        install_id = next(known for known, credential in self.devices.items() if credential == sent)
        self.next_credentials[install_id] = decode(await request.read(), Renew).credential
        return web.Response(status=204)

    async def get_versions(self, request: web.Request) -> web.Response:
        numbers = range(int(request.query["after"]) + 1, self.version + 1)
        versions = (Version(version=number, digest=self.version_digest(number)) for number in numbers)
        return answer(History(versions=tuple(versions)[:2]))  # in parts

    async def leave(self, request: web.Request) -> web.Response:
        credential = request.headers["Authorization"].removeprefix("Bearer ")
        self.devices = {install: known for install, known in self.devices.items() if known != credential}
        return web.Response(status=204)

    async def get_run(self, _: web.Request) -> web.Response:
        return answer(self.run())

    async def work(self, _: web.Request) -> web.Response:
        if self.idle_until is not None:
            await self.idle_until.wait()
        task = self.task()
        if self.chosen and any(report.kind == "data" for report in self.reports):
            self.settings, self.chosen = {**self.settings, **self.chosen}, {}
        return answer(task)

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
        round_id = int(request.match_info["round"])
        done = (round_id, digest) in self.commits or (round_id == 0 and self.profiles > 0)
        return web.Response(
            headers={"Upload-Offset": str(len(self.parts.get(digest, b""))), "Upload-Complete": str(int(done))}
        )

    async def upload(self, request: web.Request) -> web.Response:
        round_id, digest = int(request.match_info["round"]), request.headers["Upload-Digest"]
        if (round_id, digest) in self.commits:
            return answer(Receipt(accepted=not self.refuse_updates, reason=self.refuse_updates))
        if round_id == 0 and self.profiles:
            return answer(Receipt(accepted=True))
        is_open = self.state == ("training" if round_id else "profiling")
        if not 0 <= self.round - round_id <= self.staleness_limit or not is_open:
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
        decode(bytes(part), Update if round_id else Profile)
        if round_id:
            self.commits.append((round_id, digest))
        else:
            self.profiles += 1
        if round_id == self.round:
            self._round_done()
        return web.Response(status=202)

    async def receipt(self, request: web.Request) -> web.Response:
        round_id, digest = int(request.match_info["round"]), request.headers["Upload-Digest"]
        if round_id == 0 and self.profiles:
            return answer(Receipt(accepted=True))
        if (round_id, digest) not in self.commits:
            return refusal(404, "not_found", "this upload is not here")
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
