"""Write docs/guide/commands.md, every command and flag: `python -m scripts.commands_docs [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from inspect import cleandoc

import click

import aggregator.cli
import edge_client.cli.main
import quantize.cli
from edge_client.agent.settings import FILE_TYPES, REWARD
from edge_client.errors import ExitCode
from scripts.generated_page import DOCS, bring_up_to_date, table

PAGE = DOCS / "guide" / "commands.md"

PROGRAMS: dict[str, click.Command] = {
    "aggregator": aggregator.cli.cli,
    "edge-client": edge_client.cli.main.group,
    "quantize": quantize.cli.main,
}

SETTINGS = frozenset((*FILE_TYPES, REWARD))
"""Options of `join` that may stand in edge-client.toml, too."""

_HEAD = """# Commands

<!-- Written by `python -m scripts.commands_docs` from the code; do not edit. -->

Every command prints its own help with `--help`.
"""


def commands_page() -> str:
    """The page: a section for each program and command, and the exit statuses of `edge-client`."""
    parts = [_HEAD]
    for name, program in PROGRAMS.items():
        parts += _sections(name, program)
    rows = [(str(int(code)), f"`{code.name}`") for code in ExitCode]
    parts.append(f"## Exit statuses of edge-client\n\n{table(('status', 'name'), rows)}\n")
    return "\n".join(parts)


def walk(
    name: str, command: click.Command, parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """A program's commands by their whole names, each group before its own."""
    # As the program itself makes it: click keeps the help option that a command is first asked for.
    context = click.Context(command, info_name=name.rsplit(" ", 1)[-1], parent=parent, **command.context_settings)
    yield name, command, context
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None
            yield from walk(f"{name} {child_name}", child, context)


def _sections(program: str, group: click.Command) -> Iterator[str]:
    for name, command, context in walk(program, group):
        level = "##" if " " not in name else "###"
        yield f"{level} {name}\n"
        if command.help:
            yield cleandoc(command.help).replace("\b\n", "") + "\n"
        if isinstance(command, click.Group):
            continue
        yield f"```console\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
        rows = [(f"`{flags}`", meaning) for flags, meaning in option_rows(command)]
        if rows:
            yield table(("flag", "meaning"), rows) + "\n"


def option_rows(command: click.Command, *, keys_only: bool = False) -> list[tuple[str, str]]:
    """Flags of a command with their help and defaults, as `--help` shows them.

    Args:
        command: with options.
        keys_only: leave out what cannot stand in edge-client.toml, and give its key there.
    """
    context = click.Context(command)
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is None:
            continue
        key = max(parameter.opts, key=len).lstrip("-").replace("-", "_")
        if not keys_only:
            rows.append((record[0], record[1]))
        elif key in SETTINGS:
            rows.append((key, record[1]))
    return rows


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it."""
    return bring_up_to_date(PAGE, commands_page(), "python -m scripts.commands_docs", arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
