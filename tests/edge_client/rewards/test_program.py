"""A reward program: what it is asked, and each way in which it can fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.errors import RewardFailed
from edge_client.rewards.program import RewardProgram

ANSWERS = [JudgedAnswer("what?", ("tea",), ("tea",), text) for text in ("tea", "a cup of tea", "")]
EACH_LINE = "import sys, json, os\nfor line in sys.stdin:\n    asked = json.loads(line)\n    "

Start = Callable[..., RewardProgram]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A program of this Python code, ended after the test."""
    programs: list[RewardProgram] = []

    def make(code: str, timeout_s: float = 60.0) -> RewardProgram:
        path = tmp_path / f"judge{len(programs)}.py"
        path.write_text(code)
        programs.append(RewardProgram([sys.executable, "-S", "-E", str(path)], timeout_s))
        return programs[-1]

    yield make
    for program in programs:
        program.close()


def test_each_answer_gets_its_number(start: Start) -> None:
    """The same process answers again and again; a bare number and an object are alike."""
    program = start(
        EACH_LINE + "n = len(asked['answer']) if asked['targets'] == ['tea'] and asked['source'] == 'what?' else -1\n"
        "    print(n if n % 2 else json.dumps({'reward': n, 'pid': os.getpid()}), flush=True)"
    )

    assert program(ANSWERS) == [3, 12, 0]
    assert program(ANSWERS[:1]) == [3]


def test_more_than_a_pipe_holds_goes_through(start: Start) -> None:
    """A program that answers line by line while it is still asked must not wait for its asker for ever."""
    program = start(EACH_LINE + "sys.stderr.write('x' * 200)\n    print(len(asked['answer']), flush=True)")
    answers = [JudgedAnswer("s" * 4000, ("t",), ("t",), "a" * (i % 7)) for i in range(400)]

    assert program(answers) == [i % 7 for i in range(400)]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import time; time.sleep(1000)", "has not answered within 0.5 s"),
        (EACH_LINE + "print(1, end='', flush=True)", "has not answered within 0.5 s"),
    ],
)
def test_a_program_that_hangs_is_ended(start: Start, code: str, says: str) -> None:
    """It is killed with all that it has started, and not waited for."""
    program = start(code, timeout_s=0.5)

    with pytest.raises(RewardFailed, match=says):
        program(ANSWERS)

    assert program._process is None


def test_what_a_program_has_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    """A judge that is a shell script is no more than its children."""
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "print(1, flush=True)\ntime.sleep(1000)"
    )
    program = start(code)
    assert program(ANSWERS[:1]) == [1]
    pid = int((tmp_path / "pid").read_text())
    assert _is_running(pid)

    program.close()

    for _ in range(10**6):
        if not _is_running(pid):
            break
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('no model file')", "has ended: no model file"),
        (EACH_LINE + "break", "has ended"),
        (EACH_LINE + "print('good', flush=True)", "'good' is no JSON"),
        (EACH_LINE + "print('[1]', flush=True)", "is no number"),
        (EACH_LINE + "print('true', flush=True)", "is no number"),
        (EACH_LINE + "print('{}', flush=True)", "is no number"),
        (EACH_LINE + "print('NaN', flush=True)", "'NaN' is no finite number"),
        (EACH_LINE + "print('-Infinity', flush=True)", "is no finite number"),
        (EACH_LINE + "print('9' * 400, flush=True)", "is no finite number"),
        (EACH_LINE + "print('[' * 1000, flush=True)", "is no JSON"),
        (EACH_LINE + "print('1' * 5000, end='', flush=True)", "more than 1024 bytes"),
        ("print('1\\n' * 9, flush=True); input()", "more than a line for each answer"),
    ],
)
def test_nonsense_is_told_in_one_sentence(start: Start, code: str, says: str) -> None:
    """Whatever a program writes, its asker gets RewardFailed and no other error."""
    program = start(code)

    with pytest.raises(RewardFailed) as failed:
        program(ANSWERS)

    assert says in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(RewardFailed, match="/no/such/judge cannot be started: No such file"):
        RewardProgram(["/no/such/judge"], 1.0)(ANSWERS)


def test_it_sees_none_of_the_clients_settings(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A join token may be in the client's environment."""
    monkeypatch.setenv("BRAID_TOKEN", "secret")
    monkeypatch.setenv("JUDGE_FACTOR", "7")
    program = start(
        EACH_LINE + "print(os.environ['JUDGE_FACTOR'] if 'BRAID_TOKEN' not in os.environ else 0, flush=True)"
    )

    assert os.environ["BRAID_TOKEN"] == "secret"
    assert program(ANSWERS[:1]) == [7]
