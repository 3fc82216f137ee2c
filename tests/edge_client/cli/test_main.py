"""Every bad input ends in one clear line, a hint and the documented status: no traceback, no damaged state."""

from __future__ import annotations

import json
import shutil
import socket
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from edge_client.agent.preflight import Probes
from edge_client.cli.main import COMMANDS, run
from edge_client.errors import DataError, ExitCode
from edge_client.host.condition.condition import read_condition
from edge_client.host.forked import ForkedError, run_forked
from edge_client.host.packages import require_packages
from edge_client.host.torch_trial import Trial
from tests.fakes.sysfs import ORIN_NANO, lay_out

FINGERPRINT = "ab" * 32


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Flags of a join that lacks nothing but a server."""
    monkeypatch.setattr("edge_client.network.retry.FIRST_DELAY_S", 0.001)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"source": "text {i}", "target": "title {i}"}}\n' for i in range(40)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "--server": f"http://127.0.0.1:{port}",
        "--token": "T",
        "--data": str(data),
        "--state": str(tmp_path / "state"),
    }


# Forking a test process that has threads is what newer Pythons warn about; one test below does it for real. No package
# is looked for: these tests run without torch as well.
PROBES = Probes(packages=lambda: None, fork=lambda call, kind: call())


def join(flags: dict[str, str], *extra: str, probes: Probes = PROBES) -> int:
    return run(["join", *(part for pair in flags.items() for part in pair), *extra], probes)


def assert_one_line(error: str) -> None:
    lines = error.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith("  → ") for line in lines[1:])
    assert len(lines) == 2, "a message and what to do"
    assert "Traceback" not in error


BAD_FLAGS = {
    "no server": ({"--server": ""}, ExitCode.CONFIG, "no server"),
    "server with a password": ({"--server": "http://me:secret@host"}, ExitCode.CONFIG, "not an address"),
    "server without scheme": ({"--server": "host:8470"}, ExitCode.CONFIG, "not an address"),
    "unreachable server": ({}, ExitCode.UNREACHABLE, "cannot be reached"),
    "no token": ({"--token": ""}, ExitCode.CONFIG, "token"),
    "bad fingerprint": ({"--fingerprint": "12:34"}, ExitCode.CONFIG, "fingerprint"),
    "bad window": ({"--window": "25:00-6"}, ExitCode.CONFIG, "is no time of a day"),
    "window of no length": ({"--window": "06:00-06:00"}, ExitCode.CONFIG, "ends when it starts"),
    "bad limit": ({"--below": "700"}, ExitCode.CONFIG, "not between 30 and 110 °C"),
    "bad memory": ({"--memory": "lots"}, ExitCode.CONFIG, "memory size"),
    "missing data": ({"--data": "/no/such.jsonl"}, ExitCode.DATA, "/no/such.jsonl"),
    "unknown builtin": ({"--data": "builtin:docstrings/no_such_library"}, ExitCode.DATA, "no_such_library"),
    "missing config": ({"--config": "/no/such.toml"}, ExitCode.CONFIG, "cannot be read"),
    "state is below a file": ({"--state": "/proc/version/state"}, ExitCode.DISK, "cannot be used"),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_a_bad_flag_is_one_line_and_its_status(case: str, good: dict[str, str], capsys: Any) -> None:
    """The table of bad flags: status, words, one line and one hint."""
    changes, status, words = BAD_FLAGS[case]

    assert join({**good, **changes}) == status

    error = capsys.readouterr().err
    assert_one_line(error)
    assert words in error


@pytest.mark.parametrize("command", ["join", "generate"])
def test_a_missing_package_is_named_before_anything_is_done(
    command: str, good: dict[str, str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board without torch is told what to install, and is not enrolled to fail later."""

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("edge_client.host.packages.version", version)
    probes = Probes(packages=require_packages, fork=PROBES.fork)

    status = join(good, probes=probes) if command == "join" else run(["generate", "hello"])

    error = capsys.readouterr().err
    assert status == ExitCode.CONFIG
    assert_one_line(error)
    assert "not installed: torch" in error
    assert not Path(good["--state"]).exists()


