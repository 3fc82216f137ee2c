"""`aggregator report`: what a run was good for and what it cost, as a page and as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from aggregator.commands.common import DIR, JSON, folder_of, show


@click.command()
@DIR
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: DIR/report]")
@click.option("--anonymous", is_flag=True, help="Boards by number, without names, ids and words of theirs.")
@JSON
def report(folder: Path, out: Path | None, anonymous: bool, as_json: bool) -> None:
    """Write what a run was good for and what it cost: a page, report.html, and the same for programs, report.json.

    Made of the run's own records, while it runs or after.
    """
    from aggregator.report.whole_run.anonymous import anonymous as without_names
    from aggregator.report.whole_run.figures import figures
    from aggregator.report.whole_run.read import read_record
    from aggregator.report.whole_run.summary import summary
    from aggregator.report.whole_run.write import write_report

    place = folder_of(folder)
    record = read_record(place)
    found = figures(without_names(record) if anonymous else record)
    page, _ = write_report(found, out or place.report)
    show(found, as_json, f"{summary(found)}\n{page}")
