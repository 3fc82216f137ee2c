"""The report of a chaos run: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chaos.suite import Result


def as_json(result: Result, elapsed_s: float) -> dict[str, Any]:
    """The run as plain values."""
    outcome, stored = result.outcome, result.stored
    return {
        "seed": result.plan.seed,
        "rounds": result.plan.rounds,
        "boards": result.plan.boards,
        "seconds": round(elapsed_s, 1),
        "faults": dict(sorted(outcome.faults.items())),
        "not_fired": sorted(result.missing),
        "ends": {name: dict(sorted(ends.items())) for name, ends in outcome.ends.items()},
        "acknowledged": len(outcome.ledger.acknowledged),
        "acknowledged_again": outcome.ledger.repeats,
        "refused": dict(outcome.ledger.refused),
        "recorded": len(stored.updates),
        "merged": stored.rounds,
        "lost": len(result.lost),
        "twice": len(result.twice),
        "stuck": outcome.is_stuck,
        "compared": result.is_compared,
        "different_from_version": result.difference,
        "bugs": result.bugs,
        "stayed_down": result.stayed_down,
        "good": result.is_good,
    }


def as_text(result: Result, elapsed_s: float) -> Iterator[str]:
    """The run in lines."""
    outcome, stored, plan = result.outcome, result.stored, result.plan
    faults = sorted(outcome.faults.items())
    width = max((len(kind) for kind, _ in faults), default=0)
    yield f"seed {plan.seed}: {stored.rounds} of {plan.rounds} rounds with {plan.boards} boards in {elapsed_s:.0f} s"
    yield ""
    yield f"faults, {sum(outcome.faults.values())} in all"
    yield from (f"  {kind:{width}} {count:7}" for kind, count in faults)
    if result.missing:
        yield f"  not fired: {', '.join(sorted(result.missing))}"
    yield ""
    yield "ends of processes, by status (negative: the signal)"
    for name, ends in outcome.ends.items():
        yield f"  {name:{width}} {', '.join(f'{status}: {count}' for status, count in sorted(ends.items()))}"
    yield ""
    yield f"updates acknowledged {len(outcome.ledger.acknowledged):8}  (and again {outcome.ledger.repeats})"
    yield f"updates recorded     {len(stored.updates):8}  (and {len(stored.waiting)} to be judged)"
    yield f"lost                 {len(result.lost):8}"
    yield f"twice                {len(result.twice):8}"
    yield f"refused              {outcome.ledger.refused.total():8}"
    yield from (f"  lost: {update}" for update in result.lost[:5])
    yield from (f"  twice: {update}" for update in result.twice[:5])
    yield from (f"  refused {count} times: {reason}" for reason, count in outcome.ledger.refused.most_common(5))
    yield from (f"  {name} ended {count} times by a bug of ours" for name, count in result.bugs.items())
    yield from (
        f"  {name} ended {count} times for a person to start it again" for name, count in result.stayed_down.items()
    )
    yield _final_model(result)


def _final_model(result: Result) -> str:
    if result.outcome.is_stuck:
        return "STUCK: nothing was acknowledged any more"
    if not result.is_compared:
        return "the run without faults did not end"
    if result.difference is not None:
        return f"DIFFERENT from the run without faults, from version {result.difference} on"
    return f"all {len(result.stored.versions)} versions equal those of the run without faults, to the bit"
