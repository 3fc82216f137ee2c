"""`aggregator check`: is the server's folder whole?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from aggregator.commands.common import DIR, JSON, folder_of, show
from aggregator.errors import ExitCode
from braid_common.units import printable


@click.command()
@DIR
@JSON
def check(folder: Path, as_json: bool) -> None:
    """Read all of a server's folder, running or not, and say what is damaged; writes nothing.

    Status 0: all is well or a warning; 5: something is damaged.
    """
    from dataclasses import asdict

    from aggregator.checkup.checkup import examine
    from aggregator.checkup.finding import findings_text

    findings = []
    for found in examine(folder_of(folder)):
        findings.append(found)
        if not as_json:
            click.echo("\n".join(map(printable, findings_text(found).split("\n"))))
    n_damaged = sum(found.state == "damaged" for found in findings)
    if as_json:
        show({"damaged": n_damaged, "findings": [asdict(found) for found in findings]}, True, "")
    if n_damaged:
        sys.exit(ExitCode.STATE)
