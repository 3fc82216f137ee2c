"""`edge-client bench` as it is typed: real measurements of a small base, and one clear error for every bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from braid_common.base.t5_config import T5Config
from edge_client.bench.setting import Setting, plan_setting
from edge_client.cli.main import run
from edge_client.errors import ExitCode, NoPlanError
from edge_client.host.board import Board
from edge_client.jobs.messages import Plan

MAIN = "import sys; from edge_client.cli.main import main; main(sys.argv[1:])"
SHORT = ("--source-tokens", "20", "--target-tokens", "5", "--steps", "2", "--micro-batch", "2", "--rank", "3")


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the command forks, which a process with torch's threads must not."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, "bench", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("scope", "format"), [("decoder", "int8"), ("all", "fp32")])
def test_a_measurement_has_every_figure(scope: str, format: str, base_folder: Path) -> None:
    """Phases that sum up to about a step, a utilisation between nothing and all, memory above that of the imports."""
    found = bench("--model", str(base_folder), "--scope", scope, "--format", format, "--json", *SHORT)

    assert found.returncode == 0, found.stderr
    values: dict[str, Any] = json.loads(found.stdout)
    phases = values["phases"]
    assert all(phases[f"{phase}_s"] > 0 for phase in ("load", "forward", "backward", "optimiser", "step"))
    assert (phases["encode_s"] > 0) == (scope == "decoder")
    assert 0 < values["arithmetic"]["mfu"] < 1
    assert values["memory"]["peak_bytes"] > values["memory"]["imports_bytes"] > values["memory"]["base_bytes"] > 0
    assert values["setting"]["n_strands"] == 3 * values["setting"]["n_weights"]
    assert re.search("bench: train .* 4/4", found.stderr)


@pytest.mark.slow
def test_energy_is_measured_where_the_board_can_say(base_folder: Path, tmp_path: Path) -> None:
    """By the very process that trains; here a rail of 5 W that is a file."""
    folder = tmp_path / "sys/class/hwmon/hwmon0"
    folder.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1000")):
        (folder / name).write_text(text)
    code = f"""
