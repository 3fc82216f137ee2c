"""The table's pins, asked for at the package index: each is there for its board, for its oldest and newest Python."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from edge_client.host.torch_build.choose import Build, builds

pytestmark = pytest.mark.slow

PLATFORM = "manylinux_2_28"
"""What a system with the table's glibc takes; PyPI's wheels of torch have this tag."""

ASKING = ("--disable-pip-version-check", "--only-binary", ":all:", "--timeout", "10", "--retries", "1")

TIMEOUT_S = 60.0


def ends(build: Build) -> tuple[str, str]:
    """The oldest and the newest Python of a row."""
    return build.python[0], build.python[-1]


@cache
def versions(package: str, machine: str, python: str) -> set[str]:
    """Versions that the index has as wheels for such a board. Skips the test where there is no index."""
    board = (
        "--python-version",
        python,
        "--platform",
        f"{PLATFORM}_{machine}",
        "--platform",
        f"manylinux2014_{machine}",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", package, *ASKING, *board],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("Available versions:")), "")
    if not line:
        pytest.skip("no package index can be reached here")
    return {word.strip() for word in line.partition(":")[2].split(",")}


@pytest.fixture(scope="module", autouse=True)
def asked_at_once() -> None:
    """The calls of all tests side by side: each is a second of waiting."""
    keys = {(build.machine, python) for build in builds() if not build.wheel for python in ends(build)}
    with ThreadPoolExecutor(4) as threads:
        for call in [threads.submit(versions, "torch", *key) for key in sorted(keys)]:
            call.exception()


@pytest.mark.parametrize("build", [build for build in builds() if not build.wheel], ids=lambda build: build.name)
def test_every_pin_can_be_installed(build: Build) -> None:
    """On PyPI, which is also what remains where another index cannot be reached."""
    for python in ends(build):
        assert build.version in versions("torch", build.machine, python), python


@pytest.mark.parametrize("build", [build for build in builds() if build.wheel], ids=lambda build: build.name)
def test_every_wheel_of_nvidias_is_there(build: Build) -> None:
    """At its address; and the libraries that it needs besides are on PyPI."""
    for requirement in build.also:
        package, exact, version = requirement.partition("==")
        assert not exact or version in versions(package, build.machine, build.python[0])
    try:
        urllib.request.urlopen(urllib.request.Request(build.wheel, method="HEAD"), timeout=20).close()
    except urllib.error.HTTPError as error:
        pytest.fail(f"{build.wheel}: {error}")
    except OSError as error:
        pytest.skip(f"NVIDIA's server cannot be reached here: {error}")
