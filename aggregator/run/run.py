"""The orchestrator: holds the run's state, rebuilds it from the store, and obeys what `aggregator.run.schedule`
decides.

One writer: everything that changes the store or the sums happens under one lock, in the order blob, row, sums, reply.
Reading needs no lock: what is read is immutable and replaced whole.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from aggregator.downloads.adapters import Adapters
from aggregator.errors import CallError
from aggregator.merge.rules import Total
from aggregator.merge.state import AdapterState, strand_values
from aggregator.run.broadcast import Bell, happened
from aggregator.run.commit import Ledger, MergeFailedError
from aggregator.run.long_polls import Polls
from aggregator.run.open_round import Collection, begin_round
from aggregator.run.restore import rebuild, rebuild_boards
from aggregator.run.round_spec import PROFILING
from aggregator.run.schedule import (
    AbandonRound,
    Action,
    BeginTraining,
    CloseRound,
    Extend,
    OpenRound,
    Phase,
    Rules,
    View,
    decide,
)
from aggregator.run.screen import Sizes
from aggregator.run.suspects import doubted
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.disk import Disk
from aggregator.store.records import Answer, Counts, Device, Round, StoredReport
from aggregator.store.slices import Cut
from aggregator.store.uploads import Part
from braid_common.units import printable
from wire.limits import PROTOCOL_VERSION
from wire.messages import Base, Receipt, Report, RoundSpec, RunInfo, Task
from wire.rounds import RoundEvent, RunEvent, RunState, advance
from wire.routes import Held

MAX_EVENTS = 200
"""Events kept for the status page."""

MAX_SLEEP_S = 30.0
"""The schedule is asked at least this often, so that a machine that was suspended does not sleep past a deadline."""

log = logging.getLogger("aggregator")


class Run:
    """One run from profiling to the end.

    Args:
        config: run.toml.
        terms: run id, manifest, ranks and merge rule.
        disk: the folder's parts; this object is their only writer.
        clock: monotonic seconds; every decision is made by it.

    Raises StateError where the folder is damaged.
    """

    def __init__(
        self, config: RunConfig, terms: Terms, disk: Disk, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self.terms = terms
        self.clock = clock
        self.events: deque[str] = deque(maxlen=MAX_EVENTS)
        self._disk = disk
        self._writing = asyncio.Lock()
        self._changed = Bell()  # something happened that the schedule should look at
        self.polls = Polls(self.task, config.liveness_s / 2)
        self._adapters = Adapters(terms, disk)
        self._ledger = Ledger(config, terms, disk, clock)
        self._restore()

    def _restore(self) -> None:
        store, now = self._disk.store, self.clock()
        self._disk.blobs.sweep(store.live_digests())
        memory = rebuild(self.config, self.terms, store, self._disk.blobs, now)
        self._take(memory.state)
        self.collecting: Collection | None = memory.collecting
        self._sizes: tuple[Sizes, ...] = ()  # of the last round, whose updates are not kept: lost by a restart
        self.closed = memory.closed
        self._late = memory.late
        self.run_state = RunState.PROFILING if memory.state.version == 0 else RunState.TRAINING
        self.boards = rebuild_boards(store, self.config.liveness_s, now)
        self._begin_profiling_deadline()
        self._disk.uploads.sweep({*self._late.rounds, *([self.collecting.round] if self.collecting else [])})
        if len(self.boards):
            self.note(f"server restarted at version {self.state.version}, {len(self.boards)} boards known")

    def _take(self, state: AdapterState) -> None:
        """Make a version the current one."""
        self.state = state
        self._values = strand_values(state)

    # --- what boards are told ---

    def info(self) -> RunInfo:
        """The run as a board sees it now."""
        config, terms = self.config, self.terms
        return RunInfo(
            protocol=PROTOCOL_VERSION,
            run_id=terms.run_id,
            state=self.run_state.value,
            base=Base(model=config.model_id, digest=config.model_digest),
            weights=terms.weights,
            manifest=terms.manifest,
            settings=config.train,
            max_rank=terms.max_rank,
            server_rank=terms.server_rank,
            rounds=config.rounds,
            round=self.collecting.round if self.collecting else self.closed,
            version=self.state.version,
            values=self._values,
        )

    def task(self, device: str, after: int) -> Task:
        """What a board should do now. `after`: the last round it knows of; -1 for none."""
        run_id = self.terms.run_id
        work = self.collecting
        nothing = RoundSpec(round=self.closed, version=self.state.version)
        if self.run_state is RunState.FINISHED:
            done = self.state.version in self.boards[device].losses
            kind: Literal["finished", "evaluate"] = "finished" if done else "evaluate"
            return Task(kind=kind, run_id=run_id, spec=nothing)
        if work is None or device in work.answers or (work.round != PROFILING and work.round <= after):
            return Task(kind="wait", run_id=run_id, spec=nothing)
        is_profile = work.round == PROFILING
        return Task(
            kind="profile" if is_profile else "train",
            run_id=run_id,
            spec=work.spec,
            staleness_limit=0 if is_profile else self.config.staleness_limit,
            time_left_s=self.time_left_s() if is_profile or not self.config.is_asynchronous else None,
        )

    def time_left_s(self) -> float | None:
        """Seconds to the deadline of what is being collected."""
        work = self.collecting
        if work is None or work.since_s is None:
            return None
        whole_s = self.config.profile_deadline_s if work.round == PROFILING else self.config.deadline_s
        until_s = work.since_s + whole_s if work.until_s is None else work.until_s
        return max(0.0, until_s - self.clock())

    async def adapter(self, version: int, ranks: Sequence[int], held: Held | None = None) -> Cut:
        """The file of an adapter cut to `ranks`, or its difference to the one held. Raises CallError where there is no
        such version or rank."""
        if any(ranks) and self.terms.ranks not in (None, tuple(ranks)):
            message = (
                f"every board of this run trains each weight at rank {self.terms.rank}, or its largest if that is less"
            )
            raise CallError("bad_request", message, "Ask for these ranks, or for rank 0 of every weight to evaluate.")
        return await self._adapters.get(self.state, version, ranks, held)

    # --- what boards send ---

    async def enrol(self, install_id: str, name: str, credential_hash: str) -> Device:
        """Store a device, or find it again by its `install_id`. Raises FleetFullError."""
        async with self._writing:
            row = await asyncio.to_thread(self._disk.store.enrol, install_id, name, credential_hash)
        is_new = row.device not in self.boards
        self.boards.add(row).seen_s = self.clock()
        self.note(f"{row.name} ({row.device}) {'enrolled' if is_new else 'enrolled again'}")
        self._begin_profiling_deadline()
        self._notify()
        return row

    def _begin_profiling_deadline(self) -> None:
        work = self.collecting
        if work is not None and work.round == PROFILING and len(self.boards) >= self.config.min_devices:
            self.collecting = work.begun(self.clock())

    def answered(self, device: str, round_id: int, digest: str | None) -> Receipt | None:
        """The receipt of what was answered already. Raises CallError "conflict" if other bytes came then.

        A board profiles once, whatever the bytes: a second pass over the same text is not bit-equal on every machine.
        """
        answer = self.answer_of(device, round_id)
        if answer is None:
            return None
        if digest not in (None, answer.digest):
            message = f"this device has already sent another update for round {round_id}"
            raise CallError("conflict", message, "Drop this one; the first counts.")
        return Receipt(accepted=answer.accepted, reason=answer.reason)

    def answer_of(self, device: str, round_id: int) -> Answer | None:
        """What a board has sent for a round; its profile for round 0."""
        store = self._disk.store
        return store.profile_of(device) if round_id == PROFILING else store.update_of(round_id, device)

    def asked(self, device: str, round_id: int) -> RoundSpec:
        """What the round asked, if the board's answer to it may count now: it is the open one, or closed and not too
        far behind; profiling is round 0. Raises CallError "gone" for any other, "conflict" where the board counts in
        the open round already: a quorum is of as many boards, and nobody can fill it with updates that were held back.
        """
        work = self.collecting
        spec = work.spec if work is not None and work.round == round_id else self._late.rounds.get(round_id)
        if spec is None or self.run_state is RunState.FINISHED:
            what = "profiling" if round_id == PROFILING else f"round {round_id}"
            message = f"{what} is over, the newest version is {self.state.version}"
            raise CallError("gone", message, "Ask GET /v1/work what to do now.")
        if work is not None and device in work.answers:
            message = f"this device has already sent an update while round {work.round} is open"
            raise CallError("conflict", message, "Drop this one; in each round one counts.")
        return spec

    async def submit(self, device: str, round_id: int, digest: str | None, part: Part) -> Receipt:
        """Take in a whole upload: checked, screened, stored, added to the sums, and only then answered.

        `digest` is what the sender says the bytes have; None for a profile. Raises CallError "bad_request" for another
        digest (the upload is discarded), "gone" where it counts no more, "conflict" after another answer, "busy" where
        no round is open yet; WireError for bytes that are no message.
        """
        async with self._writing:
            if receipt := self.answered(device, round_id, digest):
                part.discard()
                return receipt
            spec, work = self.asked(device, round_id), self.collecting
            if work is None:  # a server that was started just now opens the next round first
                raise CallError("busy", "no round is open yet", "Send it again.", headers={"Retry-After": "1"})
            answer, self.collecting = await asyncio.to_thread(
                self._ledger.take_in, device, digest, part, spec, work, self.state
            )
            del work
            await self._compact()
        if round_id != PROFILING or not answer.accepted:
            self.boards[device].note(answer)
        self._tell(answer)
        self._notify()
        return Receipt(accepted=answer.accepted, reason=answer.reason)

    async def _compact(self) -> None:
        """Take what is collected to its least memory. In steps, what was before each of which is dropped: together, all
        sums would be in memory twice."""
        while (work := self.collecting) is not None:
            after = await asyncio.to_thread(work.compacted)
            if after is work:
                return
            self.collecting = after

    def _tell(self, answer: Answer) -> None:
        """What became of an update or a profile."""
        what = "profile" if answer.round == PROFILING else f"update of round {answer.round}"
        what += f" of {self.boards[answer.device].name}"
        if not answer.accepted:
            self.note(f"{what} REFUSED: {answer.reason}", level=logging.WARNING)
            return
        late = f", late: it counts in round {answer.counted_in}, {answer.staleness} versions behind"
        self.note(f"{what} accepted, {answer.n_examples} examples" + late * (answer.counted_in != answer.round))

    async def report(self, device: str, report: Report) -> None:
        """Take in a board's numbers; plans and evaluations outlive a restart.

        Raises CallError "bad_request" about a version that does not exist: a board could store any number of them.
        """
        if report.version > self.state.version:
            raise CallError("bad_request", f"there is no version {report.version} yet")
        self.boards[device].hear(report)
        if report.kind == "event":
            self.note(f"{self.boards[device].name}: {report.text}")
        elif report.kind != "progress":
            stored = StoredReport(device, report.kind, report.version, report.round, report.text, report.values)
            async with self._writing:
                await asyncio.to_thread(self._disk.store.put_report, stored)
        if report.kind == "evaluation":
            loss = self.boards[device].losses[report.version].get("loss", math.nan)
            self.note(f"{self.boards[device].name} evaluated version {report.version}: held-out loss {loss:.4f}")

    # --- what happens by itself ---

    async def work_forever(self) -> None:
        """Obey the schedule until cancelled. Cancelled while an action runs, it finishes the action first."""
        while True:
            changed = self._changed.next()
            step = asyncio.ensure_future(self.step())
            try:
                wake_s = await asyncio.shield(step)
            except asyncio.CancelledError:
                await step
                raise
            await happened(changed, max(0.0, wake_s - self.clock()))

    async def step(self) -> float:
        """Do all that is due now; the time at which to look again though nothing happens."""
        async with self._writing:  # a late update comes before all of it or after: when a round is open again
            while True:
                now = self.clock()
                decision = decide(self._view(now), self._rules(), now)
                if decision.action is None:
                    times = (decision.wake_s, self.boards.next_expiry_s(now), now + MAX_SLEEP_S)
                    return min(at for at in times if at is not None)
                await self._obey(decision.action)
                self.polls.look_again()

    def _rules(self) -> Rules:
        names = ("rounds", "min_devices", "quorum", "deadline_s", "grace_s", "profile_deadline_s", "is_asynchronous")
        return Rules(**{name: getattr(self.config, name) for name in names})

    def _view(self, now: float) -> View:
        work, live = self.collecting, self.boards.live(now)
        if work is None:
            phase: Phase = "finished" if self.run_state is RunState.FINISHED else "between"
            return View(phase, self.closed, live, frozenset(), 0, None)
        return work.view(live)

    async def _obey(self, action: Action) -> None:
        if isinstance(action, OpenRound):
            await self._open_round(action.round)
        elif isinstance(action, Extend):
            await self._extend(action)
        elif isinstance(action, BeginTraining):
            await self._begin_training(action)
        elif isinstance(action, CloseRound):
            await self._close_round(action)
        elif isinstance(action, AbandonRound):
            await self._abandon_round(action)
        else:
            self.run_state = advance(self.run_state, RunEvent.ROUNDS_DONE)
            self.note(f"all {self.closed} rounds are done; boards evaluate version {self.state.version}")

    async def _open_round(self, round_id: int) -> None:
        version = self.state.version
        await asyncio.to_thread(self._disk.store.open_round, round_id, version)
        self.run_state = RunState.TRAINING  # also when a finished run was given more rounds
        self.collecting = begin_round(self.config, self.terms, round_id, version, self.clock(), self._sizes)
        self.note(f"round {round_id} of {self.config.rounds} opened on version {version}")

    async def _extend(self, action: Extend) -> None:
        work = self.collecting
        assert work is not None
        if work.round != PROFILING:
            await asyncio.to_thread(self._disk.store.extend_round, work.round, action.reason)
        self.collecting = work.extended(action.until_s)
        self.note(f"{action.reason}: the deadline is extended", level=logging.WARNING)

    async def _begin_training(self, action: BeginTraining) -> None:
        work = self.collecting
        assert work is not None and work.total is not None
        self._take(await asyncio.to_thread(self._ledger.publish_first, self.state, work.total))
        self.collecting = None
        self.run_state = advance(self.run_state, RunEvent.BASIS_MADE)
        self.note(f"training begins: {action.reason}; {work.accepted} profiles made the first basis")
        await asyncio.to_thread(self._ledger.tidy, self.state.version, ())

    async def _close_round(self, action: CloseRound) -> None:
        """Merge and publish; a sum that cannot be merged abandons the round, and the version stays."""
        work = self.collecting
        assert work is not None and work.total is not None
        event = RoundEvent.DEADLINE_WITH_ENOUGH if action.reason == "deadline" else RoundEvent.QUORUM_REACHED
        over = advance(work.state, event)
        try:
            state, data = await asyncio.to_thread(self._ledger.merged, self.state, work.total)
        except MergeFailedError as error:
            advance(over, RoundEvent.MERGE_FAILED)
            await self._note_abandoned(work.round, str(error))
        else:
            advance(over, RoundEvent.VERSION_PUBLISHED)
            traffic = self.boards.traffic()
            await asyncio.to_thread(self._ledger.publish, work.round, action.reason, state.version, data, traffic)
            self._take(state)
            self.note(
                f"round {work.round} merged {work.accepted} updates into version {state.version} ({action.reason})"
            )
            await self._note_doubts(work.round, work.total, work.answers.values())
        await self._end_round(work)

    async def _abandon_round(self, action: AbandonRound) -> None:
        """The version stays, and every board is asked again, on the same version, in the next round."""
        work = self.collecting
        assert work is not None
        advance(work.state, RoundEvent.DEADLINE_WITH_REFUSED)
        await self._note_abandoned(work.round, action.reason)
        await self._end_round(work)

    async def _note_abandoned(self, round_id: int, reason: str) -> None:
        await asyncio.to_thread(self._disk.store.abandon_round, round_id, reason)
        self.note(f"round {round_id} abandoned: {reason}", level=logging.ERROR)

    async def _end_round(self, work: Collection) -> None:
        self.closed, self.collecting, self._sizes = work.round, None, work.cohort or self._sizes
        self._late = self._late.adding(work.spec, self.state.version)
        await asyncio.to_thread(self._ledger.tidy, self.state.version, self._late.rounds)

    async def _note_doubts(self, round_id: int, total: Total, answers: Iterable[Answer]) -> None:
        found = await asyncio.to_thread(doubted, self.terms.rule, total, list(answers))
        for device, left in found.items():
            what = f"left {left:.0%} of its influence" if left else "left it out"
            name = self.boards[device].name
            self.note(f"{self.config.defence} doubts {name} in round {round_id}: {what}", level=logging.WARNING)

    async def save_traffic(self) -> None:
        """Store the byte counts; called when the server stops."""
        async with self._writing:
            await asyncio.to_thread(self._disk.store.count_bytes, self.boards.traffic())

    def refresh(self, device: Device) -> None:
        """Take over what a command beside the server changed: a revoked board is not waited for any more."""
        known = self.boards[device.device].revoked
        self.boards.add(device)
        if device.revoked and not known:
            self.note(f"{device.name} ({device.device}) is revoked")
            self._notify()

    def rounds(self) -> tuple[tuple[Round, Counts], ...]:
        """Every round so far, with what became of the updates that came while it was open."""
        counts = self._disk.store.counts("counted_in")
        return tuple((row, counts.get(row.round, Counts())) for row in self._disk.store.rounds())

    def note(self, text: str, level: int = logging.INFO) -> None:
        """Tell people: in the log and on the status page."""
        line = printable(text)
        log.log(level, "%s", line)
        self.events.append(line)

    def _notify(self) -> None:
        """Wake the schedule. Boards that wait are not woken: with a thousand of them, each update would wake all."""
        self._changed.ring()
