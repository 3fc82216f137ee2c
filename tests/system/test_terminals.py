"""No encoding of the output and no name of a board makes a command fail: both programs and quantize, as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import ExitCode as ServerExit
from braid_common.terminal import READER_GONE
from edge_client.errors import ExitCode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["板子三号", "🤖 büro → α", "لوحة\u202eغرفة"]
"""Names that boards may have: Chinese, an emoji, an arrow and an umlaut, Arabic with a mark that turns text."""

PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
TERMINALS = {
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {**PLAIN, "TERM": "dumb"},
}


def start(program: str, *arguments: object, terminal: str = "utf-8", **options: Any) -> subprocess.Popen[bytes]:
    """A program of this checkout in an environment of that terminal alone."""
    module = {"aggregator": "aggregator.cli", "quantize": "quantize.cli", "edge-client": "edge_client.cli.main"}[
        program
    ]
    entry = f"import sys; sys.argv[0] = {program!r}; from {module} import main; main()"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), **TERMINALS[terminal]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-c", entry, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd="/", **pipes)


def said(program: str, *arguments: object, terminal: str) -> tuple[int, str]:
    """Status and all output, which must be in the terminal's encoding, without a traceback or a word about a bug."""
    process = start(program, *arguments, terminal=terminal, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=60)
    text = output.decode({"C": "ascii"}.get(terminal, terminal))
    assert "Traceback" not in text and "is a bug" not in text, text
    return process.returncode, text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A server with boards of all names, whose log goes to a pipe in ASCII; its folder and URL."""
    folder = tmp_path_factory.mktemp("server") / "run"
    boards = ("--min-devices", len(NAMES) + 1)  # as many as its first token lets in, that of a test below among them
    code, text = said("aggregator", "init", folder, "--name", NAMES[1], *boards, terminal="C")
    assert code == 0, text
    process = start("aggregator", "serve", folder, "--port", 0, terminal="C", stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.decode("ascii"))
            if "edge-client join" in lines[-1]:
                break
        url, token = re.findall(r"--(?:server|token) (\S+)", lines[-1])
        for number, name in enumerate(NAMES):
            _enrol(url, token, name, number)
        yield folder, url
        process.send_signal(signal.SIGTERM)
        log = process.stdout.read().decode("ascii")
        assert process.wait(20) == 0 and "Traceback" not in log
        assert "\\u677f\\u5b50\\u4e09\\u53f7" in log and "b\\u00fcro -> \\u03b1" in log, log
        assert "left" in log, log
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _enrol(url: str, token: str, name: str, number: int) -> None:
    """Enrol a board of that name, and let the first one leave again."""
    import urllib.request

    from wire.codec import CONTENT_TYPE, decode, encode
    from wire.messages import Enrol, Enrolled

    message = Enrol(protocol=1, token=token, install_id=f"{number + 1:032x}", name=name, client_version="test")
    request = urllib.request.Request(f"{url}/v1/devices", encode(message), {"Content-Type": CONTENT_TYPE})
    with urllib.request.urlopen(request, timeout=20) as response:
        credential = decode(response.read(), Enrolled).credential
    if number == 0:
        header = {"Authorization": f"Bearer {credential}"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/v1/device", headers=header, method="DELETE")).close()


@pytest.mark.parametrize("terminal", ["utf-8", "latin-1", "C"])
def test_the_servers_commands_show_any_name(server: tuple[Path, str], terminal: str) -> None:
    """List and status, for people and as JSON, whose names come out as they went in."""
    folder, _ = server

    code, text = said("aggregator", "status", folder, terminal=terminal)
    assert code == 0
    shown = {"utf-8": "🤖 büro → α", "latin-1": "\\ud83e\\udd16 büro -> \\u03b1"}
    assert shown.get(terminal, "\\ud83e\\udd16 b\\u00fcro -> \\u03b1") in text
    assert "\u202e" not in text
    assert said("aggregator", "device", "list", folder, terminal=terminal)[0] == 0
    code, text = said("aggregator", "status", folder, "--json", terminal=terminal)
    facts = json.loads(text)
    assert facts["run"]["name"] == NAMES[1] and [board["name"] for board in facts["boards"]][:3] == NAMES


def _for_data(terminal: str) -> ExitCode:
    """Where Python cannot read a file's name, the worker could not be told of it, and that is said."""
    return ExitCode.CONFIG if terminal == "C" else ExitCode.DATA


