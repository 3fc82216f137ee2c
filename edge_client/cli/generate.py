"""`edge-client generate`: lets the base write, with an adapter or without."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from braid_common.text_form import TextForm
from edge_client.cli.options import debug_option
from edge_client.errors import DataError
from edge_client.host.packages import require_packages
from quantize.formats import FORMATS


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXT|-")
@click.option("--model", envvar="BRAID_MODEL", default="builtin", show_default=True, help="Hub id, folder or builtin.")
@click.option(
    "--adapter",
    type=click.Path(path_type=Path, exists=True),
    help="PEFT LoRA folder, such as `aggregator export` writes, or an adapter file.  [default: the bare base]",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="fp32",
    show_default=True,
    help="Precision of the base in memory.",
)
@click.option(
    "--max-tokens", type=click.IntRange(1, 8192), default=64, show_default=True, help="Longest answer, in tokens."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per text.")
@debug_option
def generate(
    texts: tuple[str, ...], model: str, adapter: Path | None, format: str, max_tokens: int, as_json: bool, debug: bool
) -> None:
    """Write an answer to each TEXT; "-" reads one from standard input."""
    del debug
    sources = [sys.stdin.read() if text == "-" else text for text in texts]
    if not any(source.strip() for source in sources):
        raise DataError("there is no text to answer", "give one as an argument, or pipe one in with -")
    require_packages()
    from edge_client.base.locate import resolve
    from edge_client.engines.lean.generate import Writer

    writer = Writer(resolve(model), adapter, format=format, form=TextForm(max_target_tokens=max_tokens))  # type: ignore[arg-type]
    for source, answer in zip(sources, writer.write(sources), strict=True):
        click.echo(json.dumps({"text": source, "answer": answer}, ensure_ascii=False) if as_json else answer)
