"""`edge-client reward fit`: makes a reward model of answers that people have rated."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_client.cli.options import debug_option, format_option
from edge_client.host.packages import require_packages
from edge_client.host.torch_trial import loading_torch

if TYPE_CHECKING:
    from edge_client.engines.lean.reward.fit import Fit
    from edge_client.rewards.rated import RatedFile


@click.group()
def reward() -> None:
    """Make what a board judges its own answers by."""


@reward.command()
@click.argument("rated", type=click.Path(path_type=Path), metavar="RATED.jsonl")
@click.option("--out", type=click.Path(path_type=Path), default="reward.head", show_default=True, help="File to write.")
@click.option("--model", envvar="BRAID_MODEL", default="builtin", show_default=True, help="Hub id, folder or builtin.")
@format_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def fit(rated: Path, out: Path, model: str, as_json: bool, debug: bool, **form: Any) -> None:
    """Fit a small model that says how likely people approve of an answer.

    Each line of RATED.jsonl has a source, an answer and a reward from 0 (bad) to 1 (good). A fifth of the sources is
    held out, and the agreement with people on these is shown. Name the base that the run trains with --model.
    """
    del debug
    require_packages()
    from edge_client.base.locate import resolve
    from edge_client.rewards.rated import read_rated

    with loading_torch():
        from edge_client.engines.lean.reward.fit import fit_reward_model, save_fit

    answers = read_rated(rated)
    folder = resolve(model)
    n_answers = len(answers.train) + len(answers.held_out)
    with _progress(n_answers) as tell:
        fitted = fit_reward_model(folder, answers, format=form["format"], tell=lambda n_done, n_tokens: tell(n_done))
    save_fit(out, fitted, folder)
    click.echo(json.dumps(_facts(answers, fitted, out)) if as_json else "\n".join(_lines(answers, fitted, out)))


@contextmanager
def _progress(n_answers: int) -> Iterator[Callable[[int], None]]:
    """Shows how many answers are encoded; on stderr, so that stdout is the result alone."""
    from edge_client.agent.console import Console

    console = Console(stream=sys.stderr)
    try:
        yield lambda n_done: console.progress(phase="encode", step=n_done, steps=n_answers)
    finally:
        console.close()


def _lines(answers: RatedFile, fitted: Fit, out: Path) -> list[str]:
    shown = fitted.held_out
    skipped = [f"left out: {answers.n_skipped} lines; first: {answers.first_skipped}"] if answers.n_skipped else []
    chance = "" if shown.auc_low > 0.5 else "  → it may be chance: do not rely on it"
    return [
        *skipped,
        f"fitted to {fitted.n_train} answers, tested on {shown.n_good} good and {shown.n_bad} bad to other sources",
        f"accuracy {shown.accuracy:.3f}, always saying what most say {shown.majority:.3f}",
        f"a good answer is put above a bad one with probability {shown.auc:.3f} (95 % {shown.auc_low:.3f} to "
        f"{shown.auc_high:.3f}; chance 0.5; by their length alone {fitted.length_auc:.3f}){chance}",
        f"of {fitted.same_source.n_pairs} pairs of answers to the same source, the good one above in "
        f"{fitted.same_source.right:.3f}",
        f'wrote {out}: name it in a [[reward]] table of edge-client.toml with kind = "model"',
    ]


def _facts(answers: RatedFile, fitted: Fit, out: Path) -> dict[str, Any]:
    shown = fitted.held_out
    return {
        "path": str(out),
        "n_train": fitted.n_train,
        "n_good": shown.n_good,
        "n_bad": shown.n_bad,
        "n_skipped": answers.n_skipped,
        "accuracy": shown.accuracy,
        "majority": shown.majority,
        "auc": shown.auc,
        "auc_low": shown.auc_low,
        "auc_high": shown.auc_high,
        "length_auc": fitted.length_auc,
        "n_same_source": fitted.same_source.n_pairs,
        "same_source": fitted.same_source.right,
    }
