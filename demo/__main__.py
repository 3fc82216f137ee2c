"""`make demo`: three boards of unequal memory braid one adapter, one of them loses power, and what came of it.

Exit status 0 only if everything happened as promised: different plans, the power cut survived, no update missing,
and an adapter that is clearly better than the base on text that no board trained on.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from braid_common.terminal import use_any_terminal
from demo.display import Display, size
from demo.federation import Outcome, PowerCut, run_federation
from demo.fleet import BoardSpec, BoardView, DemoError, run_command
from demo.held_out import write_held_out
from edge_client.evaluation.report import Report, from_json
from edge_client.evaluation.table import example_lines, table_lines

FOLDER = Path("demo-run")
BOARDS = (
    BoardSpec("zero", "builtin:docstrings/networkx", "500MiB", round_traffic="5MB"),
    BoardSpec("nano", "builtin:docstrings/sqlalchemy", "800MiB"),
    BoardSpec("orin", "builtin:docstrings/numpy", "1.5GiB"),
)
UNSEEN = "sympy"
SETTINGS: Mapping[str, str] = {
    "run.rounds": "4",
    "train.scope": "all",
    "train.learning_rate": "0.005",
    # Sized so that memory is short on a base this small: 500 MiB do not hold 40 texts at a time. What makes ranks
    # unequal is zero's network: 5 MB a round pay for a part of the strands.
    "train.batch": "40",
    "train.micro_batch": "40",
    "train.local_steps": "4",
    "train.max_source_tokens": "160",
    "train.max_target_tokens": "24",
    "train.sketch_batches": "2",
    "rounds.quorum": "2",
    "rounds.deadline_s": "120.0",
    "rounds.grace_s": "60.0",
    "merge.max_rank": "32",
    "merge.server_rank": "32",
}
PER_LIBRARY = 50
SHOWN = 3
"""Examples of what is written, before and after: those of all held-out texts whose ROUGE-L braiding raised the most."""

QUESTION = "sorted_by_key(rows, key) Sort a list of rows in place. The order of equal rows is kept."
CLEARLY = 0.05
"""The braided adapter's held-out loss must be lower than the base's by this many nats per token."""


def main() -> int:
    use_any_terminal()
    display = Display()
    start_s = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        asyncio.run(demo(display))
    except DemoError as error:
        display.say(f"the demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        display.say("stopped")
        return 130
    display.say(f"\nDone in {time.monotonic() - start_s:.0f} s.")
    return 0


async def demo(display: Display) -> None:
    display.say("One aggregator and three boards of unequal memory, each with another library's docstrings.")
    display.say("They write summary lines; what they read never leaves them.\n")
    braided = await run_federation(
        FOLDER / "braid",
        BOARDS,
        SETTINGS,
        on_event=display.show,
        say=display.say,
        cut=PowerCut("nano", round=2, at_step=2),
    )
    display.keep(braided.views)
    check_run(braided)
    display.say("\nThe same boards alone: same rounds, same steps, a federation of one each.\n")
    alone = await train_alone(display)
    await report(display, braided, alone)


async def train_alone(display: Display) -> dict[str, Outcome]:
    """Every board as the only member of a run of its own, all at once."""
    views: dict[str, BoardView] = {}

    def show(of: Sequence[BoardView]) -> None:
        views.update({view.spec.name: view for view in of})
        display.show(list(views.values()))

    settings = {**SETTINGS, "rounds.quorum": "1"}
    outcomes = await asyncio.gather(
        *(run_federation(FOLDER / f"alone-{spec.name}", [spec], settings, on_event=show) for spec in BOARDS)
    )
    display.keep(list(views.values()))
    return {spec.name: outcome for spec, outcome in zip(BOARDS, outcomes, strict=True)}


def check_run(outcome: Outcome) -> None:
    """Raises DemoError unless plans differ and every round has every board's update."""
    plans = {(view.plan.get("format"), view.plan.get("ranks_total")) for view in outcome.views}
    if len(plans) < 2:
        raise DemoError(f"unequal boards made equal plans: {sorted(map(str, plans))}")
    for entry in outcome.status["rounds"]:
        if entry["accepted"] != len(BOARDS):
            raise DemoError(f"round {entry['round']} has {entry['accepted']} updates of {len(BOARDS)}")


async def report(display: Display, braided: Outcome, alone: Mapping[str, Outcome]) -> None:
    """The closing table, examples, and how to use the adapter. Raises DemoError if braiding did not help clearly."""
    libraries = [spec.data.rpartition("/")[2] for spec in BOARDS]
    text = FOLDER / "held-out.jsonl"
    n_examples = write_held_out(text, libraries, UNSEEN, per_library=PER_LIBRARY)
    sources = ", ".join([*libraries, UNSEEN])
    display.say(f"\nHeld-out text: {n_examples} docstrings that no board trained on, from {sources}.\n")
    adapters = {f"{name} alone": outcome.exported for name, outcome in alone.items()} | {"braided": braided.exported}
    judged = await evaluate(text, n_examples, adapters)
    for line in table_lines(judged, ["loss", "rougeL"]):
        display.say(f"  {line}")
    display.say(f"\nExamples: the {SHOWN} of these texts whose ROUGE-L braiding raised the most.")
    best = msgspec.structs.replace(judged, examples=judged.examples[:SHOWN])  # the first gained the most
    for line in example_lines(best, ["base", "braided"]):
        display.say(f"  {line}".rstrip())
    tell_use(display, braided)
    losses = {name: one.loss for name, one in judged.contestants.items()}
    gain = losses["base"] - losses["braided"]
    if gain < CLEARLY:
        raise DemoError(f"the braided adapter is only {gain:.3f} nats better than the base, {CLEARLY} were promised")
    best_alone = min(losses[f"{spec.name} alone"] for spec in BOARDS)
    if losses["braided"] > best_alone:
        display.say(f"\nNote: {best_alone:.3f} was reached by a board alone, better than braided.")


async def evaluate(text: Path, n_examples: int, adapters: Mapping[str, Path]) -> Report:
    """The base and the adapters on the text: one call of `edge-client evaluate`, with all that is written."""
    named = [part for name, folder in adapters.items() for part in ("--adapter", f"{name}={folder}")]
    limits = [
        part for key in ("source", "target") for part in (f"--max-{key}-tokens", SETTINGS[f"train.max_{key}_tokens"])
    ]
    answer = await run_command(
        *("edge-client", "evaluate", "--data", str(text), "--model", "builtin"),
        *(*named, *limits, "--show", str(n_examples), "--json"),
    )
    return from_json(answer)


def tell_use(display: Display, braided: Outcome) -> None:
    sent = sum(float(view.last.get("bytes_up", 0)) for view in braided.views)
    display.say(f"\n{size(sent)} went up in all. The adapter is a PEFT folder: {braided.exported}")
    display.say("Use it:")
    display.say(f"  .venv/bin/edge-client generate --model builtin --adapter {braided.exported} {QUESTION!r}")


if __name__ == "__main__":
    sys.exit(main())
