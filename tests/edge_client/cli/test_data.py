"""`edge-client data` and what `join` says of its data: every kind of input, on the command line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_client.agent.preflight import Probes
from edge_client.cli.main import run
from edge_client.errors import ExitCode
from tests.fakes.data_files import write_jsonl

SHARED = Path(__file__).resolve().parents[4] / "shared" / "cases"
PROBES = Probes(packages=lambda: None, fork=lambda call, kind: call())
NUMBERS = [(f"Tell me about the number {n} and why it matters.", f"Number {n} follows {n - 1}.") for n in range(12)]
KEYS = {
    *("format", "encoding", "columns", "ignored_columns", "n_examples", "n_train", "n_held_out", "n_skipped"),
    *("skipped", "truncated_sources", "truncated_targets", "examples"),
}
DIALOGUE = {"fname": "t0", "dialogue": "#A#: Hi\n#B#: Hello", "summary1": "They greet.", "summary2": "Hi."}


@dataclass(frozen=True)
class Case:
    """An input, and what is right for it.

    Attributes:
        file: its name in ../shared/cases.
        content: the same shape, made here.
        flags: that it needs; without them it is refused with the words `refused`.
        facts: that `data --json` tells.
        joins: whether a board may train on it.
    """

    file: str
    content: bytes | dict[str, bytes]
    flags: tuple[str, ...] = ()
    refused: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    joins: bool = True


def table(header: str, rows: list[tuple[str, str]] = NUMBERS, delimiter: str = ",") -> bytes:
    return "".join([header + "\n", *(f'"{a}"{delimiter}"{b}"\n' for a, b in rows)]).encode()


def lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def pairs(source: str, target: str) -> list[dict[str, str]]:
    return [{source: text, target: title} for text, title in NUMBERS]


FRENCH = [(f"Où est le câble réseau numéro {n} ?", "Il est derrière l’écran, côté fenêtre.") for n in range(10)]
ALPACA = [{"instruction": f"Do {n}", "input": "this" * (n % 2), "output": "done"} for n in range(4)]

CASES = (
    Case("alpaca.jsonl", lines(ALPACA), facts={"n_examples": 4, "shape": "alpaca", "ignored_columns": []}),
    Case(
        "three_summaries.jsonl",
        lines([DIALOGUE] * 3),
        ("--source", "dialogue", "--target", "summary1"),
        "fname, dialogue, summary1, summary2",
        {"columns": {"source": ["dialogue"], "target": ["summary1"]}},
    ),
    Case(
        "section_columns.csv",
        b"ID,section_header,section_text,dialogue\n" + b'0,GENHX,"A note.","Doctor: Hi\nPatient: Better."\n' * 2,
        ("--source", "dialogue", "--target", "section_text"),
        "ID, section_header, section_text, dialogue",
        {"ignored_columns": ["ID", "section_header"], "n_skipped": 0},
    ),
    Case(
        "array.json",
        json.dumps(pairs("source", "target"), indent=2).encode(),
        facts={"format": "json", "n_examples": 12},
    ),
    Case("semicolon.csv", table("question;answer", delimiter=";"), facts={"delimiter": ";", "n_examples": 12}),
    Case(
        "latin1.csv",
        b"question,answer\n" + "".join(f'"{a}","{b}"\n' for a, b in [*FRENCH, *NUMBERS[:3]]).encode("cp1252"),
        facts={"encoding": "cp1252 (guessed)", "n_examples": 13, "n_skipped": 0},
    ),
    Case("capital.csv", table("Question,Answer"), facts={"format": "csv", "n_examples": 12, "n_skipped": 0}),
    Case("capital.jsonl", lines(pairs("Question", "Answer")), facts={"format": "jsonl", "n_examples": 12}),
    Case(
        "one_example.jsonl",
        lines(pairs("source", "target")[:1]),
        facts={"n_examples": 1, "is_enough": False},
        joins=False,
    ),
    Case(
        "numeric.jsonl",
        lines([{"source": f"{n} plus {n}", "target": 2 * n} for n in range(12)]),
        facts={"n_examples": 12},
    ),
    Case(
        "null_nan.jsonl",
        b'{"source": "a", "target": null}\n{"source": "a", "target": NaN}\n{"source": "x", "target": "y"}\n',
        facts={"n_examples": 1, "n_skipped": 2},
        joins=False,
    ),
    Case(
        "crlf_bom.jsonl",
        b"\xef\xbb\xbf" + lines(pairs("source", "target")).replace(b"\n", b"\r\n"),
        facts={"n_examples": 12, "n_skipped": 0, "encoding": "utf-8"},
    ),
    Case(
        "folder_jsonl",
        {name: lines(pairs("source", "target")) for name in ("test.jsonl", "train.jsonl")},
        facts={"n_examples": 24, "n_duplicates": 12},
    ),
)


@pytest.fixture(params=["shared", "here"])
def origin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(case: Case, origin: str, tmp_path: Path) -> Path:
    """The case's file: the shared one, or one of the same shape that is made here."""
    if origin == "shared":
        if not (SHARED / case.file).exists():
            pytest.skip(f"{SHARED / case.file} is not here")
        return SHARED / case.file
    path = tmp_path / case.file
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        path.mkdir()
        for name, content in case.content.items():
            (path / name).write_bytes(content)
    return path


