"""`edge-client reward fit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_client.cli.main import run
from edge_client.errors import ExitCode


def write(path: Path, n_sources: int, good: tuple[int, ...] = (0, 1)) -> Path:
    lines = [
        {"source": f"which drinks are there, number {i}?", "answer": ("no idea", "tea and coffee")[j], "reward": j}
        for i in range(n_sources)
        for j in good
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_answers_of_one_kind_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 4, and nothing is written."""
    rated = write(tmp_path / "rated.jsonl", 100, (1,))

    assert run(["reward", "fit", str(rated), "--out", str(tmp_path / "head")]) == ExitCode.DATA

    told = capsys.readouterr().err
    assert "has 100 good and 0 bad answers" in told
    assert "Traceback" not in told
    assert not (tmp_path / "head").exists()


@pytest.mark.slow
def test_a_head_is_written_and_its_agreement_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON on stdout alone; where people always like the same words, the head finds them."""
    rated = write(tmp_path / "rated.jsonl", 100)

    assert run(["reward", "fit", str(rated), "--out", str(tmp_path / "head"), "--json"]) == ExitCode.OK

    facts = json.loads(capsys.readouterr().out)
    assert facts["auc"] == facts["accuracy"] == 1.0
    assert facts["majority"] == 0.5
    assert facts["n_good"] == facts["n_bad"] >= 10
    assert facts["same_source"] == facts["length_auc"] == 1.0, "the good answer is the longer one of each source"
    assert facts["n_same_source"] == facts["n_good"]
    assert (tmp_path / "head").stat().st_size > 1000


@pytest.mark.slow
def test_a_head_that_may_be_chance_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where people judged without regard to the answer."""
    rated = tmp_path / "rated.jsonl"
    lines = [{"source": f"number {i}?", "answer": f"tea {i % 7}", "reward": i * 7919 % 13 % 2} for i in range(200)]
    rated.write_text("\n".join(map(json.dumps, lines)))

    assert run(["reward", "fit", str(rated), "--out", str(tmp_path / "head")]) == ExitCode.OK

    told = capsys.readouterr().out
    assert "it may be chance: do not rely on it" in told
    assert "of 0 pairs of answers to the same source" in told
