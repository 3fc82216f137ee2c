"""`edge-client data`: shows how a data set is read, before anything is trained on it. No server, and no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from braid_common.text_form import DEFAULT_FORM, Cut, TextForm
from braid_common.units import printable, show_share
from edge_client.cli.options import data_options, debug_option, form_options, state_option
from edge_client.errors import base_errors
from edge_client.host.packages import require_packages
from edge_client.jobs.data_spec import DataSpec

if TYPE_CHECKING:
    from braid_common.example import Example
    from edge_client.data.dataset import Data
    from edge_client.data.tokeniser import Tokeniser
    from wire.text_lengths import TextLengths

SHOWN_CHARS = 300
"""Characters of an example's source and target that a person is shown; --json has all."""

SHOWN_SKIPS = 5
"""Skipped parts that a person is shown; --json has more."""


@dataclass(frozen=True, slots=True)
class FormFlags:
    """The flags that say in which form the texts are trained, and with which base. None and "" mean: not given."""

    model: str
    server: str
    state: Path
    max_source_tokens: int | None
    max_target_tokens: int | None
    prefix: str | None
    truncate_source: Cut | None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that there is to tell about a data set.

    Attributes:
        n_duplicates: examples whose source and target were there already.
        examples: the first ones, as they are trained: (source, target) with the prefix, cut to the form.
    """

    spec: DataSpec
    data: Data
    n_duplicates: int
    model: str
    form: TextForm
    lengths: TextLengths
    examples: list[tuple[str, str]]


@click.command()
@click.argument("path")
@data_options
@click.option(
    "--model", envvar="BRAID_MODEL", default="", help="Base whose tokens are counted.  [default: the run's, or builtin]"
)
@click.option("--server", default="", help="Take the limits of this server's run, which the board must have joined.")
@state_option
@form_options("the run's")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@debug_option
def data(path: str, as_json: bool, debug: bool, **flags: Any) -> None:
    """Show how the data at PATH is read, how long its texts are, and three examples as they would be trained.

    PATH is what `join --data` takes. Without --server the limits are those that text has outside of a run.
    """
    del debug
    from edge_client.data.load import load_data

    spec = DataSpec.of(
        path,
        source=flags.pop("source"),
        targets=flags.pop("target"),
        encoding=flags.pop("encoding"),
        delimiter=flags.pop("delimiter"),
    )
    read = load_data(spec)
    seen = look(spec, read, FormFlags(**flags))
    click.echo(json.dumps(facts(seen), ensure_ascii=False) if as_json else "\n".join(lines(seen)))


def look(spec: DataSpec, read: Data, flags: FormFlags) -> Seen:
    """Tokenise the data. Raises BaseModelError, and ConfigError where the tokeniser's package is missing."""
    require_packages(["tokenizers"])
    from edge_client.data.lengths import measure_lengths

    model, form = _model_and_form(flags)
    tokeniser = _tokeniser(model)
    examples = [*read.train, *read.held_out]
    n_distinct = len({(example.source, example.target) for example in examples})
    return Seen(
        spec,
        read,
        len(examples) - n_distinct,
        model,
        form,
        measure_lengths(examples, tokeniser, form),
        [_as_trained(example, tokeniser, form) for example in read.first],
    )


def facts(seen: Seen) -> dict[str, Any]:
    """Everything for programs. `skipped` is a list of the first places with their reasons; shares are from 0 to 1."""
    from edge_client.data.essence import essence_facts
    from edge_client.data.load import MIN_UNITS
    from wire.text_lengths import PERCENTS

    findings, lengths, form = seen.data.findings, seen.lengths, seen.form
    return {
        "path": seen.spec.path,
        **essence_facts(seen.data),
        "skipped": [{"place": place, "reason": reason} for place, reason in findings.skips],
        "n_duplicates": seen.n_duplicates,
        "is_enough": seen.data.n_units >= MIN_UNITS,
        "files": [
            {
                name: getattr(file, name)
                for name in ("path", "format", "encoding", "delimiter", "n_examples", "n_skipped")
            }
            for file in findings.files
        ],
        "model": seen.model,
        "prefix": form.prefix,
        "max_source_tokens": form.max_source_tokens,
        "max_target_tokens": form.max_target_tokens,
        "truncate_source": form.truncate_source,
        "source_tokens": dict(zip((f"p{percent}" for percent in PERCENTS), lengths.source_tokens, strict=True)),
        "target_tokens": dict(zip((f"p{percent}" for percent in PERCENTS), lengths.target_tokens, strict=True)),
        "truncated_sources": lengths.sources_cut,
        "truncated_targets": lengths.targets_cut,
        "examples": [{"source": source, "target": target} for source, target in seen.examples],
    }


