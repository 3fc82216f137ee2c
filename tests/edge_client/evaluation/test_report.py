"""The report: its keys, its differences, the examples it shows, and its table."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from braid_common.example import Example
from braid_common.text_form import DEFAULT_FORM
from edge_client.evaluation.answers import Answer, Answered
from edge_client.evaluation.metrics import METRICS
from edge_client.evaluation.report import Difference, Report, Setting, from_json, make_report, spread_by_gain, to_json
from edge_client.evaluation.table import example_lines, table_lines, verdict

SETTING = Setting(data="notes.jsonl", part="all", n_available=40, model="builtin", format="fp32", form=DEFAULT_FORM)
ADAPTERS = {"base": "", "same": "/adapters/same", "better": "/adapters/better"}


def one(place: int, *, target: str = "red pump in hall 5", writable: str | None = None) -> Answered:
    """An example whose third contestant writes more of what is right than the first two, and has less loss."""
    hard = 1 + place % 7
    words = target.split()
    return Answered(
        example=Example(f"line {place}", "", f"the source of {place}", target),
        n_target_tokens=4 + place % 3,
        writable_targets=(target if writable is None else writable,),
        source_is_cut=place % 10 == 0,
        target_is_cut=False,
        answers=(
            Answer(2.0 * hard, words[0]),
            Answer(2.0 * hard, words[0]),
            Answer(1.5 * hard, " ".join(words[: 1 + place % 5])),
        ),
    )


def make(n: int = 40, **changes: Any) -> Report:
    return make_report([one(place, **changes) for place in range(n)], ADAPTERS, SETTING, seed=3, n_shown=3)


def test_the_keys_that_programs_rely_on() -> None:
    """`n_examples`, and per contestant every metric as a plain number; the base comes first."""
    facts = json.loads(to_json(make()))

    assert facts["n_examples"] == 40
    assert list(facts["contestants"]) == ["base", "same", "better"]
    for name, contestant in facts["contestants"].items():
        assert contestant["adapter"] == ADAPTERS[name]
        assert set(METRICS) <= set(contestant)
        assert contestant["tool_name"] is None and contestant["tool_arguments"] is None
        assert all(isinstance(contestant[metric], float) for metric in METRICS[:5])
    assert facts["contestants"]["base"]["difference"] is None
    assert facts["contestants"]["base"]["loss"] == pytest.approx(
        sum(2.0 * (1 + i % 7) for i in range(40)) / sum(4 + i % 3 for i in range(40))
    )
    assert facts["n_sources_cut"] == 4
    assert facts["setting"]["form"]["prefix"] == DEFAULT_FORM.prefix


def test_a_report_is_read_back_as_it_was() -> None:
    report = make()

    assert from_json(to_json(report)) == report
    with pytest.raises(ValueError):
        from_json(b'{"n_examples": 3}')


def test_equal_answers_differ_by_exactly_zero() -> None:
    """For every metric that counts; and the interval has no width."""
    difference = make().contestants["same"].difference

    assert difference == {metric: Difference(0.0, (0.0, 0.0)) for metric in METRICS[:5]}


def test_differences_are_those_of_the_metrics() -> None:
    report = make()
    base, better = report.contestants["base"], report.contestants["better"]

    assert better.difference is not None
    for metric, difference in better.difference.items():
        value, of_base = better.value(metric), base.value(metric)
        assert value is not None and of_base is not None and difference.interval is not None
        assert difference.value == pytest.approx(value - of_base)
        assert difference.interval[0] <= difference.value <= difference.interval[1]
        assert verdict(difference, metric) == ("better" if difference.value else "")
    worse = Difference(0.1, (0.05, 0.2))
    assert verdict(worse, "loss") == "worse"
    assert verdict(worse, "rouge1") == "better"


def test_the_same_seed_gives_the_same_report() -> None:
    assert make() == make()


def test_shown_examples_are_spread_over_the_gain() -> None:
    """Not only where the adapter shines: first, median and last of the gains, ties by place."""
    assert spread_by_gain(np.array([0.0, 0.5, -1.0, 0.5, 0.2]), 3) == [1, 4, 2]
    assert spread_by_gain(np.array([0.0, 0.5, -1.0]), 1) == [0]
    assert spread_by_gain(np.array([1.0, 2.0]), 5) == [1, 0]

    shown = make().examples

    gains = [one.rougeL["better"] - one.rougeL["base"] for one in shown]
    assert len(gains) == 3 and gains[0] > gains[1] > gains[2]
    assert shown[0].written["base"] == "red"


def test_lost_characters_and_foreign_letters_are_said() -> None:
    """With T5's tokenizer no text has curly brackets, and of Japanese ROUGE sees nothing."""
    (lossy,) = make(target='call: f {"x": 1}', writable='call: f "x": 1').notes
    (foreign,) = make(target="日本 語").notes

    assert "40 of 40" in lossy and "({ })" in lossy
    assert "40 of 40" in foreign and "ROUGE" in foreign


def test_one_example_has_numbers_and_no_intervals() -> None:
    report = make(1)

    assert report.contestants["better"].loss == pytest.approx(1.5 / 4)
    assert set(report.contestants["better"].intervals.values()) == {None}
    assert "to" not in " ".join(table_lines(report, ["exact_match"])[1:]).split()


def test_the_table_has_a_block_per_metric_that_counts() -> None:
    lines = table_lines(make())

    assert sum(not line.startswith(" ") for line in lines) == 5
    row = next(line for line in lines if line.startswith("  better"))
    assert row.endswith("better") and row.count(" to ") == 2
    calls = table_lines(make(target='call: f {"x": 1}'))
    assert "right tool and arguments, % of the calls (n = 40)" in calls


def test_no_name_and_no_text_moves_the_cursor() -> None:
    """Control characters of an adapter's name and of what was written are not printed."""
    answered = [one(place, target="red\x1b[2Jpump and more") for place in range(3)]
    report = make_report(answered, {"base": "", "a": "", "\x1b[2Jx": ""}, SETTING, seed=0, n_shown=2)

    text = "\n".join([*table_lines(report), *example_lines(report)])

    assert "\x1b" not in text
    assert "red?[2Jpump" in text
