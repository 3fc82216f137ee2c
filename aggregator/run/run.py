"""The run: obeys what `aggregator.run.schedule` decides, from profiling to the end.

One actor: uploads are judged, and rounds opened and closed, one after the other under one lock, in the order blob, row,
memory, reply.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from aggregator.downloads.adapters import FREE, Adapters, Allowance
from aggregator.downloads.sound_files import SoundFiles
from aggregator.downloads.versions import Versions
from aggregator.errors import CallError, DiskError
from aggregator.run.broadcast import wait_for_event
from aggregator.run.commit import Committer
from aggregator.run.intake.intake import Intake
from aggregator.run.intake.judging import Judge
from aggregator.run.intake.round_sums import LostAnswersError, MergeFailedError, RoundSums
from aggregator.run.intake.sent_versions import SentVersions
from aggregator.run.lengths import Choice, ChosenLengths, choose
from aggregator.run.long_polls import LongPolls
from aggregator.run.memory import LENGTHS_FACT, RunMemory, settled_train
from aggregator.run.open_round import OpenRound, begin_round
from aggregator.run.publish import Publisher
from aggregator.run.round_spec import PROFILING, round_spec
from aggregator.run.schedule import (
    AbandonRound,
    Action,
    BeginRound,
    BeginTraining,
    CloseRound,
    Extend,
    Phase,
    View,
    decide,
)
from aggregator.run.submissions import Submissions
from aggregator.run.tasks import task_of
from aggregator.run.upkeep import newest
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.devices import FLEET_FACT
from aggregator.store.records import Counts, Device, Round
from aggregator.store.slices import Cut
from aggregator.store.storage import Storage
from braid_common import heap
from wire.messages import Task
from wire.rounds import RoundEvent, RunEvent, RunState, advance
from wire.routes import Held

MAX_SLEEP_S = 30.0
"""The schedule is asked at least this often, so that a machine that was suspended does not sleep past a deadline; also
the longest time until a running server sees that a device was removed."""


class Run(RunMemory):
    """One run from profiling to the end.

    Args:
        config: run.toml.
        terms: run id, manifest, ranks and merge rule.
        storage: the folder's parts; this object is their only writer.
        clock: monotonic seconds; every decision is made by it.

    Raises StateError where the folder is damaged.
    """

    def __init__(
        self, config: RunConfig, terms: Terms, storage: Storage, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fleet_changes = storage.records.fact(FLEET_FACT)  # first: what changes from now on is seen later
        super().__init__(config, terms, storage, clock)
        self.sound_files = SoundFiles()
        self._adapters = Adapters(terms, storage, self.sound_files)
        self._committer = Committer(config, storage)
        self._sent = SentVersions(terms, Versions(storage.records, storage.blobs))
        self.sums = RoundSums(config, terms, storage.blobs, self._sent)
        self._publisher = Publisher(self, self._committer, self.sums)
        self._is_stopping = False
        self.submissions = Submissions(self, self._committer)
        self._intake = Intake(self, self.submissions, self._committer, Judge(terms, storage, self._sent), self.sums)
        self.polls = LongPolls(self.task, config.rounds.liveness_s / 2)

    def task(self, device: str, after: int, epoch: str = "") -> Task:
        """The task of a board now. `after`: the last round it knows of, from a task of this `epoch`; -1 for none."""
        return task_of(self, device, after if epoch in ("", self.epoch) else -1)

    async def adapter(
        self, version: int, ranks: Sequence[int], held: Held | None = None, allowance: Allowance = FREE
    ) -> Cut:
        """The file of an adapter cut to `ranks`, or its difference to the one held. Raises CallError where there is no
        such version or rank."""
        if any(ranks) and self.terms.ranks not in (None, tuple(ranks)):
            message = (
                f"every board of this run trains each weight at rank {self.terms.rank}, or its largest if that is less"
            )
            raise CallError("bad_request", message, "Ask for these ranks, or for rank 0 of every weight to evaluate.")
        return await self._adapters.get(self.state, version, ranks, held, allowance)

    def rounds(self) -> tuple[tuple[Round, Counts], ...]:
        """Every round so far, with what became of the updates that came while it was open."""
        counts = self.storage.records.counts("counted_in")
        return tuple((row, counts.get(row.round, Counts())) for row in self.storage.records.rounds())

    def refresh(self, device: Device) -> None:
        """Take over what a command beside the server changed: a revoked board is not waited for any more."""
        was_revoked = device.device in self.boards and self.boards[device.device].revoked
        board = self.boards.add(device)
        if device.revoked != was_revoked:
            self.note(f"{self.boards.label(board)} is {'revoked' if device.revoked else 'let in again'}")
            self.changed.send()

    def refresh_fleet(self) -> None:
        """Take over what commands beside the server changed of any device, should they have changed something: boards
        that were revoked or removed are told at once, and no round waits for them."""
        changes = self.storage.records.fact(FLEET_FACT)
        if changes == self._fleet_changes:
            return
        self._fleet_changes = changes
        devices = self.storage.records.devices()
        for device in devices:
            self.refresh(device)
        members = {device.device for device in devices}
        for board in [board for board in self.boards if board.device not in members]:
            self.note(f"{self.boards.label(board)} was removed")
            self.boards.remove(board)
        self.polls.look_again()

    async def save_traffic(self) -> None:
        """Store the byte counts; called when the server stops. Losing them harms nothing."""
        try:
            async with self.short_writes:
                await asyncio.to_thread(self.storage.records.count_bytes, self.boards.traffic())
        except (DiskError, OSError) as error:
            self.note(f"the counts of bytes are not stored: {error}", level=logging.ERROR)

    # --- what happens by itself ---

    async def work_forever(self) -> None:
        """Obey the schedule until cancelled. Cancelled while an action runs, it finishes the action first.

        A disk that refuses to be read or written is waited for. Raises StateError where the database is damaged.
        """
        self.inbox.start()
        inspecting = asyncio.ensure_future(self._inspect())
        try:
            while True:
                changed = self.changed.next_event()
                step = asyncio.ensure_future(self.step())
                try:
                    wake_s = await asyncio.shield(step)
                except asyncio.CancelledError:
                    self._is_stopping = True
                    await asyncio.gather(step, return_exceptions=True)
                    self._is_stopping = False
                    raise
                except (DiskError, OSError) as error:
                    await asyncio.sleep(self._wait_for_disk(error))
                    continue
                if self.trouble.end():
                    self.note("the disk can be used again, the run goes on")
                await wait_for_event(changed, max(0.0, wake_s - self.clock()))
        finally:
            inspecting.cancel()
            await asyncio.gather(inspecting, return_exceptions=True)

    def _wait_for_disk(self, error: DiskError | OSError) -> float:
        """Tell people of the disk's trouble, once; the seconds until the next try."""
        is_news, pause_s = self.trouble.begin(error)
        if is_news:
            self.note(self.trouble.text, level=logging.ERROR)
        return pause_s

    async def step(self) -> float:
        """Do all that is due now; the time at which to look again though nothing happens."""
        async with self.writing:
            self.refresh_fleet()
            while True:
                now = self.clock()
                choice = self._lengths_to_choose(now)
                if choice.lengths is not None:
                    await self._take_lengths(choice.lengths)
                    continue
                decision = decide(self._view(now), self.config.rounds, now)
                if decision.action is not None:
                    await self._obey(decision.action)
                    self.polls.look_again()
                    continue
                received = self.inbox.first()
                if received is None or self._is_stopping:
                    times = (decision.wake_s, choice.wake_s, self.boards.next_expiry_s(now), now + MAX_SLEEP_S)
                    return min(at for at in times if at is not None)
                await self._intake.judge(received)

    async def _inspect(self) -> None:
        """Look for damage beside the run's work; boards whose uploads are lost are told at once."""
        await self._intake.inspect()
        self.polls.look_again()
        await newest.look_after(self)

    # --- what is decided ---------------------------------------------------------------------------------------------

    def _view(self, now: float) -> View:
        live = self.boards.live(now)
        if self.open_round is not None:
            return self.open_round.view(live, len(self.inbox))
        phase: Phase = "finished" if self.run_state is RunState.FINISHED else "between"
        return View(phase, self.closed, live, frozenset(), 0, None)

    def _lengths_to_choose(self, now: float) -> Choice:
        """The lengths that are to be taken now, where they are open."""
        if self.train.has_lengths:
            return Choice()
        return choose(self.boards.text_lengths(), self.lengths_since_s, self.config.rounds, now)

    async def _take_lengths(self, chosen: ChosenLengths) -> None:
        """Store the lengths before any board is told them: another start of the server must not choose others."""
        stored = await asyncio.to_thread(self.storage.records.settle, LENGTHS_FACT, chosen.encode())
        self.train = settled_train(self.config, stored)
        n_examples = sum(report.n_examples for report in self.boards.text_lengths())
        self.note(
            f"texts may have {self.train.max_source_tokens} tokens and targets {self.train.max_target_tokens}, by the "
            f"lengths of {n_examples:,} examples on {len(self.boards.text_lengths())} boards"
        )
        self.warn_of_cuts()
        self.begin_profiling_deadline()
        self.polls.look_again()

    async def _obey(self, action: Action) -> None:
        if isinstance(action, BeginRound):
            await self._begin_round(action.round)
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

    async def _begin_round(self, round_id: int) -> None:
        version = self.state.version
        spec = round_spec(self.config, round_id, version, self.digest)
        await asyncio.to_thread(self.storage.records.open_round, round_id, version)
        self.run_state = RunState.TRAINING  # also when a finished run was given more rounds
        self.open_round = begin_round(self.config, self.terms, spec, self.clock(), self.last_sizes)
        self.note(f"round {round_id} of {self.config.rounds.total} opened on version {version}")

    async def _extend(self, action: Extend) -> None:
        open_round = self.open_round
        assert open_round is not None
        if open_round.round != PROFILING:
            await asyncio.to_thread(self.storage.records.extend_round, open_round.round, action.reason)
        self.open_round = open_round.with_extension(action.until_s)
        self.note(f"{action.reason}: the deadline is extended", level=logging.WARNING)

    async def _begin_training(self, action: BeginTraining) -> None:
        profiling = self.open_round
        assert profiling is not None
        try:
            await self._publisher.publish_first(profiling)
        except LostAnswersError as error:
            await self._intake.lose(error)
            return
        self.open_round = None
        self.run_state = advance(self.run_state, RunEvent.BASIS_MADE)
        self.note(f"training begins: {action.reason}; {profiling.accepted} profiles made the first basis")
        await self._tidy()

    async def _close_round(self, action: CloseRound) -> None:
        """Merge and publish; a sum that cannot be merged abandons the round, and the version stays."""
        assert self.open_round is not None
        losses = self.boards.losses_before(self.open_round.counted, self.open_round.version)
        closing = self.open_round = self.open_round.with_losses(losses)
        event = RoundEvent.DEADLINE_WITH_ENOUGH if action.reason == "deadline" else RoundEvent.QUORUM_REACHED
        merging = advance(closing.state, event)
        self.is_merging = True
        try:
            closing = self.open_round = await asyncio.to_thread(self.sums.with_drifts, closing, self.state)
            await self._publisher.publish(closing, action.reason)
        except LostAnswersError as error:
            await self._intake.lose(error)
            return
        except MergeFailedError as error:
            advance(merging, RoundEvent.MERGE_FAILED)
            await self._note_abandoned(closing.round, str(error))
        else:
            advance(merging, RoundEvent.VERSION_PUBLISHED)
        finally:
            self.is_merging = False
        await self._end_round(closing)

    async def _abandon_round(self, action: AbandonRound) -> None:
        """The version stays, and every board is asked again, on the same version, in the next round."""
        closing = self.open_round
        assert closing is not None
        advance(closing.state, RoundEvent.DEADLINE_WITH_REFUSED)
        await self._note_abandoned(closing.round, action.reason)
        await self._end_round(closing)

    async def _note_abandoned(self, round_id: int, reason: str) -> None:
        await asyncio.to_thread(self.storage.records.abandon_round, round_id, reason)
        self.note(f"round {round_id} abandoned: {reason}", level=logging.ERROR)

    async def _end_round(self, closed: OpenRound) -> None:
        self.closed, self.open_round, self.last_sizes = closed.round, None, closed.cohort or self.last_sizes
        self.late = self.late.with_closed(closed.spec, self.state.version)
        await self._tidy()

    async def _tidy(self) -> None:
        """Let go of all that the round took, on the disk and in memory. What cannot be removed now, is later."""
        self._sent.forget()
        try:
            async with self.short_writes:
                await asyncio.to_thread(self._committer.tidy, self.state.version, self.late.rounds)
        except (DiskError, OSError) as error:
            self.note(f"what is not needed any more stays on the disk: {error}", level=logging.WARNING)
        await asyncio.to_thread(heap.give_back)