def told(capsys: Any, *arguments: str) -> dict[str, Any]:
    """What `edge-client data --json` says."""
    assert run(["data", *arguments, "--json"]) == ExitCode.OK
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_data_of_every_kind_is_shown(case: Case, path: Path, capsys: Any) -> None:
    """All keys, the facts of the kind, three examples; without the flags that it needs its columns are named."""
    if case.refused:
        assert run(["data", str(path)]) == ExitCode.DATA
        error = capsys.readouterr().err
        assert case.refused in error
        assert "--source" in error
    facts = told(capsys, str(path), *case.flags)

    assert facts.keys() >= KEYS
    expected = case.facts if case.file != "three_summaries.jsonl" else {"columns": case.facts["columns"]}
    assert {name: facts[name] for name in expected} == expected
    assert facts["n_examples"] == facts["n_train"] + facts["n_held_out"]
    assert 1 <= len(facts["examples"]) <= 3
    assert all(example["source"].startswith("summarize: ") and example["target"] for example in facts["examples"])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_join_tells_or_refuses_before_it_enrols(case: Case, path: Path, tmp_path: Path, capsys: Any) -> None:
    """Two lines about the data, then the server is asked (here: none is there); or status 4, and nothing is sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{free.getsockname()[1]}"
    flags = ["--server", server, "--token", "T", "--state", str(tmp_path / "state"), "--data", str(path), *case.flags]
    # Of shared cases some hold one example, whose shape alone is what they show.
    joins = case.joins and facts_of(path, case, capsys)["is_enough"]

    status = run(["join", *flags], PROBES)

    printed = capsys.readouterr()
    if not joins:
        assert status == ExitCode.DATA
        assert "at least 2 are needed" in printed.err
        assert not (tmp_path / "state").exists()
        return
    assert status == ExitCode.UNREACHABLE
    told_lines = [line for line in printed.out.splitlines() if line.startswith("data: ")]
    assert len(told_lines) == 2
    assert str(path) in told_lines[0]
    assert "to train on" in told_lines[1]


def facts_of(path: Path, case: Case, capsys: Any) -> dict[str, Any]:
    return told(capsys, str(path), *case.flags)


def test_every_file_of_a_folder_is_named(tmp_path: Path, capsys: Any) -> None:
    """With its own format and counts, and what was not read."""
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / name, pairs("text", "summary"))
    (tmp_path / "c.pdf").write_bytes(b"%PDF")

    assert run(["data", str(tmp_path)]) == ExitCode.OK

    out = capsys.readouterr().out
    assert f"{tmp_path / 'a.jsonl'}: jsonl, utf-8: 12 examples, 0 skipped" in out
    assert f"not read    {tmp_path / 'c.pdf'} (1 file)" in out
    assert "12 of them repeat another" in out


def test_lengths_and_cuts_are_those_of_the_limits(tmp_path: Path, capsys: Any) -> None:
    """Numbers, prefix and base as asked; the example is shown as it is cut."""
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "word " * n, "summary": "a b c " * n} for n in range(1, 21)])

    facts = told(capsys, str(path), "--max-source-tokens", "12", "--max-target-tokens", "8", "--prefix", "shorten: ")
    longer = told(capsys, str(path), "--max-source-tokens", "500", "--max-target-tokens", "500")

    assert 0.3 < facts["truncated_sources"] < 0.9
    assert 0.3 < facts["truncated_targets"] <= 0.95
    assert longer["truncated_sources"] == longer["truncated_targets"] == 0
    assert (facts["prefix"], facts["max_source_tokens"], facts["model"]) == ("shorten: ", 12, "builtin")
    assert facts["examples"][0] == {"source": "shorten: word", "target": "a b c"}
    assert facts["source_tokens"]["p50"] < facts["source_tokens"]["p100"]
    assert len(facts["examples"][2]["target"]) < len("a b c a b c a b c")


def test_the_limits_of_a_server_need_a_board_that_has_joined(tmp_path: Path, capsys: Any) -> None:
    """Else the run's settings are nobody's to see; numbers do as well."""
    path = write_jsonl(tmp_path / "a.jsonl", pairs("text", "summary"))

    assert run(["data", str(path), "--server", "http://127.0.0.1:9", "--state", str(tmp_path / "s")]) == ExitCode.CONFIG

    assert "give the limits as numbers" in capsys.readouterr().err


def test_skipped_lines_have_place_and_reason(tmp_path: Path, capsys: Any) -> None:
    """For programs and for people."""
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "a", "summary": "b"}\nno json\n{"text": "c", "summary": ""}\n{"text": "d", "summary": "e"}\n'
    )

    facts = told(capsys, str(path))
    run(["data", str(path)])

    assert [skip["place"] for skip in facts["skipped"]] == [f"{path}:2", f"{path}:3"]
    assert facts["skipped"][1]["reason"] == "summary is empty"
    assert f"{path}:3: summary is empty" in capsys.readouterr().out


def test_join_in_json_tells_the_same_in_an_event(tmp_path: Path, capsys: Any) -> None:
    """The notice about unusable lines stays the first line."""
    path = write_jsonl(tmp_path / "a.jsonl", [*pairs("text", "summary"), {"text": "x"}])
    flags = ["--server", "http://127.0.0.1:9", "--token", "T", "--state", str(tmp_path / "s"), "--data", str(path)]

    run(["join", *flags, "--json"], PROBES)

    notice, data, *_ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert notice["message"].startswith(f"1 unusable lines or files in {path} are left out")
    assert data["event"] == "data"
    assert (data["n_examples"], data["n_skipped"], data["delimiter"]) == (12, 1, None)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flags", "file", "environment"])
def test_columns_come_from_flags_file_or_environment(
    how: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several targets, names with spaces, a template with a new line: the same in each of the three."""
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"A b": f"{n}", "c": "d", "First one": "x", "two": "y"} for n in range(3)]
    )
    flags = ["--server", "http://127.0.0.1:9", "--token", "T", "--state", str(tmp_path / "s"), "--data", str(path)]
    if how == "flags":
        flags += ["--source", r"{A b}\n{c}", "--target", "First one", "--target", "two", "--encoding", "utf-8"]
    elif how == "file":
        config = tmp_path / "edge-client.toml"
        config.write_text('source = "{A b}\\n{c}"\ntarget = ["First one", "two"]\nencoding = "utf-8"\n')
        flags += ["--config", str(config)]
    else:
        monkeypatch.setenv("BRAID_SOURCE", r"{A b}\n{c}")
        monkeypatch.setenv("BRAID_TARGET", "First one\ntwo")
        monkeypatch.setenv("BRAID_ENCODING", "utf-8")

    run(["join", *flags, "--json"], PROBES)

    data = json.loads(capsys.readouterr().out.splitlines()[0])
    assert data["columns"] == {"source": ["A b", "c"], "target": ["First one", "two"]}
    assert data["n_examples"] == 3


