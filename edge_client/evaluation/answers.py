"""Answers: what each contestant made of each example, as an engine hands it over to be scored."""

from __future__ import annotations

from dataclasses import dataclass

from braid_common.example import Example

BASE = "base"
"""Name of the bare base, the first contestant of every evaluation."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One contestant's answer to one example.

    Attributes:
        loss: negative log-likelihood of the example's first target, in nats, summed over its tokens.
        text: what the contestant wrote, greedily.
    """

    loss: float
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One example with the answers of all contestants, in the contestants' order.

    Attributes:
        example: source and right answers.
        n_target_tokens: tokens of the first target that the losses are summed over.
        writable_targets: the example's targets as the base's tokenizer can write them. Characters that it has no piece
            for are lost: T5's own knows no curly brackets.
        source_is_cut, target_is_cut: the text was longer than the limits, and the rest of it was not looked at.
        answers: one per contestant.
    """

    example: Example
    n_target_tokens: int
    writable_targets: tuple[str, ...]
    source_is_cut: bool
    target_is_cut: bool
    answers: tuple[Answer, ...]
