"""The intake of a run: uploads that wait are judged, and answers whose files are lost are taken back."""

from __future__ import annotations

import asyncio
import logging

from aggregator.errors import CallError, StateError
from aggregator.run.commit import Committer
from aggregator.run.intake.judging import Judge
from aggregator.run.intake.round_sums import LostAnswersError, RoundSums
from aggregator.run.memory import RunMemory
from aggregator.run.round_spec import PROFILING
from aggregator.run.submissions import Submissions
from aggregator.store.records import Answer, Received
from braid_common import heap


class Intake:
    """Changes the open round's answers, under the run's `writing`."""

    def __init__(
        self, run: RunMemory, submissions: Submissions, committer: Committer, judge: Judge, sums: RoundSums
    ) -> None:
        self._run, self._submissions = run, submissions
        self._committer, self._judge, self._sums = committer, judge, sums

    async def judge(self, received: Received) -> None:
        """Judge an upload: its answer is stored, then counts, and then is told."""
        run, failure = self._run, None
        try:
            spec, open_round = self._submissions.require_open(received.device, received.round), run.open_round
            assert open_round is not None  # while the run is not finished, a round begins before anything is judged
            answer, verdict = await asyncio.to_thread(self._judge.judge, received, spec, open_round, run.state)
        except (CallError, StateError) as error:
            async with run.short_writes:
                await asyncio.to_thread(self._judge.give_up, received)
            if isinstance(error, CallError):
                failure = error
            else:  # its board finds that it is not here, and sends it again
                self._note_loss(f"an upload of {self._label(received.device)} is sent again: {error.message}")
        else:
            assert run.open_round is not None
            run.open_round = run.open_round.with_answer(answer, verdict.sizes, run.clock())
            is_told = received.round != PROFILING or not answer.accepted
            if is_told and received.device in run.boards:  # it may have been removed meanwhile
                run.boards[received.device].note(answer)
            self._tell(answer)
        run.inbox.judged(received, failure)
        if not len(run.inbox):
            await asyncio.to_thread(heap.give_back)

    async def inspect(self) -> None:
        """Read what the open round has accepted, once, so that damage is found before the round closes."""
        run, open_round = self._run, self._run.open_round
        if open_round is None or not open_round.accepted:
            return
        try:
            await asyncio.to_thread(self._sums.check, open_round)
        except LostAnswersError as error:
            async with run.writing:
                await self.lose(error)
            run.changed.send()

    async def lose(self, lost: LostAnswersError) -> None:
        """Forget that uploads were accepted whose files are gone. Their boards are asked again."""
        run = self._run
        for answer, reason in lost.reasons:
            open_round = run.open_round
            if open_round is None or open_round.answers.get(answer.device) != answer:
                continue  # the round is over
            is_profile = open_round.round == PROFILING
            async with run.short_writes:
                await asyncio.to_thread(self._committer.lose, answer, is_profile, reason)
            run.open_round = open_round.without({answer.device})
            what = "profile" if is_profile else f"update for round {answer.round}"
            if answer.device in run.boards:
                run.boards[answer.device].accepted -= not is_profile
            self._note_loss(f"the {what} of {self._label(answer.device)} is lost, it is asked again: {reason}")

    def _tell(self, answer: Answer) -> None:
        """Tell people what became of an update or a profile."""
        what = "profile" if answer.round == PROFILING else f"update of round {answer.round}"
        what += f" of {self._label(answer.device)}"
        if not answer.accepted:
            self._run.note(f"{what} REFUSED: {answer.reason}", level=logging.WARNING)
            return
        late = f", late: it counts in round {answer.counted_in}, {answer.staleness} versions behind"
        self._run.note(f"{what} accepted, {answer.n_examples} examples" + late * (answer.counted_in != answer.round))

    def _note_loss(self, sentence: str) -> None:
        self._run.losses.append(sentence)
        self._run.note(sentence, level=logging.ERROR)

    def _label(self, device: str) -> str:
        return self._run.boards.label_of(device)
