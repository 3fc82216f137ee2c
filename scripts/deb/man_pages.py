"""Manual pages and shell completion, made from the programs' own help.

click-man was looked at: it does not see the commands of a group that loads them when they are asked for, as
`edge-client` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc

import click
from click.shell_completion import get_completion_class

from scripts.commands_docs import option_rows, walk

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/{}",
    "zsh": "usr/share/zsh/vendor-completions/_{}",
    "fish": "usr/share/fish/vendor_completions.d/{}.fish",
}
"""Shell → where Debian keeps the completion of a program."""


def man_page(name: str, program: click.Command, version: str, see_also: str) -> str:
    """A program's page in section 1, with a part for each command."""
    first, *rest = _paragraphs(program.help or "")
    lines = [
        f'.TH {_escape(name).upper()} 1 "" "Braid {_escape(version)}" "Braid"',
        ".SH NAME",
        f"{_escape(name)} \\- {_escape(first.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_escape(name)}",
        _escape("COMMAND [OPTIONS] …"),
        ".SH DESCRIPTION",
        *_text([first, *rest]),
        ".SH OPTIONS",
        *_options(program),
        ".SH COMMANDS",
        *_commands(name, program),
        ".SH SEE ALSO",
        _escape(see_also),
    ]
    return "\n".join(lines) + "\n"


def setup_page(name: str, summary: str, usage: str, version: str) -> str:
    """The page in section 8 of a script that has its help as one text."""
    lines = [
        f'.TH {_escape(name).upper()} 8 "" "Braid {_escape(version)}" "Braid"',
        ".SH NAME",
        f"{_escape(name)} \\- {_escape(summary)}",
        ".SH SYNOPSIS",
        f".B {_escape(name)}",
        "[options]",
        ".SH OPTIONS",
        ".nf",
        *(_escape(line) for line in usage.splitlines()[1:]),
        ".fi",
    ]
    return "\n".join(lines) + "\n"


def completion(shell: str, name: str, program: click.Command) -> str:
    """The script by which a shell completes a program's words: it asks the program itself."""
    found = get_completion_class(shell)
    assert found is not None
    return found(program, {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE").source()


def _commands(name: str, program: click.Command) -> Iterator[str]:
    for _, command, context in walk(name, program):
        if isinstance(command, click.Group):
            continue
        yield f'.SS "{_escape(command.get_usage(context).removeprefix("Usage: "))}"'.replace("\n", " ")
        yield from _text(_paragraphs(command.help or ""))
        yield from _options(command)


def _options(command: click.Command) -> Iterator[str]:
    for flags, meaning in option_rows(command):
        yield ".TP"
        yield f".B {_escape(flags)}"
        yield _escape(meaning)


def _paragraphs(help_text: str) -> list[str]:
    return [part for part in cleandoc(help_text).split("\n\n") if part.strip()]


def _text(paragraphs: list[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        yield ".PP"
        if paragraph.startswith("\b"):  # click's mark for lines that stay as they are
            yield from (".nf", *(_escape(line) for line in paragraph.splitlines()[1:]), ".fi")
        else:
            yield _escape(" ".join(paragraph.split()))


def _escape(text: str) -> str:
    """Text as roff takes it: no line begins with a control character, and a hyphen can be copied."""
    return re.sub(r"^([.'])", r"\\&\1", text.replace("\\", "\\e").replace("-", "\\-"))