@pytest.mark.parametrize(
    ("line", "words"), [("target = 3", "target = 3"), ("target = [1]", "target"), ("source = 3", "str")]
)
def test_a_column_of_the_wrong_type_in_the_file(line: str, words: str, tmp_path: Path, capsys: Any) -> None:
    """Named with the file."""
    config = tmp_path / "edge-client.toml"
    config.write_text(line + "\n")

    assert run(["join", "--config", str(config)], PROBES) == ExitCode.CONFIG

    error = capsys.readouterr().err
    assert words in error
    assert str(config) in error


def test_one_target_in_the_file_is_a_text(tmp_path: Path, capsys: Any) -> None:
    """`target = "c"` is as good as a list of one."""
    path = write_jsonl(tmp_path / "a.jsonl", [{"a": f"{n}", "c": "d"} for n in range(3)])
    config = tmp_path / "edge-client.toml"
    config.write_text(f'source = "a"\ntarget = "c"\ndata = {json.dumps(str(path))}\nserver = "http://127.0.0.1:9"\n')

    run(["join", "--config", str(config), "--token", "T", "--state", str(tmp_path / "s"), "--json"], PROBES)

    assert json.loads(capsys.readouterr().out.splitlines()[0])["columns"]["target"] == ["c"]


def test_looking_loads_no_tensor_library(tmp_path: Path) -> None:
    """A board without torch can look at its data."""
    path = write_jsonl(tmp_path / "a.jsonl", pairs("text", "summary"))
    script = (
        "import sys; from edge_client.cli.main import run\n"
        f"assert run(['data', {str(path)!r}]) == 0\n"
        "assert not {'torch', 'transformers', 'aiohttp', 'chardet', 'pyarrow'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3], capture_output=True)
