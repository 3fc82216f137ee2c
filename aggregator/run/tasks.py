"""Tasks of boards, and the run's settings as boards are told them. Only reads the run's memory."""

from __future__ import annotations

from typing import Literal

from aggregator.errors import CallError
from aggregator.run.memory import RunMemory
from aggregator.run.round_spec import PROFILING, version_digest
from aggregator.store.records import ShutOutError
from wire.limits import PROTOCOL_VERSION
from wire.messages import RoundSpec, Task
from wire.rounds import RunState
from wire.run import Base, RunInfo

JOIN_AGAIN = "Join again with a token: `aggregator token create DIR` on the server makes one."

ASK = "Ask whoever runs the server: `aggregator device allow DIR DEVICE` lets a device in again."


def run_info(run: RunMemory) -> RunInfo:
    """The run as a board sees it now."""
    config, terms = run.config, run.terms
    return RunInfo(
        protocol=PROTOCOL_VERSION,
        run_id=terms.run_id,
        state=run.run_state.value,
        base=Base(model=config.model.id, digest=config.model.digest, revision=config.model.revision),
        weights=terms.weights,
        manifest=terms.manifest,
        settings=run.train,
        max_rank=terms.max_rank,
        server_rank=terms.server_rank,
        rounds=config.rounds.total,
        round=run.open_round.round if run.open_round else run.closed,
        version=run.state.version,
        history=run.history,
        values=run.values,
    )


def task_of(run: RunMemory, device: str, after: int) -> Task:
    """The task of a board now. `after`: the last round it knows of; -1 for none.

    Raises CallError for a board that was shut out or removed.
    """
    require_member(run, device)
    run_id, open_round, epoch = run.terms.run_id, run.open_round, run.epoch
    newest = RoundSpec(round=run.closed, version=run.state.version, version_digest=version_digest(run.digest))
    nothing = Task(kind="wait", run_id=run_id, spec=newest, epoch=epoch)
    if not run.train.has_lengths:
        return nothing
    if run.run_state is RunState.FINISHED:
        done = run.state.version in run.boards[device].losses
        kind: Literal["finished", "evaluate"] = "finished" if done else "evaluate"
        return Task(kind=kind, run_id=run_id, spec=newest, epoch=epoch)
    if open_round is None or device in open_round.answers or device in run.inbox:
        return nothing
    if open_round.round == PROFILING:
        return Task(kind="profile", run_id=run_id, spec=open_round.spec, time_left_s=time_left_s(run), epoch=epoch)
    if open_round.round <= after and device not in open_round.asked_again:
        return nothing
    rounds = run.config.rounds
    return Task(
        kind="train",
        run_id=run_id,
        spec=open_round.spec,
        epoch=epoch,
        staleness_limit=rounds.staleness_limit,
        time_left_s=None if rounds.is_asynchronous else time_left_s(run),
    )


def require_member(run: RunMemory, device: str) -> None:
    """Raise CallError "revoked" or "unauthorised" for a device that was shut out or removed while its call waited."""
    if device not in run.boards:
        raise shut_out(ShutOutError(device, revoked=False))
    if run.boards[device].revoked:
        raise shut_out(ShutOutError(device))


def shut_out(error: ShutOutError) -> CallError:
    """The answer to a device that was revoked or removed, maybe while it was sending or its upload waited."""
    if error.revoked:
        return CallError("revoked", str(error), ASK)
    return CallError("unauthorised", str(error), JOIN_AGAIN)


def time_left_s(run: RunMemory) -> float | None:
    """Seconds to the deadline of the open round or of profiling; None where none runs."""
    open_round, rounds = run.open_round, run.config.rounds
    if open_round is None or open_round.since_s is None:
        return None
    whole_s = rounds.profile_deadline_s if open_round.round == PROFILING else rounds.deadline_s
    until_s = open_round.since_s + whole_s if open_round.until_s is None else open_round.until_s
    return max(0.0, until_s - run.clock())
