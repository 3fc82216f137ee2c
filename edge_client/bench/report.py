"""Report on a measurement: speed, utilisation, energy per token and granularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from braid_common.base.t5_config import T5Config
from edge_client.bench.request import Measured, Request
from edge_client.bench.round_time import Link, granularity
from edge_client.host.board import Board
from edge_client.plan.flops import Lengths, StepFlops, step_flops
from edge_client.plan.round_cost import Traffic, round_traffic


@dataclass(frozen=True, slots=True)
class Terms:
    """Assumptions that the figures are reckoned with, beside what was measured.

    Attributes:
        model, board: names for people.
        machine: what else a reader must know of the board, in a line.
        epochs: over the same examples, which share the encoder's pass.
        local_steps: of a round.
        links: to reckon a round's communication on.
    """

    model: str
    board: str
    machine: str
    epochs: int
    local_steps: int
    links: Sequence[Link]


@dataclass(frozen=True, slots=True)
class OverLink:
    """A round on one link."""

    link: Link
    communication_s: float
    granularity: float


@dataclass(frozen=True, slots=True)
class Report:
    """A measurement with all that is derived from it. `n_strands` is over all weights of the scope."""

    terms: Terms
    board: Board
    request: Request
    measured: Measured
    flops: StepFlops
    n_weights: int
    n_strands: int
    traffic: Traffic

    @property
    def tokens_per_s(self) -> float:
        """Source and target tokens trained on, per second of steps."""
        return self.request.n_tokens / self.measured.step_s

    @property
    def amortised_tokens_per_s(self) -> float:
        """The same over all epochs, the encoder's pass over every example counted once."""
        epochs = self.terms.epochs
        return epochs * self.request.n_tokens / (self.measured.encode_s + epochs * self.measured.step_s)

    @property
    def gflops(self) -> float:
        """10⁹ operations per second of a step."""
        return self.flops.step / self.measured.step_s / 1e9

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B), against this machine's own measured peak."""
        return self.gflops / self.measured.peak_gflops

    @property
    def encode_mfu(self) -> float | None:
        """The same of the encoder's pass; None where that is a part of the step."""
        if not self.measured.encode_s:
            return None
        return self.flops.encode / self.measured.encode_s / 1e9 / self.measured.peak_gflops

    @property
    def step_joules(self) -> float | None:
        """Energy of one step; None where the board cannot say."""
        return self.measured.watts * self.measured.step_s if self.measured.sensor else None

    @property
    def tokens_per_joule(self) -> float | None:
        """η_e = tokens per second per watt (arXiv 2310.03150); None where the board cannot say."""
        return self.tokens_per_s / self.measured.watts if self.measured.watts > 0 else None

    @property
    def round_compute_s(self) -> float:
        """Steps of one round, one micro-batch each; loading and encoding happen once per run and are left out."""
        return self.terms.local_steps * self.measured.step_s

    def over_links(self) -> list[OverLink]:
        seconds = [link.seconds(self.traffic) for link in self.terms.links]
        return [
            OverLink(link, one_s, granularity(self.round_compute_s, one_s))
            for link, one_s in zip(self.terms.links, seconds, strict=True)
        ]


def make_report(terms: Terms, board: Board, request: Request, base: T5Config, measured: Measured) -> Report:
    """Derive the figures of a measurement on a base of these sizes."""
    run, ranks, settings = request.run, request.plan.ranks, request.settings
    lengths = Lengths(request.mode.micro_batch, settings.max_source_tokens, settings.max_target_tokens)
    by_name = {weight.name: rank for weight, rank in zip(run.weights, ranks, strict=True)}
    return Report(
        terms=terms,
        board=board,
        request=request,
        measured=measured,
        flops=step_flops(base, settings.scope, lengths, by_name, request.frozen_ranks(), trains_a=settings.trains_a),
        n_weights=len(run.weights),
        n_strands=sum(ranks),
        traffic=round_traffic(run, ranks),
    )


def facts(report: Report) -> dict[str, Any]:
    """The report for programs: plain values, keys with their units. What could not be measured is null."""
    return {
        "board": {
            "name": report.terms.board,
            "machine": report.board.machine,
            "described": report.terms.machine,
            "cpu_count": report.board.cpu_count,
            "memory_bytes": report.board.memory_bytes,
        },
        "setting": _setting(report),
        "phases": _phases(report.measured),
        "tokens_per_s": report.tokens_per_s,
        "amortised_tokens_per_s": report.amortised_tokens_per_s,
        "arithmetic": _arithmetic(report),
        "memory": {
            "peak_bytes": report.measured.peak_bytes,
            "imports_bytes": report.measured.imports_bytes,
            "base_bytes": report.measured.base_bytes,
            "device_peak_bytes": report.measured.device_peak_bytes,
        },
        "energy": _energy(report),
        "round": {
            "local_steps": report.terms.local_steps,
            "compute_s": report.round_compute_s,
            "down_bytes": round(report.traffic.down_bytes),
            "up_bytes": round(report.traffic.up_bytes),
            "links": [
                {
                    "link_mbps": one.link.mbps,
                    "latency_ms": one.link.latency_ms,
                    "communication_s": one.communication_s,
                    "granularity": one.granularity,
                }
                for one in report.over_links()
            ],
        },
    }


def _setting(report: Report) -> dict[str, Any]:
    request, mode, settings = report.request, report.request.mode, report.request.settings
    return {
        "model": report.terms.model,
        "format": mode.format,
        "compute": mode.compute,
        "device": mode.device,
        "scope": settings.scope,
        "micro_batch": mode.micro_batch,
        "source_tokens": settings.max_source_tokens,
        "target_tokens": settings.max_target_tokens,
        "rank": settings.rank,
        "n_weights": report.n_weights,
        "n_strands": report.n_strands,
        "steps": request.steps,
        "epochs": report.terms.epochs,
        "threads": report.measured.threads,
    }


def _phases(measured: Measured) -> dict[str, float]:
    """Communication depends on the link and is listed with it."""
    return {
        "load_s": measured.load_s,
        "encode_s": measured.encode_s,
        "forward_s": measured.forward_s,
        "backward_s": measured.backward_s,
        "optimiser_s": measured.optimiser_s,
        "step_s": measured.step_s,
    }


def _arithmetic(report: Report) -> dict[str, float | None]:
    flops = report.flops
    return {
        "encode_flops": flops.encode,
        "forward_flops": flops.forward,
        "head_gradient_flops": flops.head_gradient,
        "backward_flops": flops.backward,
        "step_gflops_per_s": report.gflops,
        "peak_gflops_per_s": report.measured.peak_gflops,
        "mfu": report.mfu,
        "encode_mfu": report.encode_mfu,
    }


def _energy(report: Report) -> dict[str, Any] | None:
    measured = report.measured
    if not measured.sensor:
        return None
    return {
        "sensor": measured.sensor,
        "n_samples": measured.n_samples,
        "watts": measured.watts,
        "step_joules": report.step_joules,
        "tokens_per_joule": report.tokens_per_joule,
    }
