"""Events of a board's life, told to the terminal, the status file and the server's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from braid_common.loopback import is_plain_to_others
from braid_common.metrics import metric
from braid_common.units import printable, show_size
from edge_client.agent.console import Console
from edge_client.agent.length_words import cut_warnings, lengths_words
from edge_client.agent.reports import Reports
from edge_client.errors import ClientError
from edge_client.jobs.messages import Plan, Progress
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.network.transport import Traffic
from edge_client.state.folder import Identity
from edge_client.state.status import StatusFile
from wire.messages import Receipt, Task
from wire.run import RunInfo
from wire.text_lengths import TextLengths

HEAVY_IMPORTS = 1.5
"""Times what a build for processors takes when it is imported: beyond that another build was installed, as for CUDA."""

_SCORES = ("loss", "rouge1", "rouge2", "rougeL")
_OWN_LOSSES = {metric("personal", "loss"): "with strands of its own", metric("alone", "loss"): "on its own"}

_LOST: Mapping[str, str] = MappingProxyType(
    {
        "residual_lost": (
            "what quantisation dropped of the last update cannot be read, or is of another run: it is left out"
        ),
        "personal_lost": "the local strands cannot be read: they begin anew",
        "training_lost": "the saved training is damaged, or of another text: the round was begun again",
    }
)
"""What is said of a job, by the worker's number for it."""


