"""The `aggregator` command. Imports click only: each command loads what it needs, so `--help` is quick."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from aggregator.commands.check import check
from aggregator.commands.common import DIR, JSON, folder_of, show
from aggregator.commands.members import device, token
from aggregator.commands.report import report
from aggregator.errors import ConfigError, ExitCode, NothingToExportError, ServerError, StateError
from braid_common.terminal import give_up, run_on_any_terminal, typed

TOKEN = click.option("--token", default="", envvar="BRAID_OPERATOR_TOKEN", help="The operator's token, for a URL.")
PIN = click.option("--fingerprint", default="", help="SHA-256 of the server's own certificate, for a URL.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="braid-fl", prog_name="aggregator")
def cli(debug: bool) -> None:
    """The server of a Braid run: boards train, it merges."""


@cli.command()
@DIR
@click.option(
    "--model",
    default="builtin",
    show_default=True,
    help="Base: builtin, a folder, or a hub id, ORG/NAME or ORG/NAME@REVISION.",
)
@click.option("--rounds", type=int, help="Rounds of training.")
@click.option("--min-devices", type=int, help="Boards that must have joined before the first round.")
@click.option("--name", help="What people call the run.")
@click.option("--scope", type=click.Choice(["decoder", "all"]), help="Which half of the model may be trained.")
@click.option("--set", "pairs", multiple=True, metavar="SECTION.KEY=VALUE", help="Any other key of run.toml.")
@click.option("--force", is_flag=True, help="Replace a run.toml that is there, if no run was started on it.")
def init(folder: Path, model: str, pairs: tuple[str, ...], force: bool, **given: Any) -> None:
    """Make a server's folder: a commented run.toml and the secrets beside it."""
    from aggregator.run.setup import create

    places = {"rounds": "run.rounds", "min_devices": "rounds.min_devices", "name": "run.name", "scope": "train.scope"}
    settings = {places[option]: _typed(value) for option, value in given.items() if value is not None}
    config = create(folder, model, {**settings, **_settings(pairs)}, force)
    click.echo(
        f"{folder / 'run.toml'}: {config.rounds.total} rounds, at least {config.rounds.min_devices} boards; "
        "edit it as you like"
    )
    click.echo(f"next: aggregator serve {folder}")


@cli.command()
@DIR
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8470, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--tls", metavar="MODE", help="self-signed, off or CERT,KEY. Default: off on loopback, else self-signed.")
@click.option(
    "--url",
    default="",
    help="Address that boards use, where it is another: a proxy's, such as https://a.example/braid.",
)
def serve(folder: Path, host: str, port: int, tls: str | None, url: str) -> None:
    """Run the server. Prints the command that joins a board; SIGTERM ends it in an orderly way."""
    # Before numpy is loaded. Merging factors small matrices, where OpenBLAS's threads spin while they wait for each
    # other: on a busy machine of two cores, the merge of two small updates took 8 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from aggregator.http.server import log_to
    from aggregator.http.server import serve as serve_folder
    from braid_common.heap import use_one_arena

    use_one_arena()
    log_to(_say)
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url} is no address.", "Write https://HOST[:PORT][/PREFIX].")
    serve_folder(folder_of(folder), host, port, tls_choice=tls, public_url=url, say=_say)


cli.add_command(check)
cli.add_command(token)
cli.add_command(device)
cli.add_command(report)


@cli.command()
@click.argument("target", metavar="URL|DIR")
@TOKEN
@PIN
@JSON
def status(target: str, token: str, fingerprint: str, as_json: bool) -> None:
    """Show a running server's run and boards."""
    from aggregator.report.tables import status_text

    facts = _facts(target, token, fingerprint)
    show(facts, as_json, status_text(facts))


@cli.command()
@click.argument("target", metavar="URL|DIR")
@TOKEN
@PIN
@JSON
def rounds(target: str, token: str, fingerprint: str, as_json: bool) -> None:
    """Show a running server's rounds, one a line."""
    from aggregator.report.tables import rounds_text

    facts = _facts(target, token, fingerprint)
    show({key: facts[key] for key in ("rounds", "evaluations")}, as_json, rounds_text(facts))


@cli.command()
@DIR
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--rank", type=click.IntRange(min=1), help="Cut every weight's adapter to this rank.")
@click.option("--version", type=click.IntRange(min=1), help="An older version, if it is still kept.")
@click.option("--force", is_flag=True, help="Move a folder that is in the way aside.")
@JSON
def export(folder: Path, out: Path, rank: int | None, version: int | None, force: bool, as_json: bool) -> None:
    """Write the adapter as a PEFT folder, which `PeftModel.from_pretrained` loads onto the base."""
    from aggregator.export import Origin, export_peft
    from aggregator.merge.state import decode_state
    from aggregator.run.setup import read_version
    from wire.errors import WireError

    stored = read_version(folder_of(folder), version)
    number, model = stored.version, stored.config.model
    origin = Origin(model.id, model.revision, stored.config.train.text_form, stored.run_id)
    try:
        state = decode_state(stored.data)
    except WireError as error:
        raise StateError(f"Version {number} is damaged: {error}", "Export another with --version.") from error
    try:
        export_peft(state, out, origin, rank=rank, force=force)
    except OSError as error:
        raise NothingToExportError(f"{out} cannot be written: {error}", "Choose another --out.") from error
    facts = {"folder": str(out), "version": number, "base": model.id, "revision": model.revision}
    show(facts, as_json, f"version {number} is in {out}: PeftModel.from_pretrained(base, {str(out)!r})")


def main() -> None:
    """The console script: one line for an error and one for what to do, and a documented exit code."""
    sys.exit(run_on_any_terminal(_run))


def _run() -> int:
    try:
        cli(standalone_mode=False)
    except ServerError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.exceptions.Exit as error:
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - one of the two top loops: a bug is one line, and a traceback with --debug
        what = f"{type(error).__name__}: {error}"
        return _fail(what, "This is a bug; please report it with --debug.", ExitCode.INTERNAL)
    return ExitCode.OK


def _fail(message: str, hint: str, code: ExitCode) -> int:
    if "--debug" in sys.argv:
        traceback.print_exc()
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"  → {hint}", err=True)
    return code


def _say(line: str) -> None:
    """A line of the server's log, at once even into a pipe. A log that nobody reads, or that is full, ends no run."""
    try:
        click.echo(line)
        sys.stdout.flush()
    except BrokenPipeError:
        give_up(sys.stdout)
    except OSError:  # a full disk
        return


def _facts(target: str, token: str, fingerprint: str) -> dict[str, Any]:
    from aggregator.remote import address_of, fetch_status, plain_warning

    address = address_of(target, token, fingerprint)
    if warning := plain_warning(address):
        click.echo(f"WARNING: {warning}", err=True)
    return fetch_status(address)


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`--set` values: read as JSON where they are (numbers, lists), else as text."""
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--set {pair}: write SECTION.KEY=VALUE")
        try:
            settings[key] = json.loads(text)
        except ValueError:
            settings[key] = typed(text)
    return settings


def _typed(value: Any) -> Any:
    return typed(value) if isinstance(value, str) else value


if __name__ == "__main__":
    main()
