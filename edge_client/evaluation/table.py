"""An evaluation's report as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from braid_common.units import printable
from edge_client.evaluation.metrics import METRICS, squeezed
from edge_client.evaluation.report import Contestant, Difference, Interval, Report, Shown

TITLES = {
    "loss": "loss, nats per target token (lower is better)",
    "rouge1": "ROUGE-1, F1 in %",
    "rouge2": "ROUGE-2, F1 in %",
    "rougeL": "ROUGE-L, F1 in %",
    "exact_match": "exact match, % of the texts",
    "tool_name": "right tool, % of the calls (n = {n_calls})",
    "tool_arguments": "right tool and arguments, % of the calls (n = {n_calls})",
}
"""What each metric is, with its unit."""

SHOWN_CHARS = 300
"""Of each text in an example; the rest is in --json."""


def table_lines(report: Report, metrics: Sequence[str] = METRICS) -> list[str]:
    """The metrics, a block each, a line per contestant: value, interval, difference to the base, interval, verdict.

    Metrics that no example counts for are left out.
    """
    width = max(len(printable(name)) for name in report.contestants)
    lines = [_header(report, width)]
    for metric in metrics:
        if next(iter(report.contestants.values())).value(metric) is None:
            continue
        lines.append(TITLES[metric].format(n_calls=report.n_calls))
        lines += [_row(printable(name).ljust(width), one, metric) for name, one in report.contestants.items()]
    return lines


def example_lines(report: Report, names: Sequence[str] = ()) -> Iterator[str]:
    """The examples that were asked for: source, right answers, and what each of the contestants named wrote, or all."""
    names = names or list(report.contestants)
    width = max(len(title) for title in ("source", "right", *map(printable, names)))
    for shown in report.examples:
        rows = [("source", shown.source), *(("right", target) for target in shown.targets)]
        rows += [(printable(name), shown.written[name]) for name in names]
        yield ""
        yield f"{printable(shown.id)}{_gain(shown, names)}"
        for title, text in rows:
            yield f"  {title:<{width}}  {_one_line(text, SHOWN_CHARS)}"


def _header(report: Report, width: int) -> str:
    columns = f"  {'':<{width}}  {'':>7}  {f'{100 * report.confidence:g} % interval':<17}"
    return columns + ("  less base  interval" if len(report.contestants) > 1 else "")


def _row(name: str, one: Contestant, metric: str) -> str:
    value = one.value(metric)
    assert value is not None
    line = f"  {name}  {_number(value, metric):>7}  {_between(one.intervals[metric], metric):<17}"
    if one.difference is not None:
        difference = one.difference[metric]
        ends = _between(difference.interval, metric, signed=True)
        line += f"  {_number(difference.value, metric, signed=True):>9}  {ends:<19}  {verdict(difference, metric)}"
    return line.rstrip()


def verdict(difference: Difference, metric: str) -> str:
    """ "better" or "worse" where the interval of a difference to the base has 0 outside, else ""."""
    low, high = difference.interval or (0.0, 0.0)
    if low <= 0 <= high:
        return ""
    return "better" if (high < 0) == (metric == "loss") else "worse"


def _between(ends: Interval | None, metric: str, *, signed: bool = False) -> str:
    return "" if ends is None else " to ".join(_number(end, metric, signed=signed) for end in ends)


def _number(value: float, metric: str, *, signed: bool = False) -> str:
    """Nats with three digits after the point; everything else as per cent with one."""
    sign = "+" if signed else ""
    return f"{value:{sign}.3f}" if metric == "loss" else f"{100 * value:{sign}.1f}"


def _gain(shown: Shown, names: Sequence[str]) -> str:
    """The gain in ROUGE-L that the example was chosen by."""
    first, last = shown.rougeL[names[0]], shown.rougeL[names[-1]]
    if len(names) == 1:
        return f" (ROUGE-L {100 * first:.1f})"
    return f" (ROUGE-L {100 * first:.1f} of {printable(names[0])}, {100 * last:.1f} of {printable(names[-1])})"


def _one_line(text: str, max_chars: int) -> str:
    line = printable(squeezed(text))
    return line if len(line) <= max_chars else f"{line[:max_chars]}…"