def lines(seen: Seen) -> Iterator[str]:
    """Everything for people."""
    from edge_client.data.essence import columns_words, counted, file_words
    from edge_client.data.load import MIN_UNITS

    read, findings = seen.data, seen.data.findings
    yield f"data        {seen.spec}"
    for file in findings.files:
        of = "" if len(findings.files) == 1 else f"{file.path}: "
        n_files = f", {file.n_files} files" if file.n_files > 1 else ""
        n_read = f"{counted(file.n_examples, 'example')}, {file.n_skipped:,} skipped"
        yield f"read        {of}{file_words(file)}{n_files}: {n_read}"
    yield f"columns     {columns_words(read)}"
    yield (
        f"examples    {read.n_examples:,}: {len(read.train):,} to train on, {len(read.held_out):,} held out; "
        f"{seen.n_duplicates:,} of them repeat another"
    )
    yield f"skipped     {read.n_skipped:,}" + (", first:" if findings.skips else "")
    yield from (f"            {place}: {reason}" for place, reason in findings.skips[:SHOWN_SKIPS])
    if findings.left_out_files:
        n_files = counted(len(findings.left_out_files), "file")
        yield f"not read    {', '.join(findings.left_out_files[:SHOWN_SKIPS])} ({n_files})"
    if findings.left_out_from:
        yield f"left out    all from {findings.left_out_from} on: a board keeps {read.n_examples:,} examples"
    yield from _length_lines(seen)
    for number, (source, target) in enumerate(seen.examples, 1):
        yield f"\n{number}. source\n{_shown(source)}\n   target\n{_shown(target)}"
    if read.n_units < MIN_UNITS:
        yield f"\n! `join` refuses this: {MIN_UNITS} examples (or conversations) are needed, one of them to measure on"


def _length_lines(seen: Seen) -> Iterator[str]:
    lengths = seen.lengths
    sample = f", of {lengths.n_measured:,} examples" if lengths.n_measured < lengths.n_examples else ""
    yield f"tokens      of {seen.model}, prefix {seen.form.prefix!r} included{sample}:"
    sides = (
        ("source", lengths.source_tokens, lengths.sources_cut, lengths.max_source_tokens),
        ("target", lengths.target_tokens, lengths.targets_cut, lengths.max_target_tokens),
    )
    for side, tokens, share, limit in sides:
        half, nine_tenths, *_, longest = tokens
        cut = f" ({show_share(share)} are cut at {limit})" if share else f" (none is cut at {limit})"
        yield f"  {side}    half have {half} at most, nine of ten {nine_tenths}, the longest {longest}{cut}"


def _model_and_form(flags: FormFlags) -> tuple[str, TextForm]:
    from edge_client.base.locate import BUILTIN

    model, form = flags.model or BUILTIN, DEFAULT_FORM
    if flags.server:
        from edge_client.cli.joined_run import base_name, joined_run
        from edge_client.state.folder import StateFolder

        folder = StateFolder(flags.state.expanduser())
        run = joined_run(flags.server, folder, "give the limits as numbers")
        model, form = flags.model or base_name(run, folder), run.settings.text_form
    names = ("max_source_tokens", "max_target_tokens", "prefix", "truncate_source")
    given = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    return model, replace(form, **given)


def _tokeniser(model: str) -> Tokeniser:
    from braid_common.base.files import read_t5_config
    from edge_client.base.locate import resolve
    from edge_client.data.tokeniser import Tokeniser

    folder = resolve(model)
    with base_errors():
        config = read_t5_config(folder)
    return Tokeniser(folder, config.eos_id, config.vocab_size)


def _as_trained(example: Example, tokeniser: Tokeniser, form: TextForm) -> tuple[str, str]:
    """Source and target as the model meets them; the texts themselves where nothing is cut."""
    pair = tokeniser.pair(example, form)
    whole = (form.prefix + example.source, example.target)
    limits = (form.max_source_tokens, form.max_target_tokens)
    return cast(
        "tuple[str, str]",
        tuple(
            tokeniser.decode(ids) if len(ids) >= limit else text
            for text, ids, limit in zip(whole, (pair.source, pair.target), limits, strict=True)
        ),
    )


def _shown(text: str) -> str:
    """The beginning of a text, indented, without characters that a terminal would obey."""
    more = f" … ({len(text):,} characters)" if len(text) > SHOWN_CHARS else ""
    lines = (text[:SHOWN_CHARS] + more).expandtabs().splitlines()
    return "\n".join(f"     {printable(line)}" for line in lines)
