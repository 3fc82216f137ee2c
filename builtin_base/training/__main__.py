"""The training's command line: ``python -m builtin_base.training run FOLDER`` and its sisters."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from tokenizers import Tokenizer

import builtin_base
from builtin_base.training import batches, decay, export, loop, model_folder, scores, speed
from builtin_base.training.card import write_card
from builtin_base.training.gpu.carry import MAX_BYTES, pack_for_gpu
from builtin_base.training.gpu.parts import read_parts
from builtin_base.training.mixture import DECAY, STABLE, Mixture
from builtin_base.training.priority import give_way
from builtin_base.training.run_log import log
from builtin_base.training.settings import Settings, read_settings
from builtin_base.training.state import State, fresh, from_weights, resume
from builtin_base.training.step import workers
from builtin_base.training.text.documents import write_corpus
from builtin_base.training.text.gather import gather
from builtin_base.training.text.prepare import prepare

_FOLDER = click.Path(file_okay=False, path_type=Path)
_HERE = click.Path(file_okay=False, exists=True, path_type=Path)
_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)
_threads = click.option(
    "--threads", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processors to train on."
)
_idle = click.option("--idle", is_flag=True, help="Give way to all other work; start it with setsid.")
_sites = click.option("--site", "sites", type=_HERE, multiple=True, help="Folder of packages to read; repeatable.")


class _Commands(click.Group):
    """A group whose commands answer bad input with one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (OSError, ValueError, LookupError, FloatingPointError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train the builtin base for as long as there is time, and branch off weights to ship.

    docs/develop/train-the-base.md is the walk through it.
    """


@main.command("prepare")
@click.argument("folder", type=_FOLDER)
@click.option("--corpus", type=_HERE, help="Corpus gathered before; gathered into FOLDER/corpus where not given.")
@_sites
@click.option("--excluded-site", "excluded", type=_HERE, multiple=True, help="Where tested libraries lie; repeatable.")
@click.option("--examples", type=_FILE, multiple=True, help="Training part of a published set, JSON lines; repeatable.")
@click.option("--tested", type=_FILE, multiple=True, help="Set of which no text may be in the corpus; repeatable.")
@click.option("--new-tokenizer", is_flag=True, help="Train a tokenizer on the corpus, for a run --from-nothing.")
def prepare_command(
    folder: Path,
    corpus: Path | None,
    sites: tuple[Path, ...],
    excluded: tuple[Path, ...],
    examples: tuple[Path, ...],
    tested: tuple[Path, ...],
    new_tokenizer: bool,
) -> None:
    """Gather a corpus from this machine's packages and documentation, and tokenise it into FOLDER/text.

    A run that goes on meanwhile reads the new text when it is started again.
    """
    if corpus is None:
        found, report = gather(sites, excluded, examples, tested, os.cpu_count() or 1)
        corpus = folder / "corpus"
        write_corpus(corpus, found, report)
        click.echo(json.dumps({key: value for key, value in report.items() if key != "packages"}))
    prepare(folder, corpus, new_tokenizer=new_tokenizer)


@main.command()
@click.argument("folder", type=_HERE)
@click.option("--weights", type=_HERE, help="Model folder to start from.  [default: the shipped base]")
@click.option("--from-nothing", is_flag=True, help="Start from random weights instead.")
@_threads
@_idle
def run(folder: Path, weights: Path | None, from_nothing: bool, threads: int, idle: bool) -> None:
    """Train in FOLDER, or go on training: until SIGTERM, after which the same command resumes."""
    _give_way(idle)
    settings, sources = _open(folder)
    state = resume(settings, folder)
    began = "checkpoint" if state else "nothing" if from_nothing else "weights"
    state = state or _first_state(settings, folder, weights, from_nothing)
    log(folder, {"start": began, "step": state.step, "tokens": state.n_tokens})
    with workers(threads) as pool:
        loop.run(state, settings, folder, _work(settings, sources, state), pool, loop.stable(settings))


@main.command("decay")
@click.argument("folder", type=_HERE)
@click.argument("branch", type=_FOLDER)
@click.option(
    "--tokens", type=click.IntRange(1), default=8_000_000, show_default=True, help="Over which the rate falls to zero."
)
@_threads
@_idle
def decay_command(folder: Path, branch: Path, tokens: int, threads: int, idle: bool) -> None:
    """Branch off FOLDER's checkpoint into BRANCH, let the rate fall to zero, and write BRANCH/export.

    The main line in FOLDER can go on meanwhile. An unfinished branch is resumed by the same command.
    """
    _give_way(idle)
    settings, sources = _open(folder)
    with workers(threads) as pool:
        decay.run_branch(folder, branch, tokens, settings, _work(settings, sources, None, DECAY), pool)


@main.command("export")
@click.argument("folder", type=_HERE)
def export_command(folder: Path) -> None:
    """Write FOLDER's checkpoint as it stands as model folders FOLDER/export/packed (8 bits) and plain (bf16)."""
    click.echo(f"{export.export(folder)} holds it in 8 bits, plain beside it in bf16")


@main.command("card")
@click.argument("branch", type=_HERE)
@click.argument("table", type=_FILE)
@click.option("--note", default="", help="A sentence about this run: where it began, the machine.")
def card_command(branch: Path, table: Path, note: str) -> None:
    """Write the model card of BRANCH/export/packed, with a TABLE that `python -m benchmarks.bar` printed of it."""
    click.echo(write_card(branch, table.read_text(encoding="utf-8").strip(), note))


@main.command("ship")
@click.argument("packed", type=_HERE)
def ship_command(packed: Path) -> None:
    """Put a packed model folder, card and all, in the place of the shipped base."""
    export.ship(packed)


@main.command("pack-for-gpu")
@click.argument("folder", type=_HERE)
@click.argument("out", type=_FOLDER)
@click.option("--mebibytes", type=click.IntRange(1), default=MAX_BYTES >> 20, show_default=True, help="Of all files.")
def pack_for_gpu_command(folder: Path, out: Path, mebibytes: int) -> None:
    """Pack FOLDER's weights and a sample of its text into OUT, to be carried to a GPU.

    docs/develop/gpu-hour.md says what happens there.
    """
    export.export(folder)
    click.echo(json.dumps(pack_for_gpu(folder, out, mebibytes << 20)))


@main.command("from-gpu")
@click.argument("brought", type=_HERE)
@click.argument("name")
@click.argument("out", type=_FOLDER)
@click.option("--tokenizer", type=_HERE, help="Folder with the run's tokenizer.  [default: the shipped base]")
def from_gpu_command(brought: Path, name: str, out: Path, tokenizer: Path | None) -> None:
    """Join the parts of the model NAME in the folder that was BROUGHT back into a packed model folder OUT."""
    model_folder.write_packed(out, *read_parts(brought, name), tokenizer or builtin_base.folder())


def _open(folder: Path) -> tuple[Settings, batches.Sources]:
    """Read a run's settings and open its text."""
    if not (folder / "text").is_dir():
        raise FileNotFoundError(f"{folder / 'text'} is not there: make it with prepare first")
    settings = read_settings(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return settings, batches.open_sources(folder / "text", tokenizer, settings.batch_tokens, settings.seed)


def _first_state(settings: Settings, folder: Path, weights: Path | None, from_nothing: bool) -> State:
    """Make the state of a run that has no checkpoint yet."""
    if from_nothing:
        return fresh(settings, {})
    weights = weights or builtin_base.folder()
    own, theirs = folder / "tokenizer.json", weights / "tokenizer.json"
    if theirs.exists() and own.read_bytes() != theirs.read_bytes():
        raise ValueError(f"{theirs} is another tokenizer than {own}: these weights would know none of its pieces")
    return from_weights(settings, weights)


def _work(settings: Settings, sources: batches.Sources, state: State | None, mixture: Mixture = STABLE) -> loop.Work:
    """Make what a run does; its speed is compared with the machine's where there is a state to measure."""

    def draw(step: int) -> dict[str, batches.Batch]:
        return batches.draw(sources, settings.batch_tokens, settings.seed, step, mixture)

    peak = speed.measure(state, draw(state.step)) if state else None
    return loop.Work(draw, lambda now: scores.measure(now.model, sources), peak=peak)


def _give_way(idle: bool) -> None:
    for sentence in give_way() if idle else ():
        click.echo(sentence, err=True)


if __name__ == "__main__":
    main()