from pathlib import Path
from braid_common.base.files import read_t5_config
from edge_client.bench.measure import run_request
from edge_client.bench.request import Request
from edge_client.bench.setting import Setting, plan_setting
from edge_client.host.board import probe_board
base = read_t5_config(Path({str(base_folder)!r}))
setting = Setting("nf4", "decoder", micro_batch=2, source_tokens=20, target_tokens=5, rank=2)
plan = plan_setting(setting, probe_board(1 << 30), base, "a T5")
request = Request({str(base_folder)!r}, setting.run(base), plan, steps=2, threads=1, root={str(tmp_path)!r})
measured = run_request(request)
print(measured.sensor, round(measured.watts, 6), measured.n_samples >= 2, measured.threads)
"""

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert found.stdout.split() == ["INA3221", "VDD_IN", "5.0", "True", "1"], found.stderr


@pytest.mark.slow
def test_a_shape_needs_no_download_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Random weights of the true shape are written, measured and removed."""
    found = bench("--shape", "small", "--steps", "1", "--micro-batch", "1", "--json", TMPDIR=str(tmp_path))

    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["setting"]["n_weights"] == 8 * 11
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--shape", "xl", "--memory", "400MiB"], ExitCode.MEMORY, "does not fit"),
        (["--model", "EMPTY"], ExitCode.BASE, "config.json"),
        (["--model", "CUT"], ExitCode.BASE, "truncated"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_a_hint(
    arguments: list[str], status: ExitCode, words: str, base_folder: Path, tmp_path: Path
) -> None:
    """And its documented status."""
    for name in ("EMPTY", "CUT"):
        (tmp_path / name).mkdir()
    (tmp_path / "CUT/config.json").write_bytes((base_folder / "config.json").read_bytes())
    (tmp_path / "CUT/model.safetensors").write_bytes((base_folder / "model.safetensors").read_bytes()[:-100])

    found = bench(*(str(tmp_path / word) if word in ("EMPTY", "CUT") else word for word in arguments))

    assert found.returncode == status, found.stderr
    said = [line for line in found.stderr.splitlines() if not line.startswith("bench: ")]
    assert len(said) == 2
    assert said[0].startswith("error: ")
    assert words in said[0]
    assert said[1].startswith("  → ")


@pytest.mark.slow
def test_a_base_of_its_own_is_removed_when_the_command_is_ended(tmp_path: Path) -> None:
    """SIGTERM, as a service manager or `timeout` sends it; the measuring process goes as well."""
    command = [sys.executable, "-c", MAIN, "bench", "--shape", "small", "--steps", "1000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        while "train" not in (line := process.stderr.readline()):
            assert line, "it ended on its own"
        process.terminate()
        process.stderr.read()  # ends when both processes have

    assert process.returncode == 128 + 15
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_measurement_that_the_kernel_kills_is_an_error_about_memory() -> None:
    """The child cannot say so itself."""
    code = """
import os, signal
from edge_client.bench import measure
from edge_client.host.forked import ForkedError
try:
    measure._in_child(lambda: os.kill(os.getpid(), signal.SIGKILL), int)
except ForkedError as error:
    print(error.message, "|", error.hint)
"""

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "more memory than this board has" in found.stdout
    assert "--micro-batch" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--model", "a", "--shape", "small"], ExitCode.CONFIG),
        (["--link-mbps", "nan"], ExitCode.CONFIG),
        (["--latency-ms", "nan"], ExitCode.CONFIG),
        (["--plot", "bench.pdf"], ExitCode.CONFIG),
        (["--link-mbps", "0"], ExitCode.USAGE),
        (["--micro-batch", "0"], ExitCode.USAGE),
        (["--rank", "0"], ExitCode.USAGE),
        (["--shape", "huge"], ExitCode.USAGE),
        (["--source-tokens", "100000"], ExitCode.USAGE),
    ],
)
def test_bad_flags_are_refused_at_once(
    arguments: list[str], status: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is measured, nothing is written."""
    assert run(["bench", *arguments]) == status
    assert "rror: " in capsys.readouterr().err


def test_the_command_loads_neither_torch_nor_numpy_nor_matplotlib() -> None:
    """They belong into the measuring process: what this one holds is there beside it."""
    code = "import sys, edge_client.cli.bench; print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "set()"


def plan(config: dict[str, Any], memory_bytes: int, **changes: Any) -> Plan:
    board = Board(memory_bytes, "given", cpu_count=2, machine="aarch64", bf16_fast=False)
    fields = {"format": None, "scope": "all", "micro_batch": 4, "source_tokens": 512, "target_tokens": 64, "rank": 8}
    return plan_setting(Setting(**(fields | changes)), board, T5Config.parse(config), "a T5")


@pytest.mark.slow
def test_less_memory_means_less_precision_then_checkpointing_then_a_refusal(config: dict[str, Any]) -> None:
    """As the planner has it; what is chosen always fits."""
    wide = config | {"d_model": 512, "num_heads": 64, "d_ff": 2048, "vocab_size": 32128, "num_layers": 8}
    modes, needed = [], 8 << 30
    while True:
        try:
            found = plan(wide, needed)
        except NoPlanError:
            break
        assert found.expected_peak_bytes <= needed
        modes.append((found.mode.format, found.mode.checkpointing))
        needed = int(0.99 * needed)

    assert modes[0] == ("fp32", False)
    assert modes[-1] == ("nf4", True)
    assert len(dict.fromkeys(modes)) == sum(1 for _ in groupby(modes)), "a mode that was left is not taken again"
    assert {format for format, _ in modes} == {"fp32", "bf16", "int8", "nf4"}


@pytest.mark.parametrize("bf16_fast", [False, True])
@pytest.mark.parametrize("format", ["fp32", "nf4"])
def test_a_given_format_is_kept(config: dict[str, Any], format: str, bf16_fast: bool) -> None:
    """Whatever would fit besides, or be faster."""
    board = Board(8 << 30, "given", cpu_count=2, machine="aarch64", bf16_fast=bf16_fast)
    setting = Setting(format, "all", 4, 512, 64, 8)  # type: ignore[arg-type]

    assert plan_setting(setting, board, T5Config.parse(config), "a T5").mode.format == format
