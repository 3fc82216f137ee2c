"""Submissions of boards: enrolment, profiles and updates, reports. Each is stored before it is answered."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace

from aggregator.errors import CallError
from aggregator.run.commit import Committer
from aggregator.run.fleet import Board, Ending
from aggregator.run.identity.sessions import Sessions
from aggregator.run.memory import RunMemory
from aggregator.run.round_spec import PROFILING
from aggregator.store.records import Answer, Device, StoredReport
from aggregator.store.uploads import Part
from wire.messages import Receipt, Report, RoundSpec
from wire.rounds import RunState


class Submissions:
    """Takes in what boards send to a run, one thing at a time under the run's lock."""

    def __init__(self, run: RunMemory, committer: Committer) -> None:
        self._run, self._committer = run, committer

    async def enrol(self, install_id: str, name: str, credential_hash: str, token: str | None = None) -> Device:
        """Store a device, or find it again by its `install_id`. `token`: the hash of the join token by which it comes,
        None where the caller has let it in. Raises TokenRefusedError, ShutOutError, FleetFullError."""
        run = self._run
        async with run.writing:
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
        async with self._run.writing:
            await asyncio.to_thread(self._run.storage.records.offer_credential, device, credential_hash)

    async def take_credential(self, board: Board, credential_hash: str) -> None:
        """End a board's credential, where it has now used its next one."""
        if credential_hash != board.next_credential:
            return
        async with self._run.writing:
            renewed = await asyncio.to_thread(self._run.storage.records.take_credential, board.device, credential_hash)
        self._run.boards.add(renewed)
        board.renewed_s = self._run.clock()

    async def leave(self, device: str) -> None:
        """Let a board go: no round waits for it, and its credential ends."""
        run = self._run
        async with run.writing:
            await asyncio.to_thread(run.storage.records.leave_device, device)
        board = run.boards[device]
        board.has_left = True
        run.note(f"{run.boards.label(board)} has left")
        run.changed.send()

    def answer_of(self, device: str, round_id: int) -> Answer | None:
        """The stored answer of a board for a round; its profile for round 0."""
        records = self._run.storage.records
        return records.profile_of(device) if round_id == PROFILING else records.update_of(round_id, device)

    def receipt_of(self, device: str, round_id: int, digest: str | None) -> Receipt | None:
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

    def require_open(self, device: str, round_id: int) -> RoundSpec:
        """The specification of a round for which the board's answer may count now: it is the open one, or closed and
        not too far behind; profiling is round 0.

        Raises CallError "gone" for any other, "conflict" where the board counts in the open round already: a quorum is
        of as many boards, and nobody can fill it with updates that were held back.
        """
        run, open_round = self._run, self._run.open_round
        is_open = open_round is not None and open_round.round == round_id
        spec = open_round.spec if open_round is not None and is_open else run.late.rounds.get(round_id)
        if spec is None or run.run_state is RunState.FINISHED:
            what = "profiling" if round_id == PROFILING else f"round {round_id}"
            message = f"{what} is over, the newest version is {run.state.version}"
            raise CallError("gone", message, "Ask GET /v1/work what to do now.")
        if open_round is not None and device in open_round.answers:
            message = f"this device has already sent an update while round {open_round.round} is open"
            raise CallError("conflict", message, "Drop this one; in each round one counts.")
        return spec

    async def submit(self, device: str, round_id: int, digest: str | None, part: Part) -> Receipt:
        """Take in a whole upload: checked, screened, stored, added to the sums, and only then answered.

        `digest` is what the sender says the bytes have; None for a profile. Raises CallError "bad_request" for another
        digest (the upload is discarded), "gone" where it counts no more, "conflict" after another answer, "busy" where
        no round is open yet; ShutOutError for a device that was revoked or removed while it sent; WireError for bytes
        that are no message.
        """
        run = self._run
        async with run.writing:
            if receipt := self.receipt_of(device, round_id, digest):
                part.discard()
                return receipt
            spec, open_round = self.require_open(device, round_id), run.open_round
            if open_round is None:  # a server that was started just now opens the next round first
                raise CallError("busy", "no round is open yet", "Send it again.", headers={"Retry-After": "1"})
            answer, run.open_round = await asyncio.to_thread(
                self._committer.take_in, device, digest, part, spec, open_round, run.state
            )
            del open_round  # its sums, or both would be in memory while they are compacted
            await self._compact()
        if device in run.boards and (round_id != PROFILING or not answer.accepted):
            run.boards[device].note(answer)
        self._tell(answer)
        run.changed.send()  # boards that wait are not woken: with a thousand of them, each update would wake all
        return Receipt(accepted=answer.accepted, reason=answer.reason)

    async def _compact(self) -> None:
        """Take the open round's sums to their least memory. In steps, what was before each of which is dropped:
        together, all sums would be in memory twice."""
        while (open_round := self._run.open_round) is not None:
            after = await asyncio.to_thread(open_round.with_compacted_sums)
            if after is open_round:
                return
            self._run.open_round = after

    def _tell(self, answer: Answer) -> None:
        """Tell people what became of an update or a profile."""
        what = "profile" if answer.round == PROFILING else f"update of round {answer.round}"
        what += f" of {self._label(answer.device)}"
        if not answer.accepted:
            self._run.note(f"{what} REFUSED: {answer.reason}", level=logging.WARNING)
            return
        late = f", late: it counts in round {answer.counted_in}, {answer.staleness} versions behind"
        self._run.note(f"{what} accepted, {answer.n_examples} examples" + late * (answer.counted_in != answer.round))

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
        board.hear(report)
        if report.kind == "event":
            run.note(f"{self._label(device)}: {report.text}")
        elif report.kind != "progress":
            stored = StoredReport(device, report.kind, report.version, report.round, report.text, report.values)
            async with run.writing:
                await asyncio.to_thread(run.storage.records.put_report, stored)
        if report.kind == "data":
            run.heard_lengths()
        if report.kind == "evaluation":
            loss = board.losses[report.version].get("loss", math.nan)
            run.note(f"{self._label(device)} evaluated version {report.version}: held-out loss {loss:.4f}")

    async def returned(self, board: Board) -> None:
        """A board asks what to do: it is back, if it had said that it leaves."""
        if board.ending is None:
            return
        async with self._run.writing:
            await asyncio.to_thread(self._run.storage.records.forget_reports, board.device, "ended")
            board.ending = None
        self._run.note(f"{self._label(board.device)} is back")
        self._run.changed.send()

    async def _end(self, board: Board, report: Report) -> None:
        """A board leaves, and says why: kept until it comes back, also by a server that is restarted."""
        stored = StoredReport(board.device, "ended", 0, report.round, report.text, report.values)
        async with self._run.writing:
            at = await asyncio.to_thread(self._run.storage.records.put_report, stored)
            board.ending = Ending.of(replace(stored, received_at=at))
        status = board.ending.status
        what = f"gave up with status {status}" if status else "left"
        level = logging.WARNING if status else logging.INFO
        self._run.note(f"{self._label(board.device)} {what}: {report.text}", level=level)
        self._run.changed.send()

    def _label(self, device: str) -> str:
        return self._run.boards.label_of(device)
