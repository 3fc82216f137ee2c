"""`edge-client`: the commands that a person types on a board. Every command loads what it needs, when it is run.

Exit statuses are those of `edge_client.errors.ExitCode`. An error is one line and a hint; a traceback needs --debug.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from braid_common.terminal import READER_GONE, run_on_any_terminal
from edge_client.errors import ClientError, ExitCode

if TYPE_CHECKING:
    from edge_client.agent.preflight import Probes

COMMANDS = {
    "join": "edge_client.cli.join",
    "data": "edge_client.cli.data",
    "plan": "edge_client.cli.plan",
    "bench": "edge_client.cli.bench",
    "status": "edge_client.cli.state",
    "leave": "edge_client.cli.state",
    "generate": "edge_client.cli.generate",
    "evaluate": "edge_client.cli.evaluate",
    "personal": "edge_client.cli.personal",
    "reward": "edge_client.cli.reward",
    "doctor": "edge_client.cli.doctor",
}

LOAD_TORCH = frozenset({"generate", "evaluate", "personal", "reward"})
"""Commands that compute in their own process, which may die of a torch for another processor. The others have it in
children."""


class _LazyGroup(click.Group):
    """Imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="braid-fl", prog_name="edge-client")
def group() -> None:
    """Fine-tune FLAN-T5 on this board, together with others, without its text leaving it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: ends the process with a documented status."""
    given = sys.argv[1:] if arguments is None else arguments
    loads_torch = not LOAD_TORCH.isdisjoint(given[:1])
    sys.exit(run_on_any_terminal(lambda: _run_in_child(given) if loads_torch else run(given)))


def run(arguments: Sequence[str], probes: Probes | None = None) -> int:
    """Carry out a command line; its exit status. `probes`: other looks at the board than `join`'s own."""
    try:
        group.main(list(arguments), prog_name="edge-client", standalone_mode=False, obj=probes)
    except ClientError as error:
        return _fail(arguments, int(error.exit_code), error.message, error.hint)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 128 + 2  # as a shell shows SIGINT
    except BrokenPipeError:
        return READER_GONE
    except Exception as error:  # noqa: BLE001 (top loop)
        what = f"{type(error).__name__}: {error}"
        return _fail(arguments, ExitCode.INTERNAL, f"this is a bug: {what}", "run again with --debug and report it")
    return ExitCode.OK


def _run_in_child(arguments: Sequence[str]) -> int:
    """Carry out a command line in a process of its own, and say what that died of."""
    from edge_client.host.watched import run_watched

    try:
        return run_watched(lambda: run(arguments), who=f"edge-client {arguments[0]}")
    except ClientError as error:
        return _fail(arguments, int(error.exit_code), error.message, error.hint)


def _fail(arguments: Sequence[str], exit_code: int, message: str, hint: str) -> int:
    """Tell a failure: a line and a hint on stderr, and an event on stdout where that is read by a program."""
    if "--debug" in arguments or os.environ.get("BRAID_DEBUG"):
        traceback.print_exc()
    if "--json" in arguments or os.environ.get("BRAID_JSON"):
        click.echo(json.dumps({"event": "error", "message": message, "hint": hint, "exit_code": exit_code}))
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"  → {hint}", err=True)
    return exit_code
