"""The proof for one emulated core: `doctor`, then a federation of an emulated board and one of this machine, a SIGKILL
in the middle of a round, and the answers of both to the same texts.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from arm64.emulated import Emulated
from arm64.shell import NotPossibleError, run, say
from demo.federation import Outcome, PowerCut, run_federation
from demo.fleet import BIN, BoardSpec, BoardView, DemoError

CLIENT = "/opt/braid/venv/bin/edge-client"

SETTINGS: Mapping[str, str] = {
    "run.rounds": "2",
    "train.batch": "4",
    "train.micro_batch": "4",
    "train.local_steps": "12",
    "train.max_source_tokens": "32",
    "train.max_target_tokens": "12",
    "train.sketch_batches": "1",
    "merge.max_rank": "4",
    "merge.server_rank": "8",
    "rounds.quorum": "2",
    # A round waits for both boards, however slow one of them is.
    "rounds.deadline_s": "3600.0",
    "rounds.grace_s": "3600.0",
    "rounds.profile_deadline_s": "3600.0",
}
"""Tiny: what is proven is that it works, and emulated cores are some twenty times slower than this machine's."""

CUT = PowerCut("emulated", round=2, at_step=4)
"""In mid-round: what a board has saved of its training by then is taken up, and the rest is done again."""

MEMORY = "2GiB"
"""Of each board: enough for every plan, for what QEMU itself holds counts as the client's."""

N_EXAMPLES = 40

QUESTIONS = tuple(
    f"case {number}: the {word} was seen in hall {number % 5} and it must be looked at again"
    for number, word in enumerate(("old pump", "warm valve", "loud motor", "wet cable"), 41)
)
"""Texts that both kinds of processor answer with the adapter that both have trained."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One core's results.

    Attributes:
        core: QEMU's name.
        boards: that have it.
        torch: version.
        products: those of doctor's products that worked, and how many were tried.
        doctor_s: seconds that `doctor` took.
        killed: round and step at the kill.
        resumed_step: the first step that was told after it.
        updates: accepted updates of each round.
        same_answers: of how many texts both wrote the same answer.
        n_answers: texts.
        seconds: the federation's.
        made_of: the package that was installed.
    """

    core: str
    boards: str
    torch: str
    products: tuple[int, int]
    doctor_s: float
    killed: str
    resumed_step: int
    updates: tuple[int, ...]
    same_answers: int
    n_answers: int
    seconds: float
    made_of: str


def prove(root: Path, core: str, boards: str, made_of: str, folder: Path) -> Row:
    """Carry out all of it in a root, in an empty folder. Raises NotPossibleError or DemoError where something of it
    fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Emulated(root, core, {folder: str(folder)}) as board:
        say(f"{core}: edge-client doctor")
        start_s = time.monotonic()
        found = json.loads(board.run(CLIENT, "doctor", "--json", "--state", str(folder / "doctor")))
        doctor_s = time.monotonic() - start_s
        products = found["torch"]["products"]
        say(f"{core}: a federation beside a board of this machine, torch {found['torch']['version']}")
        start_s = time.monotonic()
        watcher = Watcher()
        outcome = asyncio.run(_federation(board, folder, watcher))
        seconds = time.monotonic() - start_s
        updates = tuple(int(entry["accepted"]) for entry in outcome.status["rounds"])
        if updates != (2,) * int(SETTINGS["run.rounds"]):
            raise DemoError(f"{core}: rounds have {updates} updates")
        say(f"{core}: answers of both")
        same = sum(ours == theirs for ours, theirs in zip(*_answers(board, outcome.exported), strict=True))
    return Row(
        core=core,
        boards=boards,
        torch=found["torch"]["version"],
        products=(sum(not product["exit_code"] for product in products), len(products)),
        doctor_s=round(doctor_s, 1),
        killed=watcher.killed,
        resumed_step=watcher.resumed_step,
        updates=updates,
        same_answers=same,
        n_answers=len(QUESTIONS),
        seconds=round(seconds, 1),
        made_of=made_of,
    )


async def _federation(board: Emulated, folder: Path, watcher: Watcher) -> Outcome:
    specs = [
        BoardSpec("emulated", write_text(folder / "emulated.jsonl", 0), MEMORY, program=board.words(CLIENT)),
        BoardSpec("native", write_text(folder / "native.jsonl", 5), MEMORY),
    ]
    return await run_federation(folder / "run", specs, SETTINGS, on_event=watcher.watch, say=watcher.say, cut=CUT)


class Watcher:
    """The line of a board's progress, and where it went on after the kill."""

    def __init__(self) -> None:
        self.killed, self.resumed_step = "", 0
        self._told = ""

    def say(self, line: str) -> None:
        """Take a sentence of the federation's, the kill among them."""
        say(f"  {line}")
        if "SIGKILL" in line:
            self.killed = line.partition(" in ")[2]

    def watch(self, views: Sequence[BoardView]) -> None:
        """Look at the emulated board's newest event."""
        view = next(view for view in views if view.spec.name == CUT.board)
        trains = view.last.get("phase") == "train" and view.state == "train"
        if view.restarts and trains and view.last.get("round") == CUT.round and not self.resumed_step:
            self.resumed_step = int(view.last.get("step", 0))
        doing = f"round {view.last.get('round', '-')}: {view.state}"
        if doing != self._told:
            self._told = doing
            say(f"  emulated board, {doing}")


def _answers(board: Emulated, adapter: Path) -> tuple[list[str], list[str]]:
    """The texts that the adapter lets the base write, here and in the emulated root."""
    words = ("generate", "--adapter", str(adapter), "--json", *QUESTIONS)
    ours, theirs = run([str(BIN / "edge-client"), *words]), board.run(CLIENT, *words)
    answers = [[json.loads(line)["answer"] for line in text.splitlines()] for text in (ours, theirs)]
    if any(len(each) != len(QUESTIONS) for each in answers):
        raise NotPossibleError("there are texts without an answer", "run `edge-client generate` by hand")
    return answers[0], answers[1]


def write_text(path: Path, shift: int) -> str:
    """Small examples in a file, others for another shift; the file's name."""
    words, things = ("old", "warm", "loud", "wet", "new", "slow", "cold"), ("pump", "valve", "motor", "cable", "fan")
    lines = []
    for number in range(N_EXAMPLES):
        word, thing = words[(number * 3 + shift) % len(words)], things[(number + shift) % len(things)]
        source = f"case {number}: the {word} {thing} was seen in hall {number % 5} and it must be looked at again"
        lines.append(json.dumps({"source": source, "target": f"check the {word} {thing}"}))
    path.write_text("\n".join(lines) + "\n")
    return str(path)
