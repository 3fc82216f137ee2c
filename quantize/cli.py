"""`quantize`: what the formats cost and lose on a base, and conversion between stored forms.

torch is imported by the commands themselves, so that `--help` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from quantize.errors import BaseFormatError
from quantize.formats import WRITABLE

BUILTIN = "builtin"
_folder = click.Path(path_type=Path, file_okay=False)


def _model_folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """The folder behind MODEL: itself, or the base that ships with the project."""
    if str(value) != BUILTIN or value.exists():
        return value
    import builtin_base

    return builtin_base.folder()


_model = click.argument("model", type=_folder, callback=_model_folder)


@click.group()
def main() -> None:
    """Measure and convert the frozen base model."""


@main.command()
@_model
@click.option("--json", "as_json", is_flag=True, help="Print facts for programs.")
def report(model: Path, as_json: bool) -> None:
    """Size, memory and relative weight error of MODEL, a base folder or `builtin`, in every format."""
    with _sentences():
        from quantize.report import report as measure

        rows = measure(model)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    click.echo(f"{'format':<7} {'matrices':>11} {'in memory':>11} {'bits/value':>10} {'error':>9}  worst matrix")
    for row in rows:
        worst = f"{row.worst_error:.2%} {row.worst_weight}" if row.worst_error else "exact"
        click.echo(
            f"{row.format:<7} {_mib(row.matrix_bytes):>11} {_mib(row.resident_bytes):>11} {row.bits_per_value:>10.2f} "
            f"{row.relative_error:>9.3%}  {worst}"
        )


@main.command()
@_model
@click.option("--format", "format_name", type=click.Choice(WRITABLE), required=True)
@click.option("--out", type=_folder, required=True, help="New folder to write.")
def convert(model: Path, format_name: str, out: Path) -> None:
    """Store MODEL, a base folder or `builtin`, as fp32 or bf16 (Hugging Face folders) or int8 (a scale per row)."""
    with _sentences():
        from quantize.writer import convert as write

        write(model, format_name, out)
    size_bytes = sum(path.stat().st_size for path in out.iterdir())
    click.echo(f"wrote {out} ({_mib(size_bytes)})")


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn expected errors into one line and exit status 1."""
    try:
        yield
    except BaseFormatError as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; install braid[quant]") from error


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
