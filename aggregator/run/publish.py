"""Publishing: a round's updates become the next version, which is stored, made the newest, and told of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from aggregator.merge.rules import Total
from aggregator.merge.state import AdapterState, encode_state
from aggregator.merge.weights import bounded_claims
from aggregator.run.commit import Committer
from aggregator.run.intake.round_sums import MergeFailedError, RoundSums
from aggregator.run.memory import RunMemory
from aggregator.run.open_round import OpenRound
from aggregator.run.suspects import suspects
from aggregator.store.records import Answer
from wire.errors import WireError


class Publisher:
    """Makes versions of rounds, under the run's `writing`."""

    def __init__(self, run: RunMemory, committer: Committer, sums: RoundSums) -> None:
        self._run, self._committer, self._sums = run, committer, sums
        self._made: tuple[OpenRound, AdapterState, bytes, Total | None] | None = None  # merged, and not stored yet

    async def publish_first(self, profiling: OpenRound) -> None:
        """Make version 1 of the profiles. Raises LostAnswersError."""
        state = await asyncio.to_thread(self._sums.first_basis, self._run.state, profiling)
        digest = await asyncio.to_thread(lambda: self._committer.publish_first(state.version, encode_state(state)))
        self._run.take(state, digest)
        self._tell_weights(profiling)

    async def publish(self, closing: OpenRound, reason: str) -> None:
        """Make the next version of a round. Where the disk has no room for it, it is there when this is called again.

        Raises LostAnswersError, MergeFailedError.
        """
        run = self._run
        if self._made is None or self._made[0] is not closing:
            self._made = None
            self._made = await asyncio.to_thread(self._make, closing)
        _, state, data, seen = self._made
        traffic, publish = run.boards.traffic(), self._committer.publish
        digest = await asyncio.to_thread(publish, closing.round, reason, state.version, data, traffic)
        self._made = None
        run.take(state, digest)
        run.note(f"round {closing.round} merged {closing.accepted} updates into version {state.version} ({reason})")
        self._tell_weights(closing)
        if seen is not None:
            await self._tell_suspects(closing.round, seen, closing.answers.values())

    def _make(self, closing: OpenRound) -> tuple[OpenRound, AdapterState, bytes, Total | None]:
        """The round, its next version, that version's bytes, and what a defence has seen. Blocks."""
        state, seen = self._sums.merged(self._run.state, closing)
        return closing, state, encoded(state), seen

    def _tell_weights(self, closed: OpenRound) -> None:
        """Keep what each board counted as, and tell of those that begin to count as less than they claim."""
        run, times, claims = self._run, self._run.config.merge.weight_bound, closed.weights()
        for device, counts_as in bounded_claims(claims, times).items():
            if device not in run.boards:  # removed meanwhile; its update counts all the same
                continue
            board, claim = run.boards[device], claims[device]
            was_bounded, board.claims, board.counts_as = board.is_bounded, claim, counts_as
            if board.is_bounded and not was_bounded:
                besides = {" and its loss": closed.fairness, " and its strands": closed.drift}
                words = "".join(word for word, is_on in besides.items() if is_on)
                claimed = f"has by its claim{words}" if words else "claims"
                run.note(
                    f"{run.boards.label(board)} {claimed} {claim:,.0f} examples and counts as {counts_as:,.0f}: "
                    f"{times:g} times the middle of its round is the most (merge.max_weight)"
                )

    async def _tell_suspects(self, round_id: int, total: Total, answers: Iterable[Answer]) -> None:
        run = self._run
        influence = await asyncio.to_thread(suspects, run.terms.rule, total, list(answers))
        for device, left in influence.items():
            what = f"left {left:.0%} of its influence" if left else "left it out"
            who = run.boards.label_of(device)
            text = f"{run.config.merge.defence} doubts {who} in round {round_id}: {what}"
            run.note(text, level=logging.WARNING)


def encoded(state: AdapterState) -> bytes:
    """A version's bytes. Raises MergeFailedError where a value is not finite."""
    try:
        return encode_state(state)
    except WireError as error:
        raise MergeFailedError(f"merging failed: {error}") from error
