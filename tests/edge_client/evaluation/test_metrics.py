"""Metrics of answers against rouge_score itself and slow sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from braid_common.example import Example
from edge_client.evaluation.answers import Answer, Answered
from edge_client.evaluation.metrics import METRICS, ROUGE_KINDS, is_exact, rouge, score

TEXTS = (
    ("The red pump was replaced.", ("Pump replaced", "the red pumps were replacing")),
    ("nothing alike", ("a b c",)),
    ("", ("empty",)),
    ("Conveyor stopped twice; cleaned the light barrier", ("cleaned light barrier of conveyor 1", "no stop since")),
)


def answered(
    written: str, targets: tuple[str, ...], loss: float = 1.0, n_tokens: int = 1, writable: tuple[str, ...] = ()
) -> Answered:
    """One example with one contestant's answer."""
    example = Example("id", "", "source", targets[0], targets[1:])
    return Answered(example, n_tokens, writable or targets, False, False, (Answer(loss, written),))


def test_rouge_is_rouge_score_s_best_target_for_each_kind() -> None:
    """Each kind takes its own best target, as `score_multi` does; the mean is over examples."""
    scorer = RougeScorer(list(ROUGE_KINDS), use_stemmer=True)
    slow = {
        kind: np.mean([max(scorer.score(target, text)[kind].fmeasure for target in targets) for text, targets in TEXTS])
        for kind in ROUGE_KINDS
    }

    assert rouge([targets for _, targets in TEXTS], [text for text, _ in TEXTS]) == pytest.approx(slow)
    means = dict(zip(METRICS, score([answered(text, targets) for text, targets in TEXTS], 0).means, strict=True))
    assert {kind: means[kind] for kind in ROUGE_KINDS} == pytest.approx(slow)


def test_equal_texts_have_one_and_strange_ones_none() -> None:
    assert rouge([("one two three four",)], ["one two three four"]) == dict.fromkeys(ROUGE_KINDS, 1.0)
    assert rouge([("日本語",), ("!?",)], ["日本語", "!?"]) == dict.fromkeys(ROUGE_KINDS, 0.0)


def test_the_loss_is_a_mean_over_tokens_not_over_texts() -> None:
    sums = score([answered("a", ("a",), loss=6.0, n_tokens=2), answered("a", ("a",), loss=1.0, n_tokens=8)], 0)

    assert sums.means[METRICS.index("loss")] == pytest.approx(7 / 10)


@pytest.mark.parametrize(
    ("written", "targets", "is_right"),
    [
        ("yes", ("yes",), True),
        ("  a \n b\tc ", ("a b  c",), True),
        ("Yes", ("yes",), False),
        ("yes.", ("yes",), False),
        ("second", ("first", "second"), True),
        ("", ("x",), False),
    ],
)
def test_exact_match_looks_past_white_space_alone(written: str, targets: tuple[str, ...], is_right: bool) -> None:
    assert is_exact(targets, written) is is_right


def test_what_the_tokenizer_can_write_of_a_target_is_exact() -> None:
    one = answered("x < y", ("{x < y}",), writable=("x < y",))

    assert score([one], 0).means[METRICS.index("exact_match")] == 1


def test_tool_metrics_count_calls_alone() -> None:
    """Two calls, one with the right arguments, beside a reply that counts for neither."""
    examples = [
        answered('call: f {"a": 1}', ('call: f {"a": 1}',)),
        answered('call: f {"a": 1}', ('call: f {"a": 2}',)),
        answered('call: f {"a": 1}', ("say: hello",)),
    ]
    heard: list[int] = []

    means = dict(zip(METRICS, score(examples, 0, heard.append).means, strict=True))

    assert (means["tool_name"], means["tool_arguments"]) == (1.0, 0.5)
    assert means["exact_match"] == pytest.approx(1 / 3)
    assert heard == [1, 2, 3]


def test_without_calls_there_is_no_tool_metric() -> None:
    means = dict(zip(METRICS, score([answered("call: f {}", ("say: hello",))], 0).means, strict=True))

    assert math.isnan(means["tool_name"]) and math.isnan(means["tool_arguments"])
