"""docs/decisions/README.md lists the decisions as their files are, and a malformed file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.decisions_index import DECISIONS, index, main, read_decision, read_decisions

GOOD = "# 0001 · Title\n\nDate: 2026-11-29\n\nStatus: accepted\n\n## Context\n\nWhy.\n\n## Decision\n\nWhat.\n"


def test_the_index_is_up_to_date() -> None:
    """The committed table is what `python -m scripts.decisions_index` would write."""
    assert main(["--check"]) == 0


def test_what_replaces_a_decision_exists_and_came_later() -> None:
    """A status names decisions of higher numbers by their own files."""
    decisions = read_decisions()
    names = {decision.number: decision.path.name for decision in decisions}
    for decision in decisions:
        for link in decision.status.split("[")[1:]:
            number, _, name = link.partition("](")
            assert number > decision.number and names[number] == name.partition(")")[0], decision.path.name
    assert sum(decision.status != "accepted" for decision in decisions) > 5


def test_negative_results_stay() -> None:
    """What was tried and failed is as much worth as what was chosen: at least as many as ever stood here."""
    assert sum("## Negative" in path.read_text(encoding="utf-8") for path in DECISIONS.glob("*.md")) >= 17


def test_drift_is_found_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new file without a row fails the check; writing makes it pass."""
    (tmp_path / "0001-title.md").write_text(GOOD, encoding="utf-8")

    assert main(["--check"], tmp_path) == 1
    assert "run `python -m scripts.decisions_index`" in capsys.readouterr().err
    assert main([], tmp_path) == 0 and main(["--check"], tmp_path) == 0
    assert "| 0001 | [Title](0001-title.md) | 2026-11-29 | accepted |" in index(read_decisions(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0001-Title.md", GOOD),
        ("0002-title.md", GOOD),
        ("0001-title.md", GOOD.replace("Date: ", "")),
        ("0001-title.md", GOOD.replace("accepted", "superseded by 0002")),
        ("0001-title.md", GOOD.replace("## Context", "## Background")),
        ("0001-title.md", GOOD.replace("## Decision\n\nWhat.\n", "")),
    ],
)
def test_a_malformed_decision_is_named(name: str, text: str, tmp_path: Path) -> None:
    """File name, number, date, status and sections are as in all others."""
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=name):
        read_decision(tmp_path / name)


def test_a_gap_in_the_numbers_is_found(tmp_path: Path) -> None:
    """Numbers are never reused and none is skipped."""
    (tmp_path / "0002-title.md").write_text(GOOD.replace("0001", "0002"), encoding="utf-8")

    with pytest.raises(ValueError, match="not 1 to 1"):
        read_decisions(tmp_path)
