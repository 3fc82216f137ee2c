"""A rollout: the answers that a policy wrote to the examples of a step, with what has to be known of them to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.encoder_cache.store import Source

NO_TOKEN = -1.0
"""What stands behind an answer's last token in a saved rollout."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Answers in groups of equal size, one group for each source.

    Attributes:
        answers: each with its source; its target is what was written, eos included.
        advantages: of each answer.
        old: log-likelihood (tokens,) fp32 of each answer's tokens when they were drawn; empty where no step but the
            first learns from them.
        reference: the same under the received adapter; empty where nothing keeps near it.
    """

    answers: tuple[Pair, ...]
    advantages: tuple[float, ...]
    old: tuple[Tensor, ...] = ()
    reference: tuple[Tensor, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens of all answers together."""
        return sum(len(answer.target) for answer in self.answers)


class SavedRollout:
    """The matrices that hold a rollout in a saved training, of the same shapes whatever was written: a board that was
    interrupted between two steps on the same answers goes on with them.

    Args:
        n_answers: rows.
        max_tokens: columns; the most that an answer has.
    """

    def __init__(self, n_answers: int, max_tokens: int) -> None:
        names = ("ids", "old", "reference")
        self.tensors: Mapping[str, Tensor] = {name: torch.zeros(n_answers, max_tokens) for name in names} | {
            "advantages": torch.zeros(n_answers, 1)
        }

    def keep(self, rollout: Rollout) -> None:
        """Write a rollout into the matrices."""
        ids = [torch.tensor(answer.target, dtype=torch.float32) for answer in rollout.answers]
        for name, rows in (("ids", ids), ("old", rollout.old), ("reference", rollout.reference)):
            self.tensors[name].fill_(NO_TOKEN)
            for i, row in enumerate(rows):
                self.tensors[name][i, : len(row)] = row
        self.tensors["advantages"][:, 0] = torch.tensor(rollout.advantages)

    def read(self, sources: Sequence[Source], *, has_reference: bool) -> Rollout:
        """The rollout that they hold; `sources` are those of its answers."""
        ids = self.tensors["ids"]
        lengths = (ids != NO_TOKEN).sum(1).tolist()
        cut = {name: tuple(map(_first, self.tensors[name], lengths)) for name in ("old", "reference")}
        return Rollout(
            tuple(
                Pair(source, tuple(map(int, row[:length].tolist())))
                for source, row, length in zip(sources, ids, lengths, strict=True)
            ),
            tuple(map(float, self.tensors["advantages"][:, 0])),
            cut["old"],
            cut["reference"] if has_reference else (),
        )


def _first(row: Tensor, length: int) -> Tensor:
    return row[:length].clone()
