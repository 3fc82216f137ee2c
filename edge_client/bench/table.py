"""A report as aligned lines for people: every figure with its unit and what it means."""

from __future__ import annotations

from collections.abc import Sequence

from edge_client.bench.report import Report
from edge_client.bench.round_time import REQUESTS_PER_ROUND

_GAP = "  "


def lines(report: Report) -> list[str]:
    """The whole table."""
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
    request, measured = report.request, report.measured
    where = "GPU" if request.device == "cuda" else _count(measured.threads, "thread")
    return [
        f"{report.terms.model} on {report.terms.board}: {request.format} base, {request.compute} arithmetic, {where}"
        + (", blocks computed twice (checkpointing)" if request.checkpointing else ""),
        f"scope {request.scope}: {_count(request.micro_batch, 'example')} of {request.source_tokens} + "
        f"{request.target_tokens} tokens a step, {report.n_strands} strands on {report.n_weights} weights; "
        f"medians of {_count(request.steps, 'step')}",
    ]


def _phases(report: Report) -> list[tuple[str, str, str, str]]:
    measured, decoder_only = report.measured, report.request.scope == "decoder"
    forward = "decoder and loss" if decoder_only else "encoder, decoder and loss"

    def share(seconds: float) -> str:
        return f"{100 * seconds / measured.step_s:.1f} %"

    return [
        ("load", duration(measured.load_s), "", _loaded(report)),
        (
            "encode",
            duration(measured.encode_s) if decoder_only else "0",
            "",
            "once for these examples: the frozen encoder" if decoder_only else "in this scope a part of forward",
        ),
        ("forward", duration(measured.forward_s), share(measured.forward_s), f"{forward}, with the head's gradient"),
        ("backward", duration(measured.backward_s), share(measured.backward_s), "gradients of the strands"),
        ("optimiser", duration(measured.optimiser_s), share(measured.optimiser_s), "Adam, and freeing memory"),
        ("step", duration(measured.step_s), "", "forward, backward and optimiser together"),
    ]


def _loaded(report: Report) -> str:
    return "once: the base from disk, " + ("its decoder alone" if report.request.scope == "decoder" else "all of it")


def _figures(report: Report) -> list[tuple[str, str, str]]:
    measured = report.measured
    rows = [
        ("speed", f"{report.tokens_per_s:,.0f} tokens/s", "source and target tokens, encoder's output known"),
        ("", f"{report.amortised_tokens_per_s:,.0f} tokens/s", _amortised(report)),
        ("MFU", f"{100 * report.mfu:.1f} %", _arithmetic(report)),
        (
            "peak memory",
            size(measured.peak_bytes),
            f"of this {size(measured.imports_bytes)} Python and torch, {size(measured.base_bytes)} frozen base",
        ),
    ]
    if report.request.scope == "all":
        rows[0] = ("speed", f"{report.tokens_per_s:,.0f} tokens/s", "source and target tokens")
        del rows[1]
    if report.encode_mfu is not None:
        rows.insert(3, ("", f"{100 * report.encode_mfu:.1f} %", "of the encoder's pass"))
    if measured.device_peak_bytes:
        rows.append(("GPU memory", size(measured.device_peak_bytes), "the most that torch held there"))
    return [*rows, *_energy(report)]


def _amortised(report: Report) -> str:
    return f"the same over {_count(report.terms.epochs, 'epoch')}, the encoder's pass counted once"


def _arithmetic(report: Report) -> str:
    return (
        f"{report.gflops:,.1f} of {report.measured.peak_gflops:,.1f} GFLOP/s, which plain {report.request.compute} "
        "products reach here"
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
    latencies = " or ".join(dict.fromkeys(f"{one.link.latency_ms:g} ms" for one in links))
    rows = [
        (f"{one.link.mbps:g} Mbit/s", duration(one.communication_s), granularity_text(one.granularity)) for one in links
    ]
    return [
        f"A round of {_count(report.terms.local_steps, 'step')} computes for {duration(report.round_compute_s)} and "
        f"sends {size(report.traffic.up_bytes)} up, {size(report.traffic.down_bytes)} down",
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


def duration(seconds: float) -> str:
    """Three figures: "1.23 s", "96.4 ms", "12 µs"."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= factor or unit == "µs":
            value = seconds / factor
            return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    raise AssertionError("the last unit takes everything")


def size(size_bytes: float) -> str:
    """Mebibytes, with decimals where there are few."""
    mebibytes = size_bytes / (1 << 20)
    return f"{mebibytes:,.{0 if mebibytes >= 10 else 2}f} MiB"


def granularity_text(value: float) -> str:
    """G with three figures."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
