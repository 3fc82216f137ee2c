"""`edge-client generate`: lets the base write, with an adapter or without."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from braid_common.terminal import typed
from braid_common.text_form import DEFAULT_FORM, TextForm
from edge_client.cli.options import debug_option, format_option, global_option, state_option
from edge_client.errors import DataError
from edge_client.host.packages import require_packages
from edge_client.host.torch_trial import loading_torch
from wire.limits import MAX_TEXT_TOKENS

if TYPE_CHECKING:
    from edge_client.cli.own_strands import OwnStrands


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXT|-")
@click.option(
    "--model",
    envvar="BRAID_MODEL",
    default="",
    help="Hub id, folder or builtin.  [default: builtin, with local strands theirs]",
)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path, exists=True),
    help="PEFT LoRA folder, such as `aggregator export` writes, or an adapter file.  [default: the bare base, with "
    "local strands the adapter that the board holds]",
)
@global_option
@state_option
@format_option
@click.option(
    "--prefix",
    help=f"Words before every text, spaces included.  [default: the adapter's, or {DEFAULT_FORM.prefix!r}]",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1, MAX_TEXT_TOKENS),
    help=f"Longest answer, in tokens.  [default: the adapter's, or {DEFAULT_FORM.max_target_tokens}]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per text.")
@debug_option
def generate(texts: tuple[str, ...], adapter: Path | None, as_json: bool, debug: bool, **values: Any) -> None:
    """Write an answer to each TEXT; "-" reads one from standard input.

    Texts are given to the model in the form that the adapter was trained on, where its folder says it (braid.json, as
    `aggregator export` writes it). A board that has trained local strands answers with them on top.
    """
    del debug
    sources = [sys.stdin.read() if text == "-" else typed(text) for text in texts]
    if not any(source.strip() for source in sources):
        raise DataError("there is no text to answer", "give one as an argument, or pipe one in with -")
    require_packages()
    from edge_client.base.locate import BUILTIN, resolve
    from edge_client.cli.own_strands import own_strands

    with loading_torch():
        from edge_client.engines.lean.generate import Writer

    own = None if values["is_global"] else own_strands(values["state"].expanduser())
    text_form = _form_of(adapter, own, values["prefix"], values["max_tokens"])
    folder = resolve(values["model"] or (BUILTIN if own is None else own.model))
    if own is not None:
        own.require_base(folder)
        adapter = own.held_adapter() if adapter is None else adapter
        own.require_run(adapter)
    file = None if own is None else own.file
    writer = Writer(folder, adapter, format=values["format"], own=file, form=text_form)
    for number, source in enumerate(sources, 1):
        if writer.cuts(source):
            left_out = f"its {text_form.truncate_source} is left out"
            click.echo(
                f"warning: text {number} has more than {text_form.max_source_tokens} tokens: {left_out}", err=True
            )
    for source, answer in zip(sources, writer.write(sources), strict=True):
        click.echo(json.dumps({"text": source, "answer": answer}, ensure_ascii=False) if as_json else answer)


def _form_of(adapter: Path | None, own: OwnStrands | None, prefix: str | None, max_tokens: int | None) -> TextForm:
    """The form that the adapter names, else that of the local strands, else the usual one; with what was said on the
    command line."""
    from edge_client.base.adapter_form import read_form

    form = read_form(adapter) if adapter is not None else None
    form = form or (DEFAULT_FORM if own is None else own.facts.form)
    if prefix is not None:
        form = replace(form, prefix=prefix)
    return form if max_tokens is None else replace(form, max_target_tokens=max_tokens)
