"""Flags that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from braid_common.text_form import DEFAULT_FORM, Cut
from edge_client.agent.settings import PERSONAL, REWARD, read_config
from edge_client.host.priority import NICE
from edge_client.state.folder import default_state_folder
from quantize.formats import FORMATS
from wire.limits import MAX_TEXT_TOKENS


def debug_option(command: click.decorators.FC) -> click.decorators.FC:
    """--debug, which also makes the worker and its children talk."""

    def remember(_: click.Context, __: click.Parameter, value: bool) -> bool:
        if value:
            os.environ["BRAID_DEBUG"] = "1"
        return value

    option = click.option(
        "--debug", is_flag=True, callback=remember, help="Show tracebacks and the worker's own words."
    )
    return option(command)


def config_option(command: click.decorators.FC) -> click.decorators.FC:
    """--config FILE: its settings are defaults of the command's own flags; flags and the environment are stronger. What
    it says of local strands is in the context's `meta[PERSONAL]`, its rewards are in `meta[REWARD]`."""

    def load(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
        if value is not None:
            settings = read_config(value)
            if "json" in settings:
                settings["as_json"] = settings.pop("json")  # click knows options by the names of their variables
            ctx.meta[PERSONAL] = settings.pop(PERSONAL, None)
            ctx.meta[REWARD] = settings.pop("rewards", ())
            ctx.default_map = {**(ctx.default_map or {}), **settings}
        return value

    option = click.option(
        "--config",
        type=click.Path(path_type=Path),
        envvar="BRAID_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=load,
        help="TOML file with these settings; flags and environment are stronger.",
    )
    return option(command)


def cache_option(command: click.decorators.FC) -> click.decorators.FC:
    """--cache SIZE."""
    option = click.option(
        "--cache",
        envvar="BRAID_CACHE",
        default="",
        help="Disk for the encoder's output, such as 2GiB; 0 for none.  [default: 4GiB, or a quarter of what is free]",
    )
    return option(command)


def round_time_option(command: click.decorators.FC) -> click.decorators.FC:
    """--round-time DURATION."""
    option = click.option(
        "--round-time",
        envvar="BRAID_ROUND_TIME",
        default="",
        help="Most that a round may take, such as 10min.  [default: no limit]",
    )
    return option(command)


def round_traffic_option(command: click.decorators.FC) -> click.decorators.FC:
    """--round-traffic SIZE."""
    option = click.option(
        "--round-traffic",
        envvar="BRAID_ROUND_TRAFFIC",
        default="",
        help="Most that a round may download and upload together, such as 5MB.  [default: no limit]",
    )
    return option(command)


def manners_options(command: click.decorators.FC) -> click.decorators.FC:
    """--window, --below, --only-on-mains and --nice: when training may go on, and what it makes way for."""
    options = (
        click.option(
            "--window",
            envvar="BRAID_WINDOW",
            default="",
            help="Hours to train at, local time, such as 22:00-06:00; several with commas.  [default: always]",
        ),
        click.option(
            "--below",
            envvar="BRAID_BELOW",
            default="",
            help="Train while processor and GPU are cooler than this, such as 70C.  [default: always]",
        ),
        click.option(
            "--only-on-mains", is_flag=True, envvar="BRAID_ONLY_ON_MAINS", help="Do not train on the board's battery."
        ),
        click.option(
            "--nice",
            type=click.IntRange(0, 19),
            envvar="BRAID_NICE",
            default=NICE,
            show_default=True,
            help="How far training makes way for other programs, for the disk too; 0 for not at all.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


class Column(click.types.StringParamType):
    """A column or a template of columns. In the environment several stand on lines of their own, for a column's name
    may have spaces in it."""

    envvar_list_splitter = "\n"


def data_options(command: click.decorators.FC) -> click.decorators.FC:
    """--source, --target, --encoding and --delimiter: what is read of the data."""
    options = (
        click.option(
            "--source",
            envvar="BRAID_SOURCE",
            default="",
            help="Column to read, or a template such as '{title}\\n{body}'.  [default: found by its name]",
        ),
        click.option(
            "--target",
            type=Column(),
            multiple=True,
            envvar="BRAID_TARGET",
            help="Column to write, or a template; again for further right answers.  [default: found by its name]",
        ),
        click.option(
            "--encoding", envvar="BRAID_ENCODING", default="", help="Of text, such as cp1252.  [default: detected]"
        ),
        click.option(
            "--delimiter",
            envvar="BRAID_DELIMITER",
            default="",
            help="Between columns of a table: a character, or tab.  [default: detected]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def global_option(command: click.decorators.FC) -> click.decorators.FC:
    """--global: without the strands of this board alone."""
    option = click.option(
        "--global",
        "is_global",
        is_flag=True,
        help="Leave out the local strands that the board of --state has trained for itself.",
    )
    return option(command)


def format_option(command: click.decorators.FC) -> click.decorators.FC:
    """--format of the base in memory."""
    option = click.option(
        "--format",
        type=click.Choice(FORMATS),
        default="fp32",
        show_default=True,
        help="Precision of the base in memory.",
    )
    return option(command)


def form_options(whose: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """--prefix, --max-source-tokens, --max-target-tokens and --truncate-source: the form of texts; None is not given.

    `whose` says, in the help, where a value that was not given comes from.
    """
    options = (
        click.option("--prefix", help=f"Words before every source.  [default: {whose}, or {DEFAULT_FORM.prefix!r}]"),
        click.option(
            "--max-source-tokens",
            type=click.IntRange(8, MAX_TEXT_TOKENS),
            help=f"Longest source.  [default: {whose}, or {DEFAULT_FORM.max_source_tokens}]",
        ),
        click.option(
            "--max-target-tokens",
            type=click.IntRange(2, MAX_TEXT_TOKENS),
            help=f"Longest target.  [default: {whose}, or {DEFAULT_FORM.max_target_tokens}]",
        ),
        click.option(
            "--truncate-source",
            type=click.Choice(get_args(Cut)),
            help=f"Part of a longer source that is left out.  [default: {whose}, or {DEFAULT_FORM.truncate_source}]",
        ),
    )

    def add(command: click.decorators.FC) -> click.decorators.FC:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def state_option(command: click.decorators.FC) -> click.decorators.FC:
    """--state FOLDER."""
    option = click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="BRAID_STATE",
        default=default_state_folder,
        help="Folder for identity and unfinished work.  [default: ~/.local/state/braid, /var/lib/braid for root]",
    )
    return option(command)