@pytest.mark.parametrize("terminal", ["ascii", "latin-1", "C"])
def test_errors_of_all_programs_are_shown(tmp_path: Path, terminal: str) -> None:
    """The arrow before a hint, names of files, what click says, and help."""
    missing = tmp_path / "→ büro 板"
    for program, arguments, status in [
        ("aggregator", ("status", missing), ServerExit.STATE),
        ("aggregator", ("frobnicate →",), ServerExit.USAGE),
        ("edge-client", ("status", "--state", missing), ExitCode.CONFIG),
        ("edge-client", ("join", "--server", "http://→", "--name", NAMES[0], "--data", missing), _for_data(terminal)),
        ("edge-client", ("plan", "--memory", "viel →"), ExitCode.CONFIG),
        ("edge-client", ("→",), ExitCode.USAGE),
        ("quantize", ("→",), 2),
    ]:
        code, text = said(program, *arguments, terminal=terminal)
        assert code == status, (program, arguments, text)
        assert "  -> " in text or program == "quantize" or status == 2, text
    assert said("edge-client", "join", "--help", terminal=terminal)[0] == 0


def test_a_plan_is_shown(tmp_path: Path) -> None:
    """The longest page that a board prints."""
    code, text = said("edge-client", "plan", "--memory", "2GiB", "--state", tmp_path, terminal="C")

    assert code == 0 and "strands" in text


def test_a_board_of_any_name_enrols(server: tuple[Path, str], tmp_path: Path) -> None:
    """The name arrives as it was typed, also where Python could not read it; the client's lines can be shown."""
    folder, url = server
    token = (folder / "join.token").read_text().strip()
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"source": f"text {i}", "target": f"t {i}"}) + "\n" for i in range(40)))
    flags = ("--server", url, "--token", token, "--name", "床 → 3", "--data", data, "--state", tmp_path / "state")
    process = start("edge-client", "join", *flags, "--memory", "2GiB", terminal="C", stderr=subprocess.STDOUT)
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.decode("ascii"))
            if "enrolled at" in lines[-1]:
                break
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)

    assert "Traceback" not in "".join(lines) + rest.decode("ascii"), lines
    _, text = said("aggregator", "device", "list", folder, "--json", terminal="utf-8")
    assert "床 → 3" in {device["name"] for device in json.loads(text)}


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("aggregator", ("--help",)),
        ("aggregator", ("device", "list", "{folder}", "--json")),
        ("edge-client", ("join", "--help")),
        ("quantize", ("--help",)),
    ],
)
def test_a_reader_that_went_away_is_no_fault(
    server: tuple[Path, str], program: str, arguments: tuple[str, ...]
) -> None:
    """`… | head -0`: no traceback, nothing on standard error, and the shell's status for it. A standard output that was
    closed before is as good as /dev/null."""
    words = [word.format(folder=server[0]) for word in arguments]
    reading, writing = os.pipe()
    os.close(reading)
    process = start(program, *words, stdout=writing)
    os.close(writing)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (READER_GONE if program != "quantize" else process.returncode, b"")

    process = start(program, *words, stdout=None, preexec_fn=lambda: os.close(1))
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, b"")


def test_a_server_goes_on_without_a_reader_of_its_log(tmp_path: Path) -> None:
    """`aggregator serve run | head -3` keeps the run."""
    from edge_client.network.transport import Transport

    boards = ("--min-devices", len(NAMES))
    assert said("aggregator", "init", tmp_path / "run", *boards, terminal="utf-8")[0] == 0
    process = start("aggregator", "serve", tmp_path / "run", "--port", 0)
    assert process.stdout is not None
    try:
        line = ""
        while "edge-client join" not in line:
            line = process.stdout.readline().decode()
        url, token = re.findall(r"--(?:server|token) (\S+)", line)
        process.stdout.close()
        for number, name in enumerate(NAMES):
            _enrol(url, token, name, number)

        async def alive() -> int:
            async with Transport(url) as transport, transport.open("GET", "/readyz") as response:
                return response.status

        import asyncio

        assert asyncio.run(alive()) == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None and process.stderr.read() == b""
        process.stderr.close()
