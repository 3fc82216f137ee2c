"""The command `quantize`: costs and losses of the formats on a base, and conversion between stored forms.

torch is imported by the commands themselves, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from braid_common.hub.errors import HubError
from braid_common.hub.fetch import fetch
from braid_common.hub.model_id import parse_hub_id
from braid_common.hub.progress import StreamProgress
from braid_common.terminal import moves_cursor, use_any_terminal
from quantize.errors import BaseFormatError
from quantize.formats import FORMATS

if TYPE_CHECKING:
    from quantize.report import Loss

BUILTIN = "builtin"

ENGINE = "edge_client.engines.lean.base_loss"
"""The module that computes the loss of a base, if edge_client is installed."""

LINE_EVERY_S = 10.0
"""Seconds between two lines about progress where there is no terminal."""

_folder = click.Path(path_type=Path, file_okay=False)


_model = click.argument("model")


def _folder_of(model: str) -> Path:
    """The folder of MODEL: itself, the base that ships with the project, or one in the hub's cache, fetched if need be.

    Raises HubError.
    """
    path = Path(model)
    if path.exists():
        return path
    if model == BUILTIN:
        import builtin_base

        return builtin_base.folder()
    hub_id = parse_hub_id(model)
    return path if hub_id is None else fetch(hub_id, StreamProgress()).folder


class _OnAnyTerminal(click.Group):
    """A group whose output suits whatever it is written to."""

    def main(self, *args: Any, **options: Any) -> Any:
        use_any_terminal()
        return super().main(*args, **options)


@click.group(cls=_OnAnyTerminal, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="braid-fl", prog_name="quantize")
def main() -> None:
    """Measure and convert the frozen base model."""


@main.command()
@_model
@click.option(
    "--text", type=click.Path(path_type=Path, dir_okay=False), help="JSONL of source and target for the loss."
)
@click.option("--json", "as_json", is_flag=True, help="Print facts for programs.")
def report(model: str, text: Path | None, as_json: bool) -> None:
    """Show the costs and losses of each format of MODEL: a base folder, a hub id or `builtin`.

    Size of the file that `convert` writes, memory of the loaded base, relative error of the weights, and loss in nats
    per target token on --text, else on a small sample: `change` is against the weights as MODEL stores them. The loss
    needs edge_client, and memory for the whole base.
    """
    with _sentences():
        from quantize.report import report as measure

        folder = _folder_of(model)
        with _progress("measuring") as tell:
            found = measure(folder, text, loss=_loss(), tell=tell)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    columns = ("format", "on disk", "in memory", "bits/value", "error", "loss", "change")
    click.echo("{:<7}{:>12}{:>12}{:>11}{:>9}{:>8}{:>9}  worst matrix".format(*columns))
    for row in found.formats:
        worst = f"{row.worst_error:.2%} {row.worst_weight}" if row.worst_error else "exact"
        losses = ("–", "–") if row.loss is None else (f"{row.loss:.4f}", f"{row.loss_change:+.4f}")
        cells = (
            _mib(row.disk_bytes),
            _mib(row.resident_bytes),
            f"{row.bits_per_value:.2f}",
            f"{row.relative_error:.3%}",
        )
        click.echo("{:<7}{:>12}{:>12}{:>11}{:>9}{:>8}{:>9}  {}".format(row.format, *cells, *losses, worst))
    if found.n_loss_tokens:
        click.echo(f"loss in nats per token, of {found.n_loss_tokens} target tokens; change against {found.stored}")
    for note in found.notes:
        click.echo(f"note: {note}")


@main.command()
@_model
@click.option("--format", "format_name", type=click.Choice(FORMATS), required=True)
@click.option("--out", type=_folder, required=True, help="New folder to write.")
def convert(model: str, format_name: str, out: Path) -> None:
    """Store MODEL, a base folder, a hub id or `builtin`, in another format.

    fp32 and bf16 folders are Hugging Face ones; int8 (a scale per row) and nf4 (4 bits) are for Braid.
    """
    with _sentences():
        from quantize.checkpoint import open_checkpoint
        from quantize.writer import convert as write

        folder = _folder_of(model)
        stored = open_checkpoint(folder).stored_format
        with _progress(f"writing {out}") as tell:
            write(folder, format_name, out, tell=tell)
    size_bytes = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"wrote {out} ({_mib(size_bytes)})")
    if stored in ("int8", "nf4") and format_name != stored:
        click.echo(f"note: {model} is stored in {stored}; what that lost of the original stays lost")


def _loss() -> Loss | None:
    """The training engine's measurement of a loss; None where that engine is not installed.

    It is looked up by name: the client stands above this package, which must work without it.
    """
    try:
        measured: Loss = importlib.import_module(ENGINE).base_loss
    except ModuleNotFoundError:
        return None
    return measured


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, elsewhere a line now and then; both on stderr."""
    if moves_cursor(sys.stderr):
        with click.progressbar(length=1000, label=label, file=sys.stderr) as bar:
            yield lambda done, total: bar.update(1000 * done // total - bar.pos)
        return
    told_s = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= LINE_EVERY_S:
            told_s = time.monotonic()
            click.echo(f"{label}: {done / total:.0%}", err=True)

    yield tell


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn expected errors into one line and exit status 1."""
    try:
        yield
    except BaseFormatError as error:
        raise click.ClickException(str(error)) from error
    except HubError as error:
        raise click.ClickException(f"{error.message}; {error.hint}") from error
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; install braid-fl[quant]") from error


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
