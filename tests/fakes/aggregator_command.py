"""The `aggregator` command in the test's own process: what it says, and how it ends."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from aggregator import cli as program


def call(*arguments: object) -> tuple[int, str]:
    """Run the command in this process, as the console script does; exit code, and stdout and stderr together."""
    runner = CliRunner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["aggregator", *map(str, arguments)])
        with runner.isolation() as (out, err, _):
            try:
                program.main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            text = (out.getvalue() + (err.getvalue() if err else b"")).decode()
    return code, text
