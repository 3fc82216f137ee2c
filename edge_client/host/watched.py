"""Run a whole command in a child process that has this one's terminal, and say in words what the child died of.

For commands that load torch themselves: a build for another processor takes its process along, and nobody else would
be there to say why.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from edge_client.errors import ExitCode
from edge_client.host.deaths import explain_death
from edge_client.host.forked import ForkedError
from edge_client.host.worker_memory import die_with_parent

_REQUESTS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Signals by which somebody asks a command to end."""

_BY_KERNEL = 0x80
"""SI_KERNEL: a signal of the terminal's, which every process in front of it got."""


ASK_AGAIN_S = 5.0
"""Time that a command has to end when it was asked to. An interrupt that comes while Python destroys something, or in a
library that catches everything, is lost; the same request again ends it."""


def run_watched(command: Callable[[], int], *, who: str) -> int:
    """The exit status of `command()`. Returns twice: in the child, which then ends as any process does, and here.

    Call it while this process has one thread. Signals that ask for an end are passed on, and what the child died of
    because of them this process dies of too. Raises ForkedError for any other death: `who` is the command in a
    sentence.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_REQUESTS, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_with_parent(parent)
        return command()
    try:
        status = _wait(child)
        if -status in _REQUESTS:
            signal.signal(-status, signal.SIG_DFL)
            os.kill(parent, -status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if status < 0:
        raise _died(status, who)
    return status


def _wait(child: int) -> int:
    """The child's exit status, negative for a signal. Requests to end are passed on, unless it has them already, and
    again as long as it goes on."""
    request = 0
    while True:
        wanted = {*_REQUESTS, signal.SIGCHLD}
        got = signal.sigtimedwait(wanted, ASK_AGAIN_S) if request else signal.sigwaitinfo(wanted)
        if got is None:
            os.kill(child, request)
        elif got.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        else:
            request = got.si_signo
            if got.si_code != _BY_KERNEL:
                os.kill(child, request)


def _died(status: int, who: str) -> ForkedError:
    death = explain_death(who, status, uses_torch=True)
    is_memory = death.exit_code is ExitCode.MEMORY
    hint = "take a smaller --format, or stop other programs on this board" if is_memory else death.hint
    return ForkedError(death.exit_code, death.message, hint)
