"""Write docs/guide/settings.md, every setting of both programs: `python -m scripts.settings_docs [--check]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from aggregator.settings.keys import KEYS
from edge_client.agent.settings import PERSONAL, REWARD
from edge_client.cli.join import join
from scripts.commands_docs import option_rows
from scripts.generated_page import DOCS, bring_up_to_date, table

PAGE = DOCS / "guide" / "settings.md"

_HEAD = """# Settings

<!-- Written by `python -m scripts.settings_docs` from the code; do not edit. -->

## The server: run.toml

`aggregator init DIR` writes `DIR/run.toml` with every key, its default and its meaning.
A key that is left out has its default; one that nobody knows is an error that names it.
Settings of a run that boards have joined cannot change, but for those that say so.
"""

_BOARD = """## The board: edge-client.toml

`edge-client join --config FILE` reads these keys; the flags of the same names and the variables `BRAID_…` are stronger.
"""


def settings_page() -> str:
    """The page: a table for each section of run.toml, and one of edge-client.toml."""
    parts = [_HEAD]
    for section in dict.fromkeys(key.section for key in KEYS):
        rows = [
            (f"`{key.path}`", f"`{_value(key.default)}`", key.allowed, key.help)
            for key in KEYS
            if key.section == section
        ]
        parts.append(f"### [{section}]\n\n{table(('key', 'default', 'allowed', 'meaning'), rows)}\n")
    keys = [(f"`{name}`", meaning) for name, meaning in option_rows(join, keys_only=True)]
    own = (
        "the local strands that this board asks for itself, in place of the run's: a table with the keys of [personal]"
    )
    keys.append((f"`{PERSONAL}`", own))
    rewards = "what the owner wants of answers, where the run learns from rewards: a table each, docs/guide/rewards.md"
    keys.append((f"`{REWARD}`", rewards))
    parts.append(f"{_BOARD}\n{table(('key', 'meaning'), keys)}\n")
    return "\n".join(parts)


def _value(default: object) -> str:
    """A default as it stands in run.toml."""
    return json.dumps(list(default) if isinstance(default, tuple) else default)


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it."""
    return bring_up_to_date(PAGE, settings_page(), "python -m scripts.settings_docs", arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
