"""`quantize report`: sizes that hold, errors that order the formats, and a loss wherever one can be had."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers

from edge_client.engines.lean.base_loss import base_loss
from quantize import cli
from quantize.base import FORMATS, load_base
from quantize.cli import main
from quantize.report import report
from quantize.sample import MAX_PAIRS
from quantize.writer import convert


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def folder(config: Any, tensors: Any, make_base: Any) -> Path:
    """A base with a tokenizer of words."""
    made: Path = make_base(config, tensors)
    pieces = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i + 3 for i in range(100)}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(made / "tokenizer.json"))
    return made


def write_lines(path: Path, *lines: Any) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_every_format_has_its_size_error_and_loss(folder: Path, tmp_path: Path) -> None:
    """Sizes are those of the file that is written and the base that is loaded; fewer bits mean more error."""
    rows = report(folder, loss=base_loss).formats

    assert [row.format for row in rows] == list(FORMATS)
    assert [row.resident_bytes for row in rows] == [load_base(folder, format).resident_bytes for format in FORMATS]
    for row in rows:
        convert(folder, row.format, tmp_path / row.format)
        assert row.disk_bytes == (tmp_path / row.format / "model.safetensors").stat().st_size
        assert row.loss is not None
        assert row.loss_change == pytest.approx(row.loss - (rows[0].loss or 0), abs=1e-9)
    errors = [row.relative_error for row in rows]
    assert errors == sorted(errors)
    assert (errors[0], rows[0].loss_change) == (0, 0)


def test_changes_are_against_the_stored_values(folder: Path, tmp_path: Path) -> None:
    """Of an int8 folder, int8 and fp32 are exact; and the report says what the files hold."""
    convert(folder, "int8", tmp_path / "int8")

    found = report(tmp_path / "int8", loss=base_loss)

    assert found.stored == "int8"
    exact = {row.format for row in found.formats if row.relative_error < 1e-7 and row.loss_change == 0}
    assert exact == {"fp32", "int8"}


def test_an_nf4_folder_is_reported_with_a_word_on_it(folder: Path, tmp_path: Path) -> None:
    """What nf4 lost cannot be seen in its own files, so the report says so."""
    convert(folder, "nf4", tmp_path / "nf4")

    found = report(tmp_path / "nf4", loss=base_loss)

    assert found.stored == "nf4"
    assert any("not those of the base it was made of" in note for note in found.notes)
    assert found.formats[-1].loss_change == pytest.approx(0, abs=1e-5)


def test_a_base_that_knows_nothing_is_told(folder: Path) -> None:
    """Random weights are no better than a guess, and one line says that their losses mean nothing."""
    assert any("no better than a guess" in note for note in report(folder, loss=base_loss).notes)


def test_a_tied_base_is_reported(config: Any, tensors: Any, make_base: Any, folder: Path) -> None:
    """The embedding serves as output layer, in size and in loss."""
    del tensors["lm_head.weight"]
    tied = make_base(config | {"tie_word_embeddings": True}, tensors, "tied")
    (tied / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())

    rows = report(tied, loss=base_loss).formats

    assert [row.resident_bytes for row in rows] == [load_base(tied, format).resident_bytes for format in FORMATS]
    assert all(row.loss is not None and math.isfinite(row.loss) for row in rows)


def test_own_text_is_measured(folder: Path, tmp_path: Path) -> None:
    """--text: the first MAX_PAIRS lines, each target with its end."""
    text = write_lines(tmp_path / "t.jsonl", *[{"source": "w1 w2", "target": "w3 w4 w5"}] * (MAX_PAIRS + 5))

    facts = json.loads(run("report", str(folder), "--text", text, "--json").stdout)

    assert facts["n_loss_tokens"] == 4 * MAX_PAIRS
    assert facts["formats"][0]["loss"] > 0


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"source": "a"}', '{"source": "a", "target": 3}', '{"source": " ", "target": "b"}', "null", ""]
)
def test_a_line_that_is_no_example_is_named(line: str, folder: Path, tmp_path: Path) -> None:
    """File and line in one sentence, exit status 1."""
    text = write_lines(tmp_path / "t.jsonl", {"source": "w1", "target": "w2"}, line, "{}")

    result = run("report", str(folder), "--text", text)

    assert result.exit_code == 1
    assert "t.jsonl:2 is no example" in result.output


@pytest.mark.parametrize("content", [None, ""])
def test_a_text_that_is_not_there_is_one_sentence(content: str | None, folder: Path, tmp_path: Path) -> None:
    """A missing or empty file."""
    if content is not None:
        (tmp_path / "t.jsonl").write_text(content)

    result = run("report", str(folder), "--text", str(tmp_path / "t.jsonl"))

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("tokenizer", [None, "", "{", '{"model": {}}', "[]", '{"model": {"type": "WordLevel"}}'])
def test_without_a_tokenizer_the_rest_is_reported(tokenizer: str | None, folder: Path, tmp_path: Path) -> None:
    """Missing or damaged: the loss is left out and the reason told; but who gave a text gets an error."""
    (folder / "tokenizer.json").unlink()
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer)
    text = write_lines(tmp_path / "t.jsonl", {"source": "w1", "target": "w2"})

    without, asked = run("report", str(folder)), run("report", str(folder), "--text", text)

    assert without.exit_code == 0
    assert "note: no loss:" in without.output
    assert asked.exit_code == 1
    assert "tokenizer.json" in asked.output


def test_without_the_engine_the_rest_is_reported(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where edge_client is not installed the loss is left out and the reason told; who gave a text gets an error."""
    monkeypatch.setattr(cli, "ENGINE", "edge_client.engines.that_is_not_there")
    text = write_lines(tmp_path / "t.jsonl", {"source": "w1", "target": "w2"})

    without, asked = run("report", str(folder)), run("report", str(folder), "--text", text)

    assert without.exit_code == 0
    assert "note: no loss: it is computed by edge_client's training engine" in without.output
    assert asked.exit_code == 1
    assert "not installed here" in asked.output


@pytest.mark.parametrize("loss", [base_loss, None])
def test_progress_covers_every_pass(folder: Path, loss: Any) -> None:
    """`tell` ends at the whole, also where the loss is left out."""
    told: list[tuple[int, int]] = []

    report(folder, loss=loss, tell=lambda *counts: told.append(counts))

    assert told[-1][0] == told[-1][1]
    assert told == sorted(told)


@pytest.mark.slow
def test_the_builtin_base_is_better_than_a_guess() -> None:
    """Its loss on the sample is a trained model's, and int8, in which it is stored, changes nothing."""
    import builtin_base

    found = report(builtin_base.folder(), loss=base_loss)

    losses = {row.format: row.loss for row in found.formats}
    assert found.notes == ()
    assert losses["int8"] == losses["fp32"]
    assert (losses["fp32"] or 99) < math.log(8000) - 2
