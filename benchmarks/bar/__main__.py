"""The bar that a base must clear before it ships, as one table for any number of bases.

    python -m benchmarks.bar builtin_base/model --site site-of-unseen-libraries
    python -m benchmarks.bar branches/1/export/packed --parts itself      # without the federation

By itself: summary lines of four libraries that no base has read, beside two answers that need no model; greedy answers
that repeat themselves; strings copied; each programmatic task. And on agents' steps: four boards with coffee orders of
eight scenarios each, 15 rounds of 20 steps of 32 examples, 320 and 64 tokens, long sources cut at their start; the
right calls on dialogues that no board has.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bar.score import Row
from benchmarks.study.cli import work_folder
from benchmarks.study.runner import begin_worker
from benchmarks.study.tables import table
from edge_client.errors import DataError

if TYPE_CHECKING:
    from benchmarks.bar.measures import Report

PARTS = ("itself", "coffee")

REQUIRED = {"ROUGE-L of": 0.25, "copied exactly": 0.95, "coffee, right tool": 0.9, "coffee, exact call": 0.5}
"""What a base that ships reaches at least, by the first words of a row."""


def main() -> None:
    options = _options()
    begin_worker()  # one thread, set before torch is there
    reports: dict[str, Report] = {}
    with work_folder(options) as folder:
        for model in options.models:
            reports[str(model)] = _measure(model, options, folder / str(len(reports)))
    print(bar_table(reports))


def bar_table(reports: dict[str, Report]) -> str:
    """Reports of several bases as one Markdown table, with what each wrote below it."""
    names = list(reports)
    first = reports[names[0]].rows
    rows = [
        [label, _required(label), *(_cell(reports[name].rows[index]) for name in names)]
        for index, (label, _) in enumerate(first)
    ]
    parts = [table(["measure", "bar", *names], rows)]
    for name, report in reports.items():
        if report.samples:
            parts.append(f"{name}: reference, and what it wrote")
            parts.append("\n".join(f"- {reference} → {written}" for reference, written in report.samples))
    return "\n\n".join(parts)


def _measure(model: Path, options: argparse.Namespace, folder: Path) -> Report:
    from benchmarks.bar import coffee, measures
    from builtin_base.training import model_folder

    report = measures.Report([], [])
    if "itself" in options.parts:
        report = measures.measure(*model_folder.load(model), options.site, options.docstrings)
    if "coffee" not in options.parts:
        return report
    try:
        train, test = coffee.texts(options.data_folder)
    except DataError as error:
        print(f"coffee is left out: {error.message}", file=sys.stderr)
        return report
    return measures.Report(report.rows + coffee.measure(model, train, test, folder), report.samples)


def _required(label: str) -> str:
    found = [f"{100 * least:.0f}" for words, least in REQUIRED.items() if label.startswith(words)]
    return found[0] if found and not label.endswith("not cut") else ""


def _cell(row: Row) -> str:
    label, score = row
    return f"{score.mean:.3f} ± {score.half_width:.3f}" if label.startswith("nats") else score.percent()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="model folders, packed or plain")
    parser.add_argument("--site", type=Path, help="folder with the libraries that no base has read")
    parser.add_argument("--docstrings", type=int, default=100, help="asked of each library (default: 100)")
    parser.add_argument("--data-folder", type=Path, default=Path("../shared/data"), help="where the coffee orders lie")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folder", type=Path, help="for encoder outputs, some 2 GB a base; best in memory")
    return parser.parse_args()


if __name__ == "__main__":
    main()
