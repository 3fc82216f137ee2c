"""A target's part of a run, with a script in the place of the fuzzer: what it tells and leaves behind adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import __main__ as command
from fuzz import session
from fuzz.lines import Found
from fuzz.session import Result, fuzz

SCRIPT = """
import json, os, pathlib, sys
found = pathlib.Path(sys.argv[sys.argv.index("--found") + 1])

def tell(line, **fields):
    print(json.dumps({"type": line, **fields}), flush=True)

print("#2 NEW cov: 120 ft: 7 corp: 3/9b exec/s: 0 rss: 1Mb", flush=True)
tell("Found", kind="500", where="there", message="words", file="f")
if (found / "once").exists():
    tell("Progress", inputs=5, slowest_s=0.5, peak_bytes=2 << 20, left_s=0, outcomes={"200": 5}, is_last=True)
    sys.exit(0)
(found / "once").touch()
tell("Progress", inputs=3, slowest_s=0.25, peak_bytes=3 << 20, left_s=1.5, outcomes={"200": 3})
print("==1== ERROR: libFuzzer: deadly signal", flush=True)
(found / "crash-abc").write_bytes(b"input")
os._exit(77)
"""
"""Finds something, and breaks; the second time it comes to its end."""


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(session, "CHILD", (str(script),))
    monkeypatch.setattr(session, "WORK", tmp_path / "work")
    monkeypatch.setattr(session, "FOUND", tmp_path / "found")
    result = Result("messages")
    fuzz(result, 100, 3.0, 1, lambda *_: None)
    return result


def test_a_process_that_breaks_is_a_find_and_another_goes_on(result: Result) -> None:
    """Its input is named, its last words are kept, and the counts of both processes add up."""
    assert [find.kind for find in result.finds] == ["500", "process crashed"]
    assert [Path(find.file).name for find in result.finds] == ["f", "crash-abc"]
    assert "deadly signal" in result.finds[1].trace
    assert (result.inputs, result.outcomes["200"], result.coverage, result.kept) == (8, 8, 120, 3)
    assert (result.slowest_s, result.peak_bytes) == (0.5, 3 << 20)


def test_the_table_counts_finds_by_kind(result: Result) -> None:
    """One answer with 500, one crash, nothing slow; and the sentence says that there is something."""
    result.finds.append(Found("slow", "", "", ""))

    _, row, whole = (line.split() for line in command.table([result]).splitlines())

    assert row[:2] == ["messages", "8"] and row[5:8] == ["1", "1", "1"]
    assert whole[:5] == ["all", "8", "1", "1", "1"]
    assert command.verdict([result]).endswith("3 finds, see above")
    assert "nothing found" in command.verdict([Result("messages")])
