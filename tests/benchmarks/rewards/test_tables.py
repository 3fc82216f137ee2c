"""Tables of learning from rewards: gains are by pairs of seeds, and boards of opposite wishes are compared."""

from __future__ import annotations

import pytest

from benchmarks.rewards.__main__ import SETTINGS
from benchmarks.rewards.runs import CONDITIONS, Judged, RewardStudy, Run
from benchmarks.rewards.tables import print_study


def judged(overlap: float, words: float) -> Judged:
    rewards = {"overlap": overlap, "tool_call": overlap / 2, "long": 0.1, "short": 0.9}
    return Judged(greedy=rewards, sampled=rewards, greedy_words=words, sampled_words=words, kl=0.1, loss=1.0)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Three seeds, far apart; in each, rewards gain 0.05 and the boards that want opposites differ by six words."""
    runs = []
    for seed, level in enumerate((0.2, 0.4, 0.6)):
        warm, jitter = judged(level, 5.0), 0.001 * seed
        runs += [
            Run(
                condition="rewards", seed=seed, warm=warm, merged=judged(level + 0.05 + jitter, 5.0), own=(), cpu_s=1.0
            ),
            Run(
                condition="opposite boards",
                seed=seed,
                warm=warm,
                merged=judged(level, 6.0),
                own=(judged(level, 9.0 + jitter), judged(level, 3.0)),
                cpu_s=1.0,
            ),
        ]
    print_study(RewardStudy(machine="a machine", settings=SETTINGS, runs=tuple(runs)))
    return capsys.readouterr().out.splitlines()


def row(printed: list[str], title: str) -> list[str]:
    (line,) = (line for line in printed if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_gain_is_clear_where_seeds_differ_by_more(printed: list[str]) -> None:
    assert row(printed, "after right answers")[0] == "0.400 ± 0.200"
    assert row(printed, "rewards: gain")[0] == "**+0.051 ± 0.001**"
    assert row(printed, "rewards: gain")[2] == "+0.00 ± 0.00"


def test_opposite_boards_are_compared_with_each_other(printed: list[str]) -> None:
    less = row(printed, "opposite boards: long less short")

    assert less[5] == "**+6.00 ± 0.00**"
    assert less[0] == "+0.000 ± 0.000"
    assert row(printed, "opposite boards: merged")[5] == "6.00 ± 0.00"


def test_conditions_that_were_not_run_are_left_out(printed: list[str]) -> None:
    titles = {line.split("|")[1].strip() for line in printed if line.startswith("|")}

    assert {"rewards", "opposite boards: short"} <= titles
    assert not any(title.startswith("rewards, ") for title in titles)
    assert {"rewards, kl 0", "rewards, baseline"} <= set(CONDITIONS)
