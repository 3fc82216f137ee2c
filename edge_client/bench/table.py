"""A report as aligned lines for people: every figure with its unit and what it means."""

from __future__ import annotations

from collections.abc import Sequence

from braid_common.units import show_seconds, show_size
from edge_client.bench.report import Report
from edge_client.bench.round_time import REQUESTS_PER_ROUND

_GAP = "  "


def lines(report: Report) -> list[str]:
    """Lines of the whole table."""
    return [
        *_title(report),
        "",
        *_aligned([("phase", "seconds", "share of a step", ""), *_phases(report)]),
        "",
        *_aligned(_figures(report)),
        "",
        *_round(report),
    ]


def _title(report: Report) -> list[str]:
    measured, mode, settings = report.measured, report.request.mode, report.request.settings
    where = "GPU" if mode.device == "cuda" else _count(measured.threads, "thread")
    return [
        f"{report.terms.model} on {report.terms.board}: {mode.format} base, {mode.compute} arithmetic, {where}"
        + (", blocks computed twice (checkpointing)" if mode.checkpointing else ""),
        f"scope {settings.scope}: {_count(mode.micro_batch, 'example')} of {settings.max_source_tokens} + "
        f"{settings.max_target_tokens} tokens a step, {report.n_strands} strands on {report.n_weights} weights; "
        f"medians of {_count(report.request.steps, 'step')}",
        report.terms.machine,
    ]


def _phases(report: Report) -> list[tuple[str, str, str, str]]:
    measured, decoder_only = report.measured, report.request.settings.scope == "decoder"
    forward = "decoder and loss" if decoder_only else "encoder, decoder and loss"

    def of_step(phase: str, seconds: float, words: str) -> tuple[str, str, str, str]:
        return phase, show_seconds(seconds), f"{100 * seconds / measured.step_s:.1f} %", words

    return [
        ("load", show_seconds(measured.load_s), "", _loaded(report)),
        (
            "encode",
            show_seconds(measured.encode_s) if decoder_only else "0",
            "",
            "once for these examples: the frozen encoder" if decoder_only else "in this scope a part of forward",
        ),
        of_step("forward", measured.forward_s, f"{forward}, with the head's gradient"),
        of_step("backward", measured.backward_s, "gradients of the strands"),
        of_step("optimiser", measured.optimiser_s, "Adam, and freeing memory"),
        ("step", show_seconds(measured.step_s), "", "forward, backward and optimiser together"),
    ]


def _loaded(report: Report) -> str:
    return "once: the base from disk, " + (
        "its decoder alone" if report.request.settings.scope == "decoder" else "all of it"
    )


def _figures(report: Report) -> list[tuple[str, str, str]]:
    measured = report.measured
    rows = [
        ("speed", f"{report.tokens_per_s:,.0f} tokens/s", "source and target tokens, encoder's output known"),
        ("", f"{report.amortised_tokens_per_s:,.0f} tokens/s", _amortised(report)),
        ("MFU", f"{100 * report.mfu:.1f} %", _arithmetic(report)),
        (
            "peak memory",
            show_size(measured.peak_bytes),
            f"of this {show_size(measured.imports_bytes)} Python and torch, "
            f"{show_size(measured.base_bytes)} frozen base",
        ),
    ]
    if report.request.settings.scope == "all":
        rows[0] = ("speed", f"{report.tokens_per_s:,.0f} tokens/s", "source and target tokens")
        del rows[1]
    if report.encode_mfu is not None:
        rows.insert(3, ("", f"{100 * report.encode_mfu:.1f} %", "of the encoder's pass"))
    if measured.device_peak_bytes:
        rows.append(("GPU memory", show_size(measured.device_peak_bytes), "the most that torch held there"))
    return [*rows, *_energy(report)]


def _amortised(report: Report) -> str:
    return f"the same over {_count(report.terms.epochs, 'epoch')}, the encoder's pass counted once"


def _arithmetic(report: Report) -> str:
    return (
        f"{report.gflops:,.1f} of {report.measured.peak_gflops:,.1f} GFLOP/s, which plain "
        f"{report.request.mode.compute} products reach here"
    )


def _energy(report: Report) -> list[tuple[str, str, str]]:
    if report.tokens_per_joule is None or report.step_joules is None:
        return [("energy", "–", report.measured.no_sensor)]
    return [
        (
            "energy",
            f"{report.step_joules:,.2f} J",
            f"a step, at {report.measured.watts:.1f} W ({report.measured.sensor})",
        ),
        ("", f"{report.tokens_per_joule:,.1f} tokens/J", "tokens per joule, η_e"),
    ]


def _round(report: Report) -> list[str]:
    links = report.over_links()
    latencies = " or ".join(dict.fromkeys(f"{over.link.latency_ms:g} ms" for over in links))
    rows = [
        (f"{one.link.mbps:g} Mbit/s", show_seconds(one.communication_s), granularity_text(one.granularity))
        for one in links
    ]
    return [
        f"A round of {_count(report.terms.local_steps, 'step')} computes for {show_seconds(report.round_compute_s)}, "
        f"sends at most {show_size(report.traffic.up_bytes)} up, "
        f"{show_size(report.traffic.down_bytes)} down",
        f"({REQUESTS_PER_ROUND} requests of {latencies} there and back). G = compute time / communication time:",
        "",
        *_aligned([("link", "communication", "G"), *rows]),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, figures to the right, names and explanations to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    is_left = [column == 0 or (column == last and last > 2) or _is_words(rows, column) for column in range(len(widths))]
    return [
        _GAP.join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_left, strict=True)
        ).rstrip()
        for row in rows
    ]


def _is_words(rows: Sequence[Sequence[str]], column: int) -> bool:
    return any(len(row[column].split()) > 3 for row in rows[1:])


def granularity_text(value: float) -> str:
    """G with three figures."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
