"""A report as a picture: where a round's seconds go on each link, and granularity against link speed.

matplotlib is loaded here alone, when a picture is asked for: it is no dependency of a board.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braid_common.units import show_seconds
from edge_client.bench.report import Report
from edge_client.bench.round_time import Link, granularity
from edge_client.bench.table import granularity_text
from edge_client.errors import ConfigError, DiskError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")

COLOURS = {  # Okabe and Ito's palette, which people with colour blindness tell apart
    "encode": "#999999",
    "forward": "#0072B2",
    "backward": "#56B4E9",
    "optimiser": "#009E73",
    "communication": "#E69F00",
}

_BEHIND_TEXT = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
_DPI = 150
_CURVE_POINTS = 100


def check_plot(path: Path) -> None:
    """Raise ConfigError where `draw` could not write such a file: before minutes of measuring, not after."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--plot {path} is neither .png nor .svg", "name a file such as bench.png")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {folder}", "make it, or name another file")
    if find_spec("matplotlib") is None:
        raise _missing()


def draw(report: Report, path: Path) -> None:
    """Write the picture; the suffix says in which format. Raises DiskError where it cannot be written."""
    figure = _figure_class()(figsize=(11.0, 4.8), layout="constrained")
    bars, curve = figure.subplots(1, 2)
    mode, settings = report.request.mode, report.request.settings
    figure.suptitle(
        f"{report.terms.model}, {mode.format} base, scope {settings.scope}, {mode.micro_batch} × "
        f"{settings.max_source_tokens}/{settings.max_target_tokens} tokens: "
        f"{report.tokens_per_s:,.0f} tokens/s, MFU {100 * report.mfu:.0f} %"
    )
    _draw_phases(bars, report)
    _draw_granularity(curve, report)
    try:
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise DiskError(f"{path} cannot be written ({error.strerror})", "name another file with --plot") from error


def _draw_phases(axes: Axes, report: Report) -> None:
    """One bar per link: a round's phases on top of each other, with an epoch's share of the encoder's pass."""
    links = report.over_links()
    labels = [f"{over.link.mbps:g}" for over in links]
    steps = report.terms.local_steps
    measured = report.measured
    share = steps / report.terms.epochs
    stacks = {
        "encode": [measured.encode_s * share] * len(links),
        "forward": [measured.forward_s * steps] * len(links),
        "backward": [measured.backward_s * steps] * len(links),
        "optimiser": [measured.optimiser_s * steps] * len(links),
        "communication": [one.communication_s for one in links],
    }
    floor = [0.0] * len(links)
    for phase, heights in stacks.items():
        if any(heights):
            name = f"{phase}, shared by {report.terms.epochs} epochs" if phase == "encode" else phase
            axes.bar(labels, heights, 0.6, bottom=floor, label=name, color=COLOURS[phase])
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
    for place, total in enumerate(floor):
        axes.annotate(show_seconds(total), (place, total), (0, 3), textcoords="offset points", ha="center")
    axes.set(
        title=f"A round of {steps} steps, once the base is loaded ({show_seconds(measured.load_s)})",
        xlabel="link speed (Mbit/s)",
        ylabel="time (s)",
        ylim=(0, 1.12 * max(floor)),
    )
    axes.legend(reverse=True)


def _draw_granularity(axes: Axes, report: Report) -> None:
    links = report.over_links()
    speeds = [over.link.mbps for over in links]
    low, high = min(speeds) / 3, max(speeds) * 3
    curve = [low * (high / low) ** (i / (_CURVE_POINTS - 1)) for i in range(_CURVE_POINTS)]
    latency_ms = links[0].link.latency_ms
    values = [granularity(report.round_compute_s, Link(speed, latency_ms).seconds(report.traffic)) for speed in curve]
    axes.plot(curve, values, color=COLOURS["forward"])
    axes.plot(speeds, [over.granularity for over in links], "o", color=COLOURS["forward"])
    for over in links:
        axes.annotate(
            granularity_text(over.granularity),
            (over.link.mbps, over.granularity),
            (6, -13),
            textcoords="offset points",
            bbox=_BEHIND_TEXT,
        )
    axes.axhline(1.0, color=COLOURS["communication"], linestyle="--", label="G = 1: as long to send as to compute")
    axes.set(
        title=f"Granularity, {latency_ms:g} ms there and back",
        xlabel="link speed (Mbit/s)",
        ylabel="G = compute time / communication time",
        xscale="log",
        yscale="log",
    )
    axes.grid(which="major", alpha=0.3)
    axes.legend(loc="lower right")
    axes.xaxis.set_major_formatter(_plain)
    axes.yaxis.set_major_formatter(_plain)


def _plain(value: float, _: float) -> str:
    """1000 rather than 10³: the ticks are speeds that people know."""
    return f"{value:g}"


def _figure_class() -> Any:
    """matplotlib's Figure, used without pyplot: no window, no display, no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise _missing() from error
    return Figure


def _missing() -> ConfigError:
    return ConfigError("--plot needs matplotlib, which is not installed", "pip install 'braid-fl[plot]'")
