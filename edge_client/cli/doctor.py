"""`edge-client doctor`: shows what this board has, and what is missing for training. Nothing heavy is imported here:
torch is tried in child processes, for it may die.
"""

from __future__ import annotations

import json
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import msgspec

from braid_common.units import show_size
from edge_client.cli.options import debug_option, state_option
from edge_client.cli.service import Reach, examine_service, first_problem, service_lines
from edge_client.errors import ClientError, TorchError
from edge_client.host.board import probe_board
from edge_client.host.condition.condition import Condition, condition_words, read_condition
from edge_client.host.matmul_speed import MatmulSpeed, with_matmul_speed
from edge_client.host.packages import require_packages, versions
from edge_client.host.processor_name import processor
from edge_client.host.torch_trial import Product, Trial, advice, try_torch
from edge_client.state.matmul_speed_file import look_up_matmul_speed
from quantize.kernels import Kernel, nf4_kernel

CONFIG = Path("/etc/braid/edge-client.toml")
"""Where the service has its settings."""


@click.command()
@state_option
@click.option("--service", is_flag=True, help="Also what the service may reach, for its unit to ask from inside.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="BRAID_CONFIG",
    default=CONFIG,
    show_default=True,
    help="The service's settings.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def doctor(state: Path, service: bool, config: Path, as_json: bool, debug: bool) -> None:
    """Check this board: memory, processors, power mode, heat and clocks, torch, and installed packages.

    One product is tried for each dtype, number of threads and device. Status 12 where torch dies or cannot be loaded, 3
    where something else is missing.
    """
    del debug
    state = state.expanduser()
    trial, error = _try_torch()
    facts = examine(state, trial, error)
    reached = examine_service(state, config) if service else []
    if as_json:
        click.echo(json.dumps(facts | ({"service": msgspec.to_builtins(reached)} if service else {})))
    else:
        click.echo("\n".join([*_lines(facts, trial, error), *service_lines(reached)]))
    _fail_for(trial, error, reached)


def examine(state: Path, trial: Trial | None, error: ClientError | None) -> dict[str, Any]:
    """The findings, as plain values. `packages` maps a name to its version, or None where it is not installed;
    `arithmetic` is None where torch is not installed, does not work, or the board is too busy to measure."""
    works = trial is not None and not trial.failed
    arithmetic = look_up_matmul_speed(state) if works else None
    kernel = _nf4_kernel(arithmetic)
    board = with_matmul_speed(probe_board(), arithmetic)
    return {
        "board": board.model or platform.node(),
        "machine": board.machine,
        "processor": processor(),
        "python": platform.python_version(),
        "memory_bytes": board.memory_bytes,
        "memory_source": board.memory_source,
        "cpu_count": board.cpu_count,
        "bf16": "fast" if board.bf16_fast else "emulated",
        "arithmetic": msgspec.to_builtins(arithmetic),
        "torch": msgspec.to_builtins(trial) if error is None else {"message": error.message, "hint": error.hint},
        "nf4": kernel.name,
        "nf4_reason": kernel.reason,
        "packages": versions(),
        "condition": msgspec.to_builtins(read_condition()),
        "builtin_base": find_spec("builtin_base") is not None,
    }


def _try_torch() -> tuple[Trial | None, ClientError | None]:
    """The trial of torch, or the error of its import; neither where it is not installed."""
    if find_spec("torch") is None:
        return None, None
    try:
        return try_torch(), None
    except ClientError as error:
        return None, error


def _fail_for(trial: Trial | None, error: ClientError | None, reached: list[Reach]) -> None:
    """Raise for the first thing that keeps this board from training, if anything does."""
    if error is not None:
        raise error
    if trial is not None and trial.failed:
        raise TorchError(trial.failed[0].message, advice(trial.products))
    require_packages()
    problem = first_problem(reached)
    if problem is not None:
        raise problem


def _lines(facts: dict[str, Any], trial: Trial | None, error: ClientError | None) -> list[str]:
    works = trial is not None and not trial.failed
    condition = msgspec.convert(facts["condition"], Condition)
    lines = [
        f"board       {facts['board']} ({facts['machine']}), Python {facts['python']}",
        f"memory      {show_size(facts['memory_bytes'])} ({facts['memory_source']})",
        f"processors  {facts['cpu_count']}, {facts['processor']}",
        *(f"{part:<12}{words}" for part, words in condition_words(condition).items()),
        *(f"torch       {line}" for line in _torch_lines(trial, error)),
        f"arithmetic  {_arithmetic(facts, works)}",
        f"4-bit base  {facts['nf4']} ({facts['nf4_reason']})",
        f"base        builtin is {'here' if facts['builtin_base'] else 'not installed'}",
    ]
    lines += [f"{name:<16}{number or 'not installed'}" for name, number in facts["packages"].items()]
    return lines


def _torch_lines(trial: Trial | None, error: ClientError | None) -> list[str]:
    """Lines about torch: the build, the products that work, and one line for each that does not."""
    if error is not None:
        return [error.message]
    if trial is None:
        return ["not installed"]
    build = f"built for CUDA {trial.cuda}" if trial.cuda else "built for processors"
    gpu = "" if not trial.cuda else f", GPU {trial.gpu}" if trial.gpu else ", no GPU can be reached"
    works = [_words(product) for product in trial.products if not product.exit_code]
    lines = [f"{trial.version}, {build}{gpu}", f"works: {', '.join(works) or 'nothing'}"]
    return lines + [product.message for product in trial.failed]


def _words(product: Product) -> str:
    threads = f"{product.threads} thread{'s' * (product.threads != 1)}"
    return f"{product.dtype} on {'the GPU' if product.device == 'cuda' else threads}"


def _nf4_kernel(arithmetic: MatmulSpeed | None) -> Kernel:
    """The code that unpacks a 4-bit base here. torch stays out of this process: a GPU is tried in another one."""
    if find_spec("torch") is None:
        return Kernel("none", "torch is not installed")
    return nf4_kernel("cpu" if arithmetic is None else arithmetic.device)


def _arithmetic(facts: dict[str, Any], works: bool) -> str:
    """Measured speeds, or what the processor's flags say."""
    measured = facts["arithmetic"]
    if measured is None:
        guess = "bf16 in hardware" if facts["bf16"] == "fast" else "bf16 emulated, so fp32 is used"
        why = "this board is too busy to measure" if works else "measuring needs a torch that works"
        return f"{guess} (from the processor's flags; {why})"
    speeds = f"bf16 {measured['bf16_gflops']:.0f}, fp32 {measured['fp32_gflops']:.0f} GFLOP/s measured"
    chosen = "bf16" if facts["bf16"] == "fast" else "fp32"
    return f"{speeds} on {measured['device_name']}; {chosen} is used"
