"""`edge-client evaluate`: how good the base is on a person's own text, and adapters beside it."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from braid_common.example import Example
from braid_common.seeds import derive_seed
from braid_common.units import show_share
from edge_client.agent.console import Console
from edge_client.cli.contestants import Contestants, common_form, gathered, parse_adapters
from edge_client.cli.options import (
    data_options,
    debug_option,
    form_options,
    format_option,
    global_option,
    state_option,
)
from edge_client.cli.own_strands import own_strands
from edge_client.errors import DataError
from edge_client.host.packages import require_packages
from edge_client.host.torch_trial import loading_torch
from edge_client.host.worker_memory import prepare_for_training
from edge_client.jobs.data_spec import DataSpec

if TYPE_CHECKING:
    from edge_client.data.dataset import Data
    from edge_client.evaluation.report import Report

FEW_EXAMPLES = 30
"""With fewer the intervals are called rough. Beside Student's t, a percentile interval of a mean is 6 % too narrow with
30 examples, and 18 % with 10: √((n − 1)/n) · 1.96 / t."""

Tell = Callable[[str, int, int], None]
"""Hears of a phase, its steps, and how many of them are done."""


@dataclass(frozen=True, slots=True)
class EvaluateFlags:
    """The flags of `edge-client evaluate` that say what is evaluated. "" and None mean: not given."""

    data: str
    source: str
    target: tuple[str, ...]
    encoding: str
    delimiter: str
    model: str
    adapter: tuple[str, ...]
    state: Path
    is_global: bool
    held_out: bool
    limit: int | None
    seed: int
    format: str
    threads: int
    prefix: str | None
    max_source_tokens: int | None
    max_target_tokens: int | None
    truncate_source: str | None

    @property
    def data_spec(self) -> DataSpec:
        """The data set to evaluate on."""
        encoding, delimiter = self.encoding, self.delimiter
        return DataSpec.of(self.data, source=self.source, targets=self.target, encoding=encoding, delimiter=delimiter)

    @property
    def form_changes(self) -> dict[str, object]:
        """The fields of a TextForm that were given."""
        names = ("prefix", "max_source_tokens", "max_target_tokens", "truncate_source")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@click.command()
@click.option("--data", envvar="BRAID_DATA", required=True, help="Examples: as `join --data`.")
@data_options
@click.option(
    "--model",
    envvar="BRAID_MODEL",
    default="",
    help="Base: hub id, folder or builtin.  [default: builtin, with versions the run's]",
)
@click.option(
    "--adapter",
    multiple=True,
    metavar="FOLDER|NAME=FOLDER|VERSION",
    help="Judge this beside the bare base: a PEFT LoRA folder, an adapter file, or a version of the run that the board "
    "of --state has joined. May be repeated.",
)
@state_option
@global_option
@click.option("--held-out", is_flag=True, help="Only the examples that training on this data leaves out.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many examples, drawn by the seed.")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), default=0, show_default=True, help="Of all that is drawn.")
@format_option
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Processors; 0 is all that are free.")
@form_options("the first adapter's")
@click.option(
    "--show",
    type=click.IntRange(0, 1000),
    default=0,
    help="So many examples with all answers, from the one that the last adapter helps most to the one it helps least.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def evaluate(show: int, as_json: bool, debug: bool, **values: Any) -> None:
    """Say how good the base is on this data, and every adapter beside it.

    Prints loss, ROUGE-1, -2 and -L, exact match, and where right answers are tool calls how many call the right tool
    with the right arguments; each with a 95 % interval, and each adapter's difference to the base with one too.
    Progress goes to standard error.
    """
    del debug
    report = _evaluate(EvaluateFlags(**values), show)
    from edge_client.evaluation.report import to_json
    from edge_client.evaluation.table import example_lines, table_lines

    if as_json:
        click.echo(to_json(report).decode())
        return
    notes = [f"note: {note}" for note in report.notes]
    click.echo("\n".join([*_heading(report), "", *table_lines(report), *notes, *example_lines(report)]))


def _evaluate(flags: EvaluateFlags, n_shown: int) -> Report:
    """Look at the flags, then at the data, then at the base; and let all contestants answer."""
    entries = parse_adapters(flags.adapter)
    require_packages()
    from edge_client.data.load import load_data  # it needs no torch: bad data is found without

    data = load_data(flags.data_spec)
    available = data.held_out if flags.held_out else [*data.train, *data.held_out]
    if not available:
        raise DataError(f"{flags.data} holds out no example", "leave --held-out away, or give two examples or more")
    own = None if flags.is_global else own_strands(flags.state.expanduser())
    model = flags.model or (own.model if own is not None and all(entry.path for entry in entries) else "")
    with gathered(entries, model, flags.state.expanduser()) as contestants, _progress() as tell:
        if own is not None:
            contestants = contestants.with_own(own)
        report = _judge(contestants, _drawn(available, flags), len(available), flags, n_shown, tell)
    return msgspec.structs.replace(report, notes=(*report.notes, *_notes(data, report)))


def _judge(
    contestants: Contestants,
    examples: Sequence[Example],
    n_available: int,
    flags: EvaluateFlags,
    n_shown: int,
    tell: Tell,
) -> Report:
    """Load the base, let all contestants answer, and score what they wrote."""
    if "torch" not in sys.modules:
        prepare_for_training()
    with loading_torch():
        from edge_client.engines.lean.contest import Contest, use_threads
    from edge_client.evaluation.report import Setting, make_report

    form, form_notes = common_form(contestants.forms, flags.form_changes)
    setting = Setting(
        data=flags.data,
        part="held_out" if flags.held_out else "all",
        n_available=n_available,
        model=contestants.model,
        format=flags.format,
        form=form,
    )
    use_threads(flags.threads)
    n_answers = len(examples) * len(contestants.paths)
    tell(f"loading {contestants.model}", 1, 0)
    contest = Contest(
        contestants.base_folder,
        contestants.paths,
        own=contestants.own,
        format=flags.format,  # type: ignore[arg-type]
        form=form,
    )
    answered = contest.answers(examples, partial(tell, "answering", n_answers))
    report = make_report(
        answered,
        {name: str(path or "") for name, path in contestants.paths.items()},
        setting,
        seed=flags.seed,
        n_shown=n_shown,
        tell=partial(tell, "scoring", n_answers),
    )
    return msgspec.structs.replace(report, notes=(*form_notes, *report.notes))


@contextlib.contextmanager
def _progress() -> Iterator[Tell]:
    """How far the work is, on stderr, with the time that is left."""
    console = Console(stream=sys.stderr)
    try:
        yield lambda phase, steps, step: console.progress(phase=phase, step=step, steps=steps)
    finally:
        console.close()


def _drawn(examples: Sequence[Example], flags: EvaluateFlags) -> Sequence[Example]:
    """The examples, or as many of them as --limit allows, in their order."""
    if flags.limit is None or flags.limit >= len(examples):
        return examples
    places = random.Random(derive_seed(flags.seed, "limit")).sample(range(len(examples)), flags.limit)
    return [examples[place] for place in sorted(places)]


def _heading(report: Report) -> list[str]:
    """The question that was asked, in words."""
    asked, form = report.setting, report.setting.form
    part = "all that are usable" if asked.part == "all" else "all that training on it leaves out"
    if report.n_examples < asked.n_available:
        part = f"drawn with seed {report.seed} from {asked.n_available}, {part}"
    sources_cut, targets_cut = (_share(n, report.n_examples) for n in (report.n_sources_cut, report.n_targets_cut))
    return [
        f"{report.n_examples} examples of {asked.data}: {part}",
        f"base {asked.model} in {asked.format}, prefix {form.prefix!r}, "
        f"sources of up to {form.max_source_tokens} tokens{sources_cut}, "
        f"answers of up to {form.max_target_tokens}{targets_cut}",
    ]


def _share(n_cut: int, n: int) -> str:
    return f" ({show_share(n_cut / n)} are cut)" if n_cut else ""


def _notes(data: Data, report: Report) -> Iterator[str]:
    """Sentences about the examples."""
    if report.setting.part == "all" and data.held_out:
        n = len(data.held_out)
        yield f"training on this data would leave out {n} of its examples: --held-out takes these alone"
    if data.n_skipped:
        yield f"{data.n_skipped} lines or files are unusable and left out; first: {data.first_skipped}"
    if report.n_examples < FEW_EXAMPLES:
        yield f"{report.n_examples} examples are few: the intervals are rough"