class Events:
    """Tells each event to everybody who wants to know. `traffic` is the transport's counter."""

    def __init__(self, console: Console, status: StatusFile, reports: Reports, traffic: Traffic) -> None:
        self.console = console
        self._status, self._reports, self._traffic = status, reports, traffic
        self._plan: Plan | None = None
        self._unsaved = self._left_out = self._phase_before = ""
        self.rounds_done = 0

    def phase(self, phase: str, task: Task) -> None:
        """A new phase of a task has begun."""
        self._status.update(
            at_once=True, phase=phase, round=task.spec.round, version=task.spec.version, step=0, steps=0
        )
        self.console.event("phase", phase=phase, round=task.spec.round, version=task.spec.version)

    def enrolled(self, identity: Identity, run: RunInfo) -> None:
        """The server has taken this board in."""
        self.console.event(
            "enrolled",
            f"enrolled at {identity.server} as {identity.device}: run {run.run_id}, base {run.base.model}, "
            f"{run.rounds} rounds",
            device=identity.device,
            run_id=run.run_id,
            server=identity.server,
        )

    def calling(self, server: str) -> None:
        """The board is about to call a server: others can read along where that is in plain HTTP."""
        if is_plain_to_others(server):
            self.console.notice(
                f"{server} is plain HTTP: everybody on the way can read this board's credential and what it sends",
                "use the server's https:// address; `aggregator serve` has TLS by itself",
            )

    def followed(self, before: Identity, after: Identity) -> None:
        """The server was found again at another address, or under another certificate."""
        if after.server != before.server:
            change = f"is at {after.server} now, it was at {before.server}"
        else:
            change = "has another certificate now"
        self.console.notice(f"this board's server {change}: it knows {after.device}, which goes on there")

    async def other_history(self, run: RunInfo, text: str) -> None:
        """The run's versions are not those that this board knew; the server is told as well."""
        self.console.notice(text, "the board goes on with what the server says")
        await self._reports.event(run.round, text, {})

    def checking(self, identity: Identity, run: RunInfo) -> None:
        """The board knows its run, and checks its base."""
        self._status.update(
            at_once=True, device=identity.device, run_id=run.run_id, rounds=run.rounds, online=True, phase="checking"
        )

    def measuring(self, run: RunInfo) -> None:
        """The board looks how long its texts are."""
        self._status.update(at_once=True, phase="measure", round=run.round, version=run.version, step=0, steps=0)
        self.console.event("phase", phase="measure", round=run.round, version=run.version)

    async def text_lengths(self, lengths: TextLengths, run: RunInfo) -> None:
        """How long the board's texts are; what the run's lengths cut of them is warned of, once they are known."""
        self.console.event("text_lengths", lengths_words(lengths), **lengths.values())
        if run.settings.has_lengths:
            for message, hint in cut_warnings(lengths, run.settings.truncate_source):
                self.console.notice(message, hint)
        await self._reports.text_lengths(run.round, lengths)

    def waiting_for_lengths(self, run: RunInfo) -> None:
        """The server chooses lengths by what the first boards tell."""
        self._status.update(at_once=True, phase="wait")
        self.console.event(
            "waiting",
            "waiting for the server to choose how long texts may be, by those of the first boards",
            round=run.round,
            version=run.version,
        )

    def own_strands(self, task: Task, values: Mapping[str, float]) -> None:
        """The board's own strands have taken their steps."""
        loss, mix = values.get("personal_loss"), values.get("mix")
        parts = [] if loss is None else [f"held-out loss {loss:.3f}"]
        parts += [] if mix is None else [f"local share {mix:.2f}"]
        self.console.event(
            "own_strands", f"local strands: {', '.join(parts) or 'trained'}", round=task.spec.round, **values
        )
        self.lost(values)

    def lost(self, values: Mapping[str, float]) -> None:
        """Some of what the board keeps could not be read for a job, if its numbers say so."""
        for name, sentence in _LOST.items():
            if name in values:
                self.console.notice(sentence)

    def waiting(self, task: Task) -> None:
        """There is nothing to do; said once."""
        if self._status.status.phase != "wait":
            self.phase("wait", task)
            self.console.event("waiting", "waiting for work", round=task.spec.round, version=task.spec.version)

    def finished(self, task: Task) -> None:
        """The run is over."""
        self._status.update(
            at_once=True, phase="finished", round=task.spec.round, version=task.spec.version, **self.traffic()
        )
        traffic = self.traffic()
        self.console.event(
            "finished",
            f"run finished: {self.rounds_done} updates of this board accepted since it was started, {_sums(traffic)}",
            rounds_done=self.rounds_done,
            **traffic,
        )

    def paused(self, why: str, *, aloud: bool) -> None:
        """The board may not train now. Told here and, beside the work, to the server."""
        status = self._status.status
        if status.phase != "pause":  # else another reason has come
            self._phase_before = status.phase
        self._status.update(at_once=True, phase="pause", waits=why)
        if aloud:
            self.console.event("paused", f"training pauses: {why}", round=status.round, message=why)
            self._reports.note(status.round, f"its training pauses: {why}")

    def unpaused(self, *, aloud: bool) -> None:
        """The board may train again."""
        status = self._status.status
        self._status.update(at_once=True, phase=self._phase_before, waits="")
        if aloud:
            self.console.event("unpaused", "training goes on", round=status.round)
            self._reports.note(status.round, "its training goes on")

    def slowed(self, reasons: str) -> None:
        """The board is slowed down, by heat or by its supply; the server is told as well, which waits for it."""
        self.console.notice(f"this board is slowed down: {reasons}", "`edge-client doctor` shows clocks and heat")
        self._reports.note(self._status.status.round, f"it is slowed down: {reasons}")

    async def plan(self, round_id: int, plan: Plan, explain: Callable[[], Sequence[str]]) -> None:
        """The plan of a round: its explanation in full the first time, one line when the plan changes. It is made where
        it is shown alone: it takes longer than a plan."""
        before, self._plan = self._plan, plan
        if plan == before:
            return
        numbers = plan_numbers(plan)
        shown: dict[str, Any] = {name: numbers[name] for name in ("ranks_total", "max_rank", "predicted_peak_bytes")}
        self._status.update(format=plan.mode.format, **shown)
        why = explain()
        text = "\n".join(why if before is None else why[:1]) or f"plan: {plan_words(plan)}"
        self.console.event("plan", text, round=round_id, **_shown(plan))
        await self._reports.plan(round_id, plan.mode.format, plan.mode.compute, numbers)

    def probed(self, task: Task, plan: Plan, values: Mapping[str, float]) -> None:
        """A step of a plan was tried, and measured; what torch alone takes is told where that is the trouble."""
        peak_bytes, step_s = int(values["peak_bytes"]), values["step_s"]
        imports_bytes = int(values.get("imports_bytes", 0))
        text = (
            f"probe: {plan_words(plan)}: {show_size(peak_bytes)} measured, "
            f"{show_size(plan.expected_peak_bytes)} predicted, {step_s:.2f} s a step"
        )
        if peak_bytes > plan.budget_bytes:
            text += f"\n  → more than the {show_size(plan.budget_bytes)} there are: it is not trained in this way"
        if imports_bytes > HEAVY_IMPORTS * IMPORTS_BYTES:
            text += (
                f"\n  → importing torch and its libraries takes {show_size(imports_bytes)} of that, a build for "
                f"processors {show_size(IMPORTS_BYTES)}: `edge-client doctor` and deploy/install-board.sh know which "
                "build is for this board"
            )
        self.console.event(
            "probe",
            text,
            round=task.spec.round,
            **msgspec.structs.asdict(plan.mode),
            predicted_peak_bytes=plan.expected_peak_bytes,
            peak_bytes=peak_bytes,
            imports_bytes=imports_bytes,
            budget_bytes=plan.budget_bytes,
            step_s=step_s,
        )

    async def backed_off(self, task: Task, plan: Plan) -> None:
        """A task that was begun goes on in a leaner way; the server is told as well."""
        text = f"memory ran short: goes on with {plan_words(plan)}"
        self.console.event("backed_off", text, round=task.spec.round, message=text, **_shown(plan))
        await self._reports.event(task.spec.round, text, plan_numbers(plan))

    async def obstacle(self, round_id: int, error: ClientError, sentence: str) -> None:
        """Something on this board is in the way; the server hears a `sentence` of ours, not the error's words."""
        self._status.update(at_once=True, phase="obstacle")
        self.console.notice(f"{error.message}; trying again until that is mended", error.hint)
        await self._reports.event(round_id, sentence, {})

    async def obstacle_passed(self, round_id: int) -> None:
        """It is out of the way."""
        self.console.notice("what was in the way is mended: the work goes on")
        await self._reports.event(round_id, "what was in its way is mended: it goes on", {})

    def progress(self, task: Task, progress: Progress) -> None:
        """How far the worker is."""
        place: dict[str, Any] = {
            "phase": progress.phase,
            "round": task.spec.round,
            "step": progress.step,
            "steps": progress.steps,
        }
        speed = {"tokens_per_s": progress.tokens_per_s, "peak_bytes": progress.peak_bytes}
        shown: dict[str, Any] = {**speed, **self.traffic()}
        self.console.progress(**place, loss=progress.loss, **shown)
        # While nothing is trained (load, encode) there is no loss: the last one stays in the status.
        loss: dict[str, Any] = {"loss": progress.loss} if progress.loss else {}
        self._status.update(**place, **loss, **shown)
        self._reports.progress(task.spec.round, task.spec.version, progress, self.traffic())
        if progress.unsaved and not self._unsaved:
            self.console.notice(f"{progress.unsaved}; training goes on, what it does is not saved meanwhile")
            self._reports.note(task.spec.round, "its disk takes nothing: it trains on without saving")
        self._unsaved = progress.unsaved
        if progress.left_out and progress.left_out != self._left_out:
            self.console.notice(progress.left_out)
        self._left_out = progress.left_out

    def answered(self, task: Task, receipt: Receipt, values: Mapping[str, float]) -> None:
        """The server's verdict on an upload. A refusal is no error: the run goes on without this part."""
        self.rounds_done += receipt.accepted and task.kind == "train"
        traffic = self.traffic()
        self._status.update(at_once=True, rounds_done=self.rounds_done, **traffic)
        what = "profile" if task.kind == "profile" else f"round {task.spec.round}"
        verdict = "accepted" if receipt.accepted else f"refused by the server: {printable(receipt.reason)}"
        learnt = [f", {name} {values[name]:.3f}" for name in ("loss", "reward", "kl") if name in values]
        self.console.event(
            "round_done",
            f"{what}: {verdict}{''.join(learnt)}; {_sums(traffic)}",
            kind=task.kind,
            round=task.spec.round,
            version=task.spec.version,
            accepted=receipt.accepted,
            reason=receipt.reason,
            **values,
            **traffic,
        )

    async def evaluation(self, task: Task, values: Mapping[str, float]) -> None:
        """A version was scored on this board's held-out text."""
        scores = " ".join(f"{name} {values[name]:.3f}" for name in _SCORES if name in values)
        for name, words in _OWN_LOSSES.items():
            scores += f"; {words} loss {values[name]:.3f}" if name in values else ""
        self.console.event(
            "evaluation",
            f"version {task.spec.version} on this board's held-out text: {scores}",
            round=task.spec.round,
            version=task.spec.version,
            **values,
        )
        await self._reports.evaluation(task.spec.round, task.spec.version, values)

    def traffic(self) -> dict[str, int]:
        """Bytes that were sent and received since the client started."""
        return {"bytes_up": self._traffic.up_bytes, "bytes_down": self._traffic.down_bytes}


