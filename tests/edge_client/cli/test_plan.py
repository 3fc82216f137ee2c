"""`edge-client plan`: what it takes, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_client.base.config import FLAN_T5
from edge_client.cli import plan as plan_command
from edge_client.cli.main import run as run_command
from edge_client.errors import ExitCode
from edge_client.host.matmul_speed import MatmulSpeed
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import Plan, TrainingMode, TrainJob
from edge_client.plan.strand_selection import basis_rows
from edge_client.state.folder import Identity, StateFolder
from edge_client.state.pruned_ranks import keep_pruned
from tests.fakes.runs import SMALL_T5, run_of
from wire.messages import RoundSpec
from wire.run import RunInfo

ARITHMETIC = MatmulSpeed(
    key="k",
    device="cpu",
    device_name="a processor",
    device_memory_bytes=0,
    bf16_gflops=400.0,
    fp32_gflops=80.0,
    threads=0,
    torch="2.13",
)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board whose arithmetic is known: measuring would load torch."""
    monkeypatch.setattr(plan_command, "look_up_matmul_speed", lambda folder: ARITHMETIC)


@pytest.fixture
def config_only(tmp_path: Path) -> Path:
    """A folder with config.json and nothing else: no weights, no tokenizer."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL_T5))
    return folder


def plan(capsys: Any, tmp_path: Path, *arguments: object) -> tuple[int, str]:
    """Exit code, and what was printed."""
    code = run_command(["plan", "--state", str(tmp_path / "state"), *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_a_config_is_enough(capsys: Any, tmp_path: Path, config_only: Path) -> None:
    """A plan needs shapes, not weights."""
    code, text = plan(capsys, tmp_path, "--model", config_only, "--memory", "1GiB")

    assert code == ExitCode.OK
    assert "importance: 100 % of the run's" in text
    assert "not nf4 base: " in text


@pytest.mark.parametrize("name", FLAN_T5)
def test_flan_t5_is_known_by_name(capsys: Any, tmp_path: Path, name: str) -> None:
    """Nothing is downloaded; the choice, its cost and the runners-up are there for programs."""
    code, text = plan(capsys, tmp_path, "--model", name, "--memory", "16GiB", "--round-time", "9h", "--json")

    facts = json.loads(text)
    assert code == ExitCode.OK
    assert facts["importance_share"] == 1.0
    assert 0 < facts["round_s"] < 9 * 3600
    assert facts["round_bytes"] > 0
    assert facts["accumulation"] * facts["micro_batch"] == 16
    assert {"kind", "reason", "worth", "importance_share"} <= set(facts["runners_up"][0])
    assert facts["ranking"] == []


def test_with_a_ranking_its_top_is_shown(
    capsys: Any, tmp_path: Path, config_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most important weights with their share and what of them is planned; all of them in --json."""
    ranked = ranked_run()
    monkeypatch.setattr(plan_command, "joined_run", lambda server, folder, instead: ranked)
    arguments = ("--model", config_only, "--memory", "1GiB", "--server", "http://server")

    _, text = plan(capsys, tmp_path, *arguments)
    _, encoded = plan(capsys, tmp_path, *arguments, "--json")

    table = json.loads(encoded)["ranking"]
    assert ranked.weights[-1].name in text
    assert ranked.weights[0].name not in text
    assert table[0]["weight"] == ranked.weights[-1].name
    assert len(table) == len(ranked.weights)
    assert sum(row["share"] for row in table) == pytest.approx(1.0)


