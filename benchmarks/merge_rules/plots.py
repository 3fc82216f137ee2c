"""The plots of benchmarks.merge_rules: loss against rounds and against bytes, a column per rank mix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.merge_rules.tables import REFERENCE, Cells
from benchmarks.simulation.setting import History, Point

COLUMN_INCHES, ROW_INCHES, LEAST_INCHES = 3.0, 2.7, 6.0
LEGEND_INCHES = 1.5
"""Of one of its columns."""

LINE_HEIGHT = 0.035
"""One line of the legend, as a part of the figure's height."""

N_COLOURS = 10
"""Colours that matplotlib goes through before it begins again."""

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small files
    "svg.hashsalt": "braid",  # and the same ones for the same numbers
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plot(partition: Cells, path: Path) -> None:
    """Write an SVG: means over seeds and boards. Every rule has the same colour in all of them."""
    rules = list(dict.fromkeys(rule for runs in partition.values() for rule in runs))
    with matplotlib.rc_context(STYLE):
        width = max(LEAST_INCHES, COLUMN_INCHES * len(partition))
        figure, rows = pyplot.subplots(2, len(partition), figsize=(width, 2 * ROW_INCHES), sharey="row", squeeze=False)
        for (mix, runs), by_round, by_bytes in zip(partition.items(), *rows, strict=True):
            for index, rule in enumerate(rules):
                if rule in runs:
                    _draw(by_round, by_bytes, rule, runs[rule], index)
            by_round.set(title=mix, xlabel="rounds")
            by_bytes.set(xlabel="MB up and down, whole fleet")
        for row in rows:
            row[0].set_ylabel("held-out loss, mean board")
        fullest = max(rows[0], key=lambda axes: len(axes.lines))
        handles, labels = fullest.get_legend_handles_labels()
        n_columns = int(width / LEGEND_INCHES)
        figure.legend(handles, labels, loc="outside lower center", ncols=n_columns, frameon=False)
        figure.tight_layout(rect=(0, LINE_HEIGHT * (1 - len(labels) // -n_columns), 1, 1))
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _draw(by_round: Axes, by_bytes: Axes, rule: str, runs: Sequence[History], index: int) -> None:
    points = [_mean(at) for at in zip(*(history.points for history in runs), strict=False)][1:]  # the base is far above
    style: Any = {
        "color": f"C{index % N_COLOURS}",
        "linestyle": "-" if index < N_COLOURS else "--",
        "linewidth": 2.0 if rule == REFERENCE else 1.0,
        "label": rule,
    }
    by_round.plot([round_ for round_, _, _ in points], [loss for _, _, loss in points], **style)
    by_bytes.plot([mb for _, mb, _ in points], [loss for _, _, loss in points], **style)


def _mean(points: Sequence[Point]) -> tuple[int, float, float]:
    """The mean over seeds, as (round, MB, loss)."""
    mb = fmean(point.up_bytes + point.down_bytes for point in points) / 1e6
    return points[0].round, mb, fmean(point.mean for point in points)