def test_empty_data_is_refused(good: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    """A file without an example ends the client."""
    (tmp_path / "empty.jsonl").write_text("")

    assert join({**good, "--data": str(tmp_path / "empty.jsonl")}) == ExitCode.DATA

    assert_one_line(capsys.readouterr().err)


def test_unreadable_lines_are_counted_and_the_rest_is_used(good: dict[str, str], capsys: Any) -> None:
    """The first bad line is named; the client goes on (here: to a server that is not there)."""
    path = Path(good["--data"])
    path.write_text("not json\n" + path.read_text() + '{"source": 3}\n')

    assert join(good) == ExitCode.UNREACHABLE

    assert f"2 unusable lines or files in {path} are left out; first: {path}:1" in capsys.readouterr().out


def test_an_unknown_setting_names_key_and_file(good: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    """A misspelt key in the TOML file is an error, not ignored."""
    config = tmp_path / "client.toml"
    config.write_text('sevrer = "http://x"\n')

    assert join(good, "--config", str(config)) == ExitCode.CONFIG

    error = capsys.readouterr().err
    assert "sevrer" in error
    assert str(config) in error


def test_flags_beat_environment_beats_file(
    good: dict[str, str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of strength of settings."""
    config = tmp_path / "client.toml"
    config.write_text('memory = "1 file"\nserver = "file"\ndata = "file.jsonl"\n')
    monkeypatch.setenv("BRAID_MEMORY", "2 environment")
    monkeypatch.setenv("BRAID_SERVER", "environment")
    del good["--data"]

    join(good, "--config", str(config))
    assert "2 environment" in capsys.readouterr().err

    join({**good, "--memory": "1GiB"}, "--config", str(config))
    assert "file.jsonl" in capsys.readouterr().err, "and the server of the flag was accepted before"


def test_json_mode_ends_with_an_error_object(good: dict[str, str], capsys: Any) -> None:
    """Programs read the failure from standard output."""
    status = join(good, "--json")

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["event"] == "error"
    assert last["exit_code"] == status == ExitCode.UNREACHABLE
    assert last["hint"]


def test_debug_shows_the_traceback(good: dict[str, str], capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """--debug, and only --debug, does."""
    monkeypatch.setenv("BRAID_DEBUG", "")  # restored afterwards: the flag sets it

    join(good, "--debug")

    assert "Traceback" in capsys.readouterr().err


def test_a_failed_enrolment_leaves_a_state_that_can_be_used(good: dict[str, str]) -> None:
    """The install id stays the same over tries, so that the server sees one board."""
    join(good)
    first = json.loads((Path(good["--state"]) / "identity.json").read_text())

    join(good)

    assert json.loads((Path(good["--state"]) / "identity.json").read_text()) == first
    assert first["credential"] == ""


def test_a_damaged_identity_is_not_replaced(good: dict[str, str], capsys: Any) -> None:
    """Guessing would make this board a second device."""
    state = Path(good["--state"])
    state.mkdir()
    (state / "identity.json").write_text("{")

    assert join(good) == ExitCode.CONFIG

    assert "edge-client leave" in capsys.readouterr().err
    assert (state / "identity.json").read_text() == "{"


def test_leave_forgets_the_identity(good: dict[str, str], capsys: Any) -> None:
    """After it, a token is needed again; without one there is nothing to leave."""
    join(good)

    assert run(["leave", "--yes", "--state", good["--state"]]) == ExitCode.OK
    assert not (Path(good["--state"]) / "identity.json").exists()
    assert run(["leave", "--yes", "--state", good["--state"]]) == ExitCode.CONFIG


def test_status_shows_the_last_state(good: dict[str, str], capsys: Any) -> None:
    """Also of a client that has ended, as text and as JSON."""
    assert run(["status", "--state", good["--state"]]) == ExitCode.CONFIG
    join(good)
    capsys.readouterr()

    assert run(["status", "--state", good["--state"], "--json"]) == ExitCode.OK

    facts = json.loads(capsys.readouterr().out)
    assert facts["running"] is False
    assert facts["phase"] == "connecting"


def test_plan_works_without_a_server(base_folder: Path, capsys: Any) -> None:
    """Text says why; --json gives the same numbers to programs."""
    assert run(["plan", "--model", str(base_folder), "--memory", "1GiB"]) == ExitCode.OK
    assert "predicted" in capsys.readouterr().out

    assert run(["plan", "--model", str(base_folder), "--memory", "1GiB", "--rank", "3", "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert max(facts["ranks"]) == 3


def test_plan_says_how_much_memory_is_missing(base_folder: Path, capsys: Any) -> None:
    """Status MEMORY."""
    assert run(["plan", "--model", str(base_folder), "--memory", "100MiB"]) == ExitCode.MEMORY

    assert "smallest needs" in capsys.readouterr().err


def test_a_usage_error_is_clicks_own(capsys: Any) -> None:
    """Status USAGE, with the usage line."""
    assert run(["join", "--no-such-flag"]) == ExitCode.USAGE
    assert "Usage:" in capsys.readouterr().err


def test_every_command_has_help() -> None:
    """Each module holds the command that the table names."""
    for command in COMMANDS:
        assert run([command, "--help"]) == ExitCode.OK


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_an_isolated_check_returns_its_result_or_its_error() -> None:
    """A forked child does the work; errors keep status and hint."""

    def fail() -> int:
        raise DataError("no example", "give one")

    assert run_forked(lambda: 7, int) == 7
    with pytest.raises(ForkedError, match="no example") as caught:
        run_forked(fail, int)
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.DATA, "give one")


def test_doctor_shows_what_was_measured(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both speeds, the device, and which dtype follows; the same as JSON."""
    monkeypatch.setattr("edge_client.cli.doctor.require_packages", lambda: None)
    monkeypatch.setattr("edge_client.cli.doctor.try_torch", lambda: Trial(version="2"))

    assert run(["doctor", "--state", str(tmp_path)]) == ExitCode.OK
    text = capsys.readouterr().out
    assert "bf16 5, fp32 20 GFLOP/s measured on a processor; fp32 is used" in text

    assert run(["doctor", "--state", str(tmp_path), "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["arithmetic"]["device"] == "cpu"
    assert facts["bf16"] == "emulated"


def test_doctor_shows_the_boards_condition(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it tells of power, heat and clocks, a line each."""
    root = lay_out(tmp_path / "root", ORIN_NANO)
    monkeypatch.setattr("edge_client.cli.doctor.require_packages", lambda: None)
    monkeypatch.setattr("edge_client.cli.doctor.try_torch", lambda: Trial(version="2"))
    monkeypatch.setattr("edge_client.cli.doctor.read_condition", lambda: read_condition(root))

    assert run(["doctor", "--state", str(tmp_path)]) == ExitCode.OK
    text = capsys.readouterr().out
    assert run(["doctor", "--state", str(tmp_path), "--json"]) == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)

    assert "power mode  MAXN_SUPER (mode 2)\nheat        50.2 °C" in text
    assert facts["condition"]["clocks"][0] == {
        "name": "CPU 0-3", "now_mhz": 1344, "allowed_mhz": 1344, "most_mhz": 1728
    }  # fmt: skip


def test_files_whose_names_are_no_text_are_shown(good: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    """Names in another encoding: of the data itself that is refused with a way out, of a file in it merely shown."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b\udcfcro.txt").write_bytes(b"")
    for i in range(20):
        (folder / f"{i}.txt").write_text(f"target {i}\nsource {i}\n")

    code = join({**good, "--data": str(folder)})
    first = capsys.readouterr()
    shutil.copytree(folder, tmp_path / "b\udcfcro")
    assert join({**good, "--data": str(tmp_path / "b\udcfcro")}) == ExitCode.CONFIG

    assert code == ExitCode.UNREACHABLE, first.err
    assert "b?ro.txt" in first.out
    assert "LC_ALL=C.UTF-8" in capsys.readouterr().err
