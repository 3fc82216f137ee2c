"""Deaths of child processes by signals, in words: what the likely cause is, and what to do next.

A library that is built for another processor does not fail, it dies, and takes its process along. So what may die runs
in a child, and this says what its end means.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_client.errors import ExitCode
from edge_client.host.processor_name import processor
from edge_client.host.torch_build.choose import remedy, trouble
from edge_client.host.torch_build.facts import BoardFacts, read_facts

_CRASHES = {
    signal.SIGSEGV: "it touched memory that is not its own",
    signal.SIGBUS: "it touched memory, or a file's end, that is not there",
    signal.SIGFPE: "a calculation that the processor refuses",
    signal.SIGABRT: "a library gave up",
}
"""Signals of a process that goes wrong in a library, in words."""

SUPPORT = "if that is what you have, run again with --debug and report it"


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a child process that gave no answer.

    Attributes:
        message, hint: for a person.
        exit_code: what a client ends with because of it.
        is_certain: whether the same would happen again: trying once more is of no use.
    """

    message: str
    hint: str
    exit_code: ExitCode
    is_certain: bool = False


def explain_death(who: str, status: int, *, uses_torch: bool, root: Path = Path("/")) -> Death:
    """Say what ended a child process.

    Args:
        who: the child as the subject of a sentence, such as "the training worker".
        status: its exit status, negative for a signal.
        uses_torch: whether torch was loaded there, which is then the likeliest to have crashed.
        root: where the board's files lie.
    """
    if status >= 0:
        return Death(f"{who} ended with status {status}", "run again with --debug", ExitCode.INTERNAL)
    number = -status
    died = f"{who} died of {_name(number)}"
    if number == signal.SIGKILL:
        return Death(
            f"{who} was killed, most likely by the kernel because memory ran out",
            "give a smaller --memory, or stop other programs on this board",
            ExitCode.MEMORY,
        )
    if number == signal.SIGSYS:
        return Death(
            f"{died}: a system call that the service's SystemCallFilter= does not allow",
            "run `edge-client doctor` outside the service too; if it works there, loosen the filter in a drop-in",
            ExitCode.CONFIG,
            is_certain=True,
        )
    if number == signal.SIGILL:
        return _illegal_instruction(died, uses_torch, read_facts(root), processor(root))
    if number in _CRASHES:
        return _crash(f"{died}: {_CRASHES[signal.Signals(number)]}", uses_torch, read_facts(root))
    return Death(f"{died}, which somebody sent to it", "start it again", ExitCode.INTERNAL)


def torch_version() -> str:
    """The version of torch that is installed, "" for none. Loads nothing."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _illegal_instruction(died: str, uses_torch: bool, facts: BoardFacts, name: str) -> Death:
    what = f"torch {torch_version()}".rstrip() if uses_torch else "a library"
    known = trouble(facts, torch_version()) if uses_torch else ""
    message = f"{died}: {known or f'{what} uses an instruction that this processor ({name}) does not have'}"
    hint = remedy(facts) if uses_torch else "install the packages for this processor: pip install --force-reinstall"
    return Death(message, hint, ExitCode.TORCH, is_certain=True)


def _crash(message: str, uses_torch: bool, facts: BoardFacts) -> Death:
    if not uses_torch:
        return Death(message, SUPPORT, ExitCode.INTERNAL)
    known = trouble(facts, torch_version())
    return Death(f"{message} ({known})" if known else message, f"{remedy(facts)}; {SUPPORT}", ExitCode.TORCH)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
