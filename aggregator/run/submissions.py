"""Submissions of boards: enrolment, uploads, reports. Each is on the disk before it is answered; uploads are judged
after (`Run.step`), so that nobody waits for arithmetic."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from aggregator.errors import CallError
from aggregator.run.broadcast import wait_for_event
from aggregator.run.commit import Arrival, Committer
from aggregator.run.fleet import Board, Ending
from aggregator.run.identity.sessions import Sessions
from aggregator.run.intake.inbox import is_same
from aggregator.run.memory import RunMemory
from aggregator.run.round_spec import PROFILING
from aggregator.run.upkeep.together import Together
from aggregator.store.records import Answer, Device, Received, StoredReport
from aggregator.store.uploads import Part
from wire.limits import MAX_LONG_POLL_S
from wire.messages import Receipt, Report, RoundSpec
from wire.rounds import RunState
from wire.routes import UPLOAD_OFFSET


class Submissions:
    """Takes in what boards send to a run."""

    def __init__(self, run: RunMemory, committer: Committer) -> None:
        self._run, self._committer = run, committer
        self._arrivals = Together(run.short_writes, self._take_in)
        self._reports = Together(run.short_writes, self._store_reports)

    async def enrol(self, install_id: str, name: str, credential_hash: str, token: str | None = None) -> Device:
        """Store a device, or find it again by its `install_id`. `token`: the hash of the join token by which it comes,
        None where the caller has let it in. Raises TokenRefusedError, ShutOutError, FleetFullError."""
        run = self._run
        async with run.short_writes:
            device = await asyncio.to_thread(run.storage.records.enrol, install_id, name, credential_hash, token)
        is_new = device.device not in run.boards
        board = run.boards.add(device)
        board.seen_s, board.sessions = run.clock(), Sessions()  # under another credential than any copy has
        run.note(f"{run.boards.label(board)} {'enrolled' if is_new else 'enrolled again'}")
        run.begin_profiling_deadline()
        run.changed.send()
        return device

    async def offer_credential(self, device: str, credential_hash: str) -> None:
        """Take the hash of a board's next credential. Raises RenewalError where none is due."""
        async with self._run.short_writes:
            await asyncio.to_thread(self._run.storage.records.offer_credential, device, credential_hash)

    async def take_credential(self, board: Board, credential_hash: str) -> None:
        """End a board's credential, where it has now used its next one."""
        if credential_hash != board.next_credential:
            return
        async with self._run.short_writes:
            renewed = await asyncio.to_thread(self._run.storage.records.take_credential, board.device, credential_hash)
        self._run.boards.add(renewed)
        board.renewed_s = self._run.clock()

    async def leave(self, device: str) -> None:
        """Let a board go: no round waits for it, and its credential ends."""
        run = self._run
        async with run.short_writes:
            await asyncio.to_thread(run.storage.records.leave_device, device)
        board = run.boards[device]
        board.has_left = True
        run.note(f"{run.boards.label(board)} has left")
        run.changed.send()

    # --- uploads ---

    def answer_of(self, device: str, round_id: int) -> Answer | None:
        """The stored answer of a board for a round; its profile for round 0."""
        records = self._run.storage.records
        return records.profile_of(device) if round_id == PROFILING else records.update_of(round_id, device)

    def receipt_of(self, device: str, round_id: int, digest: str) -> Receipt | None:
        """The receipt of what was judged already. Raises CallError "conflict" if other bytes came then.

        A board profiles once, whatever the bytes: a second pass over the same text is not bit-equal on every machine.
        """
        answer = self.answer_of(device, round_id)
        if answer is None:
            return None
        if round_id != PROFILING and digest != answer.digest:
            message = f"this device has already sent another update for round {round_id}"
            raise CallError("conflict", message, "Drop this one; the first counts.")
        return Receipt(accepted=answer.accepted, reason=answer.reason)

    def require_open(self, device: str, round_id: int) -> RoundSpec:
        """The specification of a round for which the board's answer may count now: it is the open one, or closed and
        not too far behind; profiling is round 0.

        Raises CallError "gone" for any other, "conflict" where the board counts in the open round already: a quorum is
        of as many boards, and nobody can fill it with updates that were held back.
        """
        run, open_round = self._run, self._run.open_round
        is_open = open_round is not None and open_round.round == round_id and run.takes_updates
        spec = open_round.spec if open_round is not None and is_open else run.late.rounds.get(round_id)
        if spec is None or run.run_state is RunState.FINISHED:
            what = "profiling" if round_id == PROFILING else f"round {round_id}"
            message = f"{what} is over, the newest version is {run.state.version}"
            raise CallError("gone", message, "Ask GET /v1/work what to do now.")
        if open_round is not None and device in open_round.answers:
            message = f"this device has already sent an update while round {open_round.round} is open"
            raise CallError("conflict", message, "Drop this one; in each round one counts.")
        if run.inbox.has_failed_often(device, round_id):
            raise CallError("conflict", "this device has sent nothing for this round that can be read", "Drop it.")
        return spec

    def received(self, device: str, round_id: int, digest: str) -> Received | None:
        """This upload, if all of it is here and it waits to be judged. Raises CallError "busy" where another one of the
        device does."""
        waiting = self._run.inbox.of(device)
        if waiting is None or is_same(waiting, round_id, digest):
            return waiting
        message = f"what this device sent for round {waiting.round} is not judged yet"
        raise CallError("busy", message, "Ask again.", headers={"Retry-After": "1"})

    async def receive(self, device: str, round_id: int, digest: str, part: Part) -> None:
        """Take in a whole upload. It outlives a power cut once this returns, and is judged soon.

        Raises CallError "conflict" where the bytes have another digest (the upload is discarded, and begins anew) and
        after another answer, "gone" where it counts no more; ShutOutError for a device that was revoked or removed
        while it sent.
        """
        run = self._run
        if await asyncio.to_thread(part.finish) != digest:
            part.discard()
            message = "what arrived has another SHA-256 than announced"
            raise CallError("conflict", message, "Send it again from 0.", headers={UPLOAD_OFFSET: "0"})
        arrival = Arrival(device, round_id, digest, part)
        await self._arrivals.put(arrival)
        if arrival.refusal is not None:
            raise arrival.refusal
        run.changed.send()

    async def _take_in(self, arrivals: Sequence[Arrival]) -> None:
        """Take in uploads that came together, those of one device one after the other."""
        run, rest = self._run, list(arrivals)
        while rest:
            of_each = {each.device: each for each in reversed(rest)}  # the first of each
            rest = [each for each in rest if of_each[each.device] is not each]
            if wanted := [each for each in of_each.values() if self._is_wanted(each)]:
                for received in await asyncio.to_thread(self._committer.receive, wanted):
                    run.inbox.add(received)

    def _is_wanted(self, arrival: Arrival) -> bool:
        """Whether an upload is still to be taken in: what is there may have changed while it came."""
        key = (arrival.device, arrival.round, arrival.digest)
        try:
            if self.received(*key) or self.receipt_of(*key):
                arrival.part.discard()
                return False
            self.require_open(arrival.device, arrival.round)
        except CallError as error:
            arrival.refusal = error
            return False
        return True

    async def receipt(self, device: str, round_id: int, digest: str, wait_s: float) -> Receipt | None:
        """The judgement on an upload, as soon as there is one; None where there is none after `wait_s`.

        Raises CallError for an upload that no answer could be given to, that counts no more, or is not here.
        """
        run, loop = self._run, asyncio.get_running_loop()
        until = loop.time() + min(wait_s, MAX_LONG_POLL_S)
        while self.received(device, round_id, digest):  # until it counts, whatever its row says already
            left_s = until - loop.time()
            if left_s <= 0 or run.inbox.is_stopping:
                return None
            await wait_for_event(run.inbox.event_of(device), left_s)
        if receipt := self.receipt_of(device, round_id, digest):
            return receipt
        if failure := run.inbox.failure_of(device, round_id, digest):
            raise failure
        self.require_open(device, round_id)
        raise CallError("not_found", "this upload is not here, or not all of it", "Send it.")

    # --- reports ---

    async def report(self, device: str, report: Report) -> None:
        """Take in a board's numbers; plans and evaluations outlive a restart.

        Raises CallError "bad_request" about a version that does not exist: a board could store any number of them; and
        WireError for lengths that no text has.
        """
        run = self._run
        if report.version > run.state.version:
            raise CallError("bad_request", f"there is no version {report.version} yet")
        board = run.boards[device]
        if report.kind == "ended":
            await self._end(board, report)
            return
        is_first = report.version not in board.losses
        board.hear(report)
        if report.kind == "event":
            run.note(f"{self._label(device)}: {report.text}")
        elif report.kind != "progress":
            stored = StoredReport(device, report.kind, report.version, report.round, report.text, report.values)
            await self._reports.put(stored)
        if report.kind == "data":
            run.heard_lengths()
        if report.kind == "evaluation" and is_first:  # a repeat replaces it, and is no news
            loss = board.losses[report.version].get("loss", math.nan)
            run.note(f"{self._label(device)} evaluated version {report.version}: held-out loss {loss:.4f}")

    async def _store_reports(self, reports: Sequence[StoredReport]) -> None:
        await asyncio.to_thread(self._run.storage.records.put_reports, reports)

    async def returned(self, board: Board) -> None:
        """A board asks what to do: it is back, if it had said that it leaves."""
        if board.ending is None:
            return
        async with self._run.short_writes:
            await asyncio.to_thread(self._run.storage.records.forget_reports, board.device, "ended")
            board.ending = None
        self._run.note(f"{self._label(board.device)} is back")
        self._run.changed.send()

    async def _end(self, board: Board, report: Report) -> None:
        """A board leaves, and says why: kept until it comes back, also by a server that is restarted."""
        stored = StoredReport(board.device, "ended", 0, report.round, report.text, report.values)
        async with self._run.short_writes:
            at = await asyncio.to_thread(self._run.storage.records.put_reports, [stored])
            board.ending = Ending.of(replace(stored, received_at=at))
        status = board.ending.status
        what = f"gave up with status {status}" if status else "left"
        level = logging.WARNING if status else logging.INFO
        self._run.note(f"{self._label(board.device)} {what}: {report.text}", level=level)
        self._run.changed.send()

    def _label(self, device: str) -> str:
        return self._run.boards.label_of(device)
