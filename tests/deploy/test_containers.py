"""What containers are made with: linted, not root, with a health check, the state in a volume, and commands and paths
that exist. Images are built by hand: docs/guide/containers.md."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from aggregator.cli import cli as aggregator_group
from braid_common.units import parse_size
from edge_client.cli.join import join
from edge_client.cli.main import group as edge_client_group
from edge_client.data.builtin_text import BUILTIN
from edge_client.host.torch_build.choose import builds

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/containers"
IMAGES = {"aggregator": FOLDER / "aggregator.Dockerfile", "board": FOLDER / "board.Dockerfile"}


def last_stage(path: Path) -> dict[str, list[str]]:
    """Instructions of the image that is kept, by name; continued lines are joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    kept: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, value = line.split(maxsplit=1)
        if name == "FROM":
            kept = {}
        kept.setdefault(name, []).append(value)
    return kept


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_hadolint_finds_nothing(path: Path) -> None:
    """What is left out of its rules is named, with the reason, where it is left out."""
    hadolint = Path(sys.executable).with_name("hadolint")

    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_an_image_runs_as_nobody_in_particular(path: Path) -> None:
    """A user by number, so that a cluster can see that it is not root; its state in a volume that belongs to it."""
    stage = last_stage(path)
    (user,), (volume,), making = stage["USER"], stage["VOLUME"], " ".join(stage["RUN"])

    assert re.fullmatch(r"([1-9]\d*):\1", user)
    assert f"--uid {user.split(':')[0]} " in making
    assert re.search(rf"install -d -o braid -g braid -m 700 {re.escape(volume)}", making)


@pytest.mark.parametrize(("name", "group"), [("aggregator", aggregator_group), ("edge-client", edge_client_group)])
def test_an_image_runs_commands_that_there_are(name: str, group: Any) -> None:
    """The entry point, the command and the health check are words that the programs know."""
    stage = last_stage(IMAGES["aggregator" if name == "aggregator" else "board"])
    (entry,), (command,), (check,) = (
        map(json.loads, stage["ENTRYPOINT"]),
        map(json.loads, stage["CMD"]),
        stage["HEALTHCHECK"],
    )
    shell = json.loads(check[check.index("CMD") + 3 :])
    asked = shlex.split(shell[2].split(">")[0].split("||")[0])

    for words in ([*entry, *command], asked):
        assert words[0] == name
        known = group.get_command(click.Context(group), words[1])
        flags = {flag for option in known.params for flag in option.opts}
        assert {word for word in words if word.startswith("--")} <= flags
        assert CliRunner().invoke(known, ["--help"]).exit_code == 0
    assert shell[:2] == ["sh", "-c"]
    assert shell[2].endswith("|| exit 1"), "docker knows the statuses 0 and 1 alone"


def test_the_board_knows_the_environment_that_it_is_given() -> None:
    """Of the image and of the compose file."""
    known = {option.envvar for option in join.params}
    given = set(re.findall(r"\b(BRAID_\w+)=", " ".join(last_stage(IMAGES["board"])["ENV"])))
    given |= {name for board in boards().values() for name in board["environment"]}

    assert given >= {"BRAID_STATE", "BRAID_DATA", "BRAID_SERVER", "BRAID_TOKEN"}
    assert given <= known


def test_the_builds_that_the_board_names_are_rows_of_the_table() -> None:
    """As arguments in its comments."""
    named = set(re.findall(r"TORCH_BUILD=([\w.-]+)", IMAGES["board"].read_text()))

    assert named
    assert named <= {build.name for build in builds()}


def boards() -> dict[str, Any]:
    """The services of the compose file but for the server's."""
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return {name: service for name, service in services.items() if name != "aggregator"}


def test_compose_has_a_server_and_three_unequal_boards() -> None:
    """Each with a limit, a state folder and text of its own, and no more rights than it needs."""
    whole = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    services = whole["services"]

    assert len(boards()) == 3
    assert len({parse_size(each["mem_limit"].upper() + "iB") for each in boards().values()}) == 3
    volumes = [volume.split(":")[0] for each in services.values() for volume in each["volumes"]]
    assert sorted(volumes) == sorted(whole["volumes"])
    for name, service in services.items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        context = FOLDER / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()
    texts = {board["environment"]["BRAID_DATA"] for board in boards().values()}
    assert len(texts) == 3
    assert all(text.startswith(f"{BUILTIN}/") for text in texts)
    assert all(board["environment"]["BRAID_SERVER"] == "https://aggregator:8470" for board in boards().values())
    assert "https://aggregator:8470" in services["aggregator"]["command"]