def test_a_run_with_one_rank_for_all_boards_is_told(
    capsys: Any, tmp_path: Path, config_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the plan; and with what is lacking, where this board cannot train at that rank."""
    run = run_of(SMALL_T5, {"scope": "decoder", "rank": 8, "trains_a": True})
    monkeypatch.setattr(plan_command, "joined_run", lambda server, folder, instead: run)
    arguments = ("--model", config_only, "--server", "http://server", "--memory")

    _, text = plan(capsys, tmp_path, *arguments, "1GiB")
    _, encoded = plan(capsys, tmp_path, *arguments, "1GiB", "--json")
    code, refusal = plan(capsys, tmp_path, *arguments, "200MiB")

    assert "rank 8 on each as on every board" in text
    assert set(json.loads(encoded)["ranks"]) == {8}
    assert code == ExitCode.MEMORY
    assert "every weight at rank 8" in refusal
    assert "train.rank" in refusal


def test_what_the_board_has_pruned_is_not_planned_again(
    capsys: Any, tmp_path: Path, config_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the run that it has joined, and as text too."""
    run = run_of(SMALL_T5, {"scope": "decoder", "rank": 8, "trains_a": True, "pruning": True}, round=4)
    monkeypatch.setattr(plan_command, "joined_run", lambda server, folder, instead: run)
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    folder.unlock()
    folder.write_identity(Identity(server="http://server", install_id="0" * 32, device="d-1", credential="c"))
    ranks = (8,) * len(run.weights)
    begun = Plan(
        mode=TrainingMode(format="fp32", compute="fp32", micro_batch=1),
        ranks=ranks,
        predicted_bytes=0,
        expected_peak_bytes=0,
        budget_bytes=0,
    )
    job = TrainJob(
        base_folder="",
        data=DataSpec(""),
        board_id="d-1",
        run=run,
        spec=RoundSpec(round=3, version=3),
        plan=begun,
        adapter_path="",
        result_path="",
        pruned_path=str(folder.pruned),
    )
    keep_pruned(job, {run.weights[1].name: 7})
    arguments = ("--model", config_only, "--server", "http://server", "--memory", "1GiB")

    _, text = plan(capsys, tmp_path, *arguments)
    _, encoded = plan(capsys, tmp_path, *arguments, "--json")

    facts = json.loads(encoded)
    assert f"pruning: 1 of {len(run.weights)} weights" in text
    assert "as on every board" not in text
    assert facts["ranks"] == [8, 7, *ranks[2:]]
    assert facts["pruned_ranks"] == {run.weights[1].name: 7}


def ranked_run() -> RunInfo:
    """Each weight worth more than the one before it in the manifest."""
    ranked = run_of(SMALL_T5, {"scope": "decoder"})
    values = tuple(tuple(float(i + 1) for _ in range(rows)) for i, rows in enumerate(basis_rows(ranked)))
    return msgspec.structs.replace(ranked, values=values)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--memory", "0"),
        ("--memory", "-1GiB"),
        ("--memory", "much"),
        ("--round-time", "0min"),
        ("--round-time", "-1min"),
        ("--round-time", "abc"),
        ("--round-time", "10"),
        ("--round-traffic", "0"),
        ("--round-traffic", "-5MB"),
        ("--round-traffic", "5 apples"),
    ],
)
def test_budgets_of_zero_or_nonsense_are_refused(
    capsys: Any, tmp_path: Path, config_only: Path, arguments: tuple[str, str]
) -> None:
    """In one line that shows what was typed, and one that says how to write it."""
    code, text = plan(capsys, tmp_path, "--model", config_only, *arguments)

    assert code == ExitCode.CONFIG
    assert arguments[1] in text
    assert "→ " in text
    assert "Traceback" not in text


def test_a_limit_that_cannot_be_kept_is_told(capsys: Any, tmp_path: Path, config_only: Path) -> None:
    """With what the least round needs."""
    code, text = plan(capsys, tmp_path, "--model", config_only, "--memory", "1GiB", "--round-traffic", "100kB")

    assert code == ExitCode.MEMORY
    assert "a round moves" in text
    assert "--round-traffic" in text


@pytest.mark.parametrize(
    "config",
    ["", "{", "[]", "null", '"t5"', "[" * 100_000, '{"model_type": "bert"}', json.dumps({**SMALL_T5, "d_model": 0})],
    ids=["empty", "torn", "list", "null", "text", "nested", "bert", "zero"],
)
def test_a_config_that_is_none_is_refused(capsys: Any, tmp_path: Path, config_only: Path, config: str) -> None:
    """Status BASE and a sentence that names the file or what is wrong in it."""
    (config_only / "config.json").write_text(config)

    code, text = plan(capsys, tmp_path, "--model", config_only)

    assert code == ExitCode.BASE
    assert "config.json" in text


def test_a_config_without_a_vocabulary_is_refused(capsys: Any, tmp_path: Path, config_only: Path) -> None:
    """The head's size decides much of the memory."""
    (config_only / "config.json").write_text(json.dumps({**SMALL_T5, "vocab_size": None}))

    code, text = plan(capsys, tmp_path, "--model", config_only)

    assert code == ExitCode.BASE
    assert "vocab_size" in text


def test_a_folder_without_a_config_is_refused(capsys: Any, tmp_path: Path) -> None:
    """And told what may be given instead."""
    code, text = plan(capsys, tmp_path, "--model", tmp_path)

    assert code == ExitCode.BASE
    assert "flan-t5-base" in text