def _sums(traffic: Mapping[str, int]) -> str:
    return f"{show_size(traffic['bytes_up'])} up and {show_size(traffic['bytes_down'])} down so far"


def plan_words(plan: Plan) -> str:
    """A plan in one line for people."""
    mode = plan.mode
    parts = [f"{mode.format} base", f"{mode.compute} arithmetic", f"{mode.micro_batch} examples at a time"]
    parts += [f"{sum(plan.ranks)} strands", *["checkpointing"] * mode.checkpointing]
    parts += [f"{mode.cache} cache"] * (mode.cache != "none") + ["the encoder left as it is"] * mode.frozen_encoder
    return ", ".join(parts)


def _shown(plan: Plan) -> dict[str, Any]:
    """A plan's mode and numbers."""
    return msgspec.structs.asdict(plan.mode) | plan_numbers(plan)


def plan_numbers(plan: Plan) -> dict[str, int]:
    """The numbers of a plan, without those that are one per weight."""
    return {
        "micro_batch": plan.mode.micro_batch,
        "ranks_total": sum(plan.ranks),
        "max_rank": max(plan.ranks, default=0),
        "weights": sum(rank > 0 for rank in plan.ranks),
        "predicted_peak_bytes": plan.whole_peak_bytes,
        "budget_bytes": plan.budget_bytes,
    }
