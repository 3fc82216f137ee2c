"""`edge-client plan`: shows what this board would train, and why, without training anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from edge_client.agent.allowances import default_cache_bytes, parse_cache, parse_limits, parse_memory
from edge_client.agent.personal.own_settings import unshared_ranks, with_own
from edge_client.agent.settings import PERSONAL, REWARD
from edge_client.base.config import base_config
from edge_client.base.locate import BUILTIN
from edge_client.cli.joined_run import base_name, joined_run
from edge_client.cli.options import (
    cache_option,
    config_option,
    debug_option,
    round_time_option,
    round_traffic_option,
    state_option,
)
from edge_client.host.board import probe_board
from edge_client.host.matmul_speed import with_matmul_speed
from edge_client.jobs.reward_spec import Reward
from edge_client.plan.cache_budget import CacheBudget
from edge_client.plan.candidates import Candidate
from edge_client.plan.choose import choose, runners_up
from edge_client.plan.explain import explain, facts
from edge_client.plan.situation import Constraints, Situation
from edge_client.plan.strand_selection import ranking as ranking_of
from edge_client.state.folder import StateFolder
from edge_client.state.matmul_speed_file import look_up_matmul_speed
from edge_client.state.pruned_ranks import read_pruned
from wire.default_run import DEFAULT_SETTINGS, run_info
from wire.limits import MAX_RANK
from wire.manifest import t5_weights
from wire.run import Personal, RunInfo

SHOWN_WEIGHTS = 10
"""Weights of the ranking that people are shown; --json has all."""


@dataclass(frozen=True, slots=True)
class PlanFlags:
    """The flags of `edge-client plan` that say what to plan for. "" and None mean: not given."""

    model: str
    memory: str
    rank: int | None
    server: str
    cache: str
    round_time: str
    round_traffic: str
    state: Path
    personal: Personal | None
    rewards: Sequence[Reward]


@click.command()
@click.option(
    "--model",
    envvar="BRAID_MODEL",
    default="",
    help="Base: a folder (config.json is enough), builtin, flan-t5-small|base|large|xl, or a hub id.  [default: the "
    "run's, or builtin]",
)
@click.option(
    "--memory", envvar="BRAID_MEMORY", default="", help="Memory to use, such as 800MiB.  [default: what is free]"
)
@click.option(
    "--rank", type=click.IntRange(1, MAX_RANK), help="Strands per weight, at most.  [default: the run's, or 16]"
)
@click.option("--server", default="", help="Plan for the run of this server, which the board must have joined.")
@cache_option
@round_time_option
@round_traffic_option
@state_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@debug_option
@click.pass_context
def plan(context: click.Context, /, as_json: bool, debug: bool, **values: Any) -> None:
    """Show the plan for this board, what it costs, and why the alternatives lost.

    Without --server the run is assumed to have the settings that `aggregator init` writes, and every strand to be worth
    the same; a server that --config names is not looked at. How fast this board multiplies is measured, unless `join`
    has done it.
    """
    del debug
    if context.get_parameter_source("server") is ParameterSource.DEFAULT_MAP:
        values["server"] = ""  # a file names a server to join, which this board may not have done yet
    flags = PlanFlags(**values, personal=context.meta.get(PERSONAL), rewards=context.meta.get(REWARD, ()))
    board = probe_board(parse_memory(flags.memory))
    limits = parse_limits(flags.round_time, flags.round_traffic)
    state_folder = StateFolder(flags.state.expanduser())
    budget = _cache_budget(flags.cache, state_folder)
    run = joined_run(flags.server, state_folder, "plan without --server") if flags.server else None
    name = flags.model or (base_name(run, state_folder) if run else BUILTIN)
    base = base_config(name)
    run = run or run_info(t5_weights(base, DEFAULT_SETTINGS.scope), model=name)
    has_lengths = run.settings.has_lengths
    run = with_own(msgspec.structs.replace(run, settings=run.settings.with_longest), flags.personal)
    if flags.rank is not None:
        run = _with_rank(run, flags.rank)
    arithmetic = look_up_matmul_speed(state_folder.path)
    board = with_matmul_speed(board, arithmetic)
    if arithmetic is not None:
        limits = replace(limits, gflops=arithmetic.gflops)
    pruned = {**(_pruned(run, state_folder) if flags.server else {}), **unshared_ranks(run)}
    situation = Situation(board, run, base, budget, limits, rewards=flags.rewards)
    choice = choose(situation, Constraints(pruned=pruned))
    others = runners_up(situation, choice)
    if as_json:
        click.echo(
            json.dumps(
                facts(choice, board, others) | {"ranking": _ranking_facts(run, choice)} | _text_facts(run, has_lengths)
            )
        )
    else:
        legend = _legend(run, bool(flags.server), has_lengths)
        click.echo("\n".join([*explain(choice, board, others), *_ranking(run, choice), *legend]))


def _ranking(run: RunInfo, choice: Candidate) -> list[str]:
    """The most important weights; nothing before the run has a ranking."""
    ranked = ranking_of(run)
    if not ranked:
        return []
    ranks = {weight.name: rank for weight, rank in zip(run.weights, choice.plan.ranks, strict=True)}
    lines = [
        f"  {weight.name:<56}{100 * weight.share:5.1f} %  {ranks[weight.name]:>3} of {weight.n_strands} strands here"
        for weight in ranked[:SHOWN_WEIGHTS]
    ]
    return [f"most important of {len(ranked)} weights, by their share of the run's importance:", *lines]


def _ranking_facts(run: RunInfo, choice: Candidate) -> list[dict[str, Any]]:
    """All weights, the most important first; empty before the run has a ranking."""
    ranks = {weight.name: rank for weight, rank in zip(run.weights, choice.plan.ranks, strict=True)}
    return [
        {"weight": weight.name, "share": weight.share, "strands": weight.n_strands, "planned": ranks[weight.name]}
        for weight in ranking_of(run)
    ]


def _text_facts(run: RunInfo, has_lengths: bool) -> dict[str, Any]:
    """The lengths that the plan reckons with, and whether the run has them or may still choose shorter ones."""
    settings = run.settings
    return {
        "max_source_tokens": settings.max_source_tokens,
        "max_target_tokens": settings.max_target_tokens,
        "lengths_chosen": has_lengths,
    }


def _legend(run: RunInfo, is_servers: bool, has_lengths: bool) -> list[str]:
    """Lines that explain the plan to a person."""
    settings = run.settings
    source = f"run {run.run_id} has:" if is_servers else "`aggregator init` writes, with"
    lines = [
        "A strand is one rank of one weight's adapter: the more of them, the more this board can teach.",
        f"Reckoned with the settings that {source} texts of up to {settings.max_source_tokens} tokens, "
        f"answers of up to {settings.max_target_tokens}, at most {run.max_rank} strands per weight.",
    ]
    if not has_lengths:
        lines.append("The run has yet to choose how long texts may be: these are the longest that it may choose.")
    elif not is_servers:
        lines.append("How long texts may be, a run chooses by those of its first boards, unless run.toml says it.")
    return lines


def _cache_budget(cache: str, folder: StateFolder) -> CacheBudget:
    """The disk that `join` would take, for a board with plenty of data."""
    limit_bytes = parse_cache(cache)
    return CacheBudget(default_cache_bytes(folder.path, folder.cache) if limit_bytes is None else limit_bytes)


def _with_rank(run: RunInfo, rank: int) -> RunInfo:
    """The run with another most of strands per weight; known values are kept as far as they go."""
    known = tuple(values[:rank] for values in run.values) if rank <= run.max_rank else ()
    return msgspec.structs.replace(run, max_rank=rank, values=known)


def _pruned(run: RunInfo, folder: StateFolder) -> dict[str, int]:
    """Ranks that this board has pruned weights to; none where they cannot be read, as `join` has it."""
    identity = folder.read_identity()
    return (identity and read_pruned(folder.pruned, run, identity.device, run.round)) or {}