def test_a_run_that_has_yet_to_choose_lengths_is_planned_for_with_the_longest(
    capsys: Any, tmp_path: Path, config_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan says so, and is the one that the longest lengths would get; with chosen ones it says nothing of it."""
    arguments = ("--model", config_only, "--server", "http://server", "--memory", "1GiB")

    def planned(source: int, target: int) -> tuple[str, dict[str, Any]]:
        run = run_of(SMALL_T5, {"max_source_tokens": source, "max_target_tokens": target})
        monkeypatch.setattr(plan_command, "joined_run", lambda server, folder, instead: run)
        text = plan(capsys, tmp_path, *arguments)[1]
        return text, json.loads(plan(capsys, tmp_path, *arguments, "--json")[1])

    text, facts = planned(0, 0)
    chosen_text, chosen = planned(512, 128)

    assert "yet to choose" in text and "up to 512 tokens" in text and "up to 128" in text
    assert "yet to choose" not in chosen_text
    assert (facts["lengths_chosen"], chosen["lengths_chosen"]) == (False, True)
    assert {**facts, "lengths_chosen": True} == chosen


def test_what_is_assumed_without_a_server_is_what_a_server_writes() -> None:
    """`aggregator init`'s defaults, but for the lengths, which boards' texts decide; the board's code may not import
    the server's."""
    from aggregator.settings.keys import template
    from aggregator.settings.runfile import parse
    from wire.default_run import DEFAULT_MAX_RANK, DEFAULT_SERVER_RANK, DEFAULT_SETTINGS

    written = parse(template({"model.path": "/base", "model.digest": "a" * 64}), Path("run.toml"))

    assert not written.train.has_lengths and DEFAULT_SETTINGS.has_lengths
    assert written.train == msgspec.structs.replace(DEFAULT_SETTINGS, max_source_tokens=0, max_target_tokens=0)
    assert (written.merge.max_rank, written.merge.server_rank) == (DEFAULT_MAX_RANK, DEFAULT_SERVER_RANK)


def test_a_plan_for_a_run_knows_the_base_that_came_from_the_server(
    capsys: Any, tmp_path: Path, config_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's base is a hub id, and no hub is asked: `join` has put the server's files into the state folder."""
    run = run_of(SMALL_T5)
    base = msgspec.structs.replace(run.base, model="google/flan-t5-small", revision="0" * 40)
    run = msgspec.structs.replace(run, base=base)
    monkeypatch.setattr(plan_command, "joined_run", lambda server, folder, instead: run)
    arguments = ("--server", "http://server", "--memory", "1GiB")
    code, text = plan(capsys, tmp_path, *arguments)
    assert code == ExitCode.BASE and "HF_HUB_OFFLINE is set" in text

    fetched = tmp_path / "state" / "base" / run.base.digest
    fetched.parent.mkdir(parents=True)
    config_only.rename(fetched)

    code, text = plan(capsys, tmp_path, *arguments)
    assert code == 0 and "strands" in text


def test_the_boards_own_file_is_planned_with(capsys: Any, tmp_path: Path, config_only: Path) -> None:
    """Its local strands take memory beside the run's, and its other settings count as for `join`; the server that it
    names is not asked."""
    file = tmp_path / "edge-client.toml"
    file.write_text('server = "https://nowhere.invalid"\nmemory = "1GiB"\nwindow = "22:00-06:00"\n')
    without = plan(capsys, tmp_path, "--model", config_only, "--config", file, "--json")
    given = plan(capsys, tmp_path, "--model", config_only, "--memory", "1GiB", "--json")
    file.write_text(file.read_text() + "[personal]\nrank = 16\n")
    code, encoded = plan(capsys, tmp_path, "--model", config_only, "--config", file, "--json")
    _, text = plan(capsys, tmp_path, "--model", config_only, "--config", file)

    assert without == given
    assert code == 0
    assert json.loads(encoded)["predicted_peak_bytes"] > json.loads(without[1])["predicted_peak_bytes"]
    assert "local strands with optimiser state" in text


def test_weights_that_a_board_keeps_for_itself_have_no_shared_strands(
    capsys: Any, tmp_path: Path, config_only: Path
) -> None:
    """FedRep's last block of the decoder."""
    file = tmp_path / "edge-client.toml"
    file.write_text('[personal]\nrank = 4\nmethod = "fedrep"\nlocal_blocks = 1\n')

    arguments = ("--model", config_only, "--memory", "1GiB", "--config", file)
    _, text = plan(capsys, tmp_path, *arguments)
    _, encoded = plan(capsys, tmp_path, *arguments, "--json")

    assert "11 of 44 weights have strands of this board alone" in text
    assert "earlier rounds" not in text
    facts = json.loads(encoded)
    last = SMALL_T5["num_decoder_layers"] - 1
    n_unshared = facts["ranks"].count(0)
    assert n_unshared == len(facts["pruned_ranks"]) == 11
    assert all(name.startswith(f"decoder.block.{last}.") for name in facts["pruned_ranks"])


def test_a_file_that_is_not_right_is_refused(capsys: Any, tmp_path: Path, config_only: Path) -> None:
    """With its name and the key."""
    file = tmp_path / "edge-client.toml"
    file.write_text("[personal]\nrank = -1\n")

    code, text = plan(capsys, tmp_path, "--model", config_only, "--memory", "1GiB", "--config", file)

    assert code == ExitCode.CONFIG
    assert "edge-client.toml" in text and "rank" in text
