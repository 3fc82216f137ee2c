"""The Debian packages: what is in them, what their scripts do, and that lintian has nothing against them.

With small stand-ins for the wheels, which come from pip's index; `make deb-check` installs the real ones.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from edge_client.agent.settings import read_config
from scripts.deb.__main__ import build
from scripts.deb.packages import BOARD, PACKAGES, SERVER, Package
from tests.deploy.test_install_board import ASKED, Machine, wheel

ROOT = Path(__file__).parents[2]
FILES = ROOT / "scripts/deb/files"

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed here")


def made(folder: Path, package: Package, architecture: str = "arm64") -> Path:
    """A package of two small wheels."""
    folder.mkdir()
    wheel(folder)
    other = folder / "other-1.0-py3-none-any.whl"
    with ZipFile(other, "w") as file:
        file.writestr("other.py", "")
    target = folder / "made.deb"
    braid = next(folder.glob("braid_fl-*.whl"))
    build(package, architecture, "0.1.0~1", braid, [other], target, folder / "root")
    return target


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → file."""
    folder = tmp_path_factory.mktemp("packages")
    return {package.name: made(folder / package.name, package) for package in PACKAGES}


def asked(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@needs_dpkg
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_says_what_it_is_and_needs(package: Package, packages: dict[str, Path]) -> None:
    """python3 alone, of those that it has wheels for; neither pip nor torch, nor anything that needs a network."""
    fields = dict(
        line.split(": ", 1)
        for line in asked("dpkg-deb", "--field", packages[package.name]).splitlines()
        if line[0] != " "
    )

    assert (fields["Package"], fields["Version"], fields["Architecture"]) == (package.name, "0.1.0~1", "arm64")
    assert fields["Depends"].split(", ")[:2] == ["python3 (>= 3.10)", "python3 (<< 3.14~)"]
    assert set(fields["Depends"].split(", ")[2:]) == set(package.depends)
    assert int(fields["Installed-Size"]) > 0


@needs_dpkg
@pytest.mark.parametrize(
    ("package", "also"),
    [
        (BOARD, ("usr/sbin/edge-client-setup", "usr/share/man/man8/edge-client-setup.8.gz")),
        (BOARD, (f"{BOARD.folder}/install-board.sh", f"{BOARD.folder}/edge-client.service.d/jetson.conf")),
        (SERVER, ("usr/share/doc/braid-aggregator/examples/aggregator.env.example",)),
    ],
)
def test_a_package_has_program_units_pages_and_completion(
    package: Package, also: tuple[str, ...], packages: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing below /etc, /opt or /var: settings, environment and state are made, and are whoever's who uses them."""
    subprocess.run(["dpkg-deb", "--extract", packages[package.name], tmp_path], check=True)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir() or path.is_symlink()}

    assert {path.split("/")[0] for path in files} == {"usr"}
    for unit in package.units:
        text = (tmp_path / "usr/lib/systemd/system" / unit).read_text()
        assert f"ExecStart={package.venv}/bin/{package.program} " in text
    program = tmp_path / "usr/bin" / package.program
    assert str(program.readlink()) == f"{package.venv}/bin/{package.program}"
    assert {f"usr/share/man/man1/{package.program}.1.gz", *also} <= files
    assert f"usr/share/bash-completion/completions/{package.program}" in files
    assert f"usr/share/doc/{package.name}/RUNBOOK.md.gz" in files
    sums = (tmp_path / package.folder / "wheels.sha256").read_text().splitlines()
    assert [line.split("  ")[1] for line in sums] == [
        "braid_fl-0.1.0-py3-none-any.whl",
        "wheels/other-1.0-py3-none-any.whl",
    ]
    assert subprocess.run(["sha256sum", "--check", "wheels.sha256"], cwd=tmp_path / package.folder).returncode == 0


@needs_dpkg
def test_the_same_commit_makes_the_same_package(
    packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte, from the same wheels, whatever the umask."""
    root = packages[SERVER.name].parent
    target = tmp_path / "again.deb"

    build(SERVER, "arm64", "0.1.0~1", *_wheels(root), target, tmp_path / "root")

    assert target.read_bytes() == packages[SERVER.name].read_bytes()


def _wheels(folder: Path) -> tuple[Path, list[Path]]:
    return next(folder.glob("braid_fl-*.whl")), sorted(folder.glob("other-*.whl"))


@needs_dpkg
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed here")
def test_lintian_has_nothing_against_them(packages: dict[str, Path]) -> None:
    """Neither errors nor warnings, and no override."""
    done = subprocess.run(["lintian", "--fail-on=error,warning", *packages.values()], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", sorted(path.name for path in FILES.iterdir() if path.read_bytes()[:2] == b"#!"))
def test_scripts_are_clean(script: str) -> None:
    """By shellcheck, as POSIX shell; a maintainer script ends at its first failure."""
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), FILES / script], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout
    text = (FILES / script).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert re.search(r"^set -eu?$", text, re.MULTILINE)


PIP = """
import pathlib, sys
here = pathlib.Path({log!r})
constraints = pathlib.Path(sys.argv[sys.argv.index("--constraint") + 1]).read_text()
assert "--no-index" in sys.argv
with here.open("a") as log:
    log.write(" ".join(sys.argv[-2:]) + "\\n")
here.with_suffix(".constraints").write_text(constraints)
"""
"""A pip that installs nothing and writes down what it was asked for."""


class Installed:
    """A package's folder and the environment that is made of it, with a stand-in for pip."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.venv, self.log = folder / "package", folder / "opt/venv", folder / "pip.log"
        (self.folder / "wheels").mkdir(parents=True)
        shutil.copy(FILES / "make-venv", self.folder)
        shutil.copy(ROOT / "constraints.txt", self.folder)
        wheel(self.folder)
        with ZipFile(self.folder / "wheels/pip-1-py3-none-any.whl", "w") as file:
            file.writestr("pip/__main__.py", PIP.format(log=str(self.log)))
        self.of_version("one")

    def of_version(self, name: str) -> None:
        (self.folder / "wheels.sha256").write_text(name)

    def make(self) -> str:
        return asked(self.folder / "make-venv", self.venv, "board")

    def asked_of_pip(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    @property
    def site(self) -> Path:
        return next(self.venv.glob("lib/python3.*/site-packages"))


needs_python = pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the system has no Python here")


@needs_python
def test_the_environment_is_made_of_the_packages_wheels(tmp_path: Path) -> None:
    """Braid and pip, without an index; a second time nothing is done."""
    installed = Installed(tmp_path)

    installed.make()

    whole, braid = installed.asked_of_pip()
    assert whole == "pip braid-fl[board]"
    assert braid.endswith("--force-reinstall " + str(installed.folder / "braid_fl-0.1.0-py3-none-any.whl"))
    installed.make()
    assert installed.asked_of_pip() == []


@needs_python
def test_an_upgrade_keeps_torch_and_what_it_asks_for(tmp_path: Path) -> None:
    """Other wheels are installed into the same environment, under the constraints of this board's torch."""
    installed = Installed(tmp_path)
    installed.make()
    torch = installed.site / "torch"
    torch.mkdir()
    installed.asked_of_pip()
    plain = installed.log.with_suffix(".constraints").read_text()
    installed.of_version("two")

    installed.make()

    assert len(installed.asked_of_pip()) == 2
    assert torch.is_dir()
    constraints = installed.log.with_suffix(".constraints").read_text()
    assert constraints.splitlines()[-1].startswith("torch")  # the table's line, which choose.py appends
    assert not plain.splitlines()[-1].startswith("torch")


@needs_python
def test_another_python_makes_it_anew_and_says_what_is_lost(tmp_path: Path) -> None:
    """Half an environment, too, is finished by the next start."""
    installed = Installed(tmp_path)
    installed.make()
    (installed.site / "torch").mkdir()
    old = installed.site.parent
    old.rename(old.with_name("python3.0"))

    said = installed.make()

    assert "torch must be installed for it: sudo edge-client-setup" in said
    assert [path.name for path in installed.venv.glob("lib/python3.*")] == [old.name]
    installed.asked_of_pip()
    (installed.venv / "wheels.sha256").unlink()
    assert installed.make() == ""
    assert len(installed.asked_of_pip()) == 2


def test_in_a_package_program_and_units_are_apts(tmp_path: Path) -> None:
    """The environment that is there gets torch, units of an earlier installation go, for they would hide the package's,
    and what apt installed is not removed by hand."""
    machine = Machine(tmp_path, "Orin, JetPack 7.2")
    machine.run()
    units = machine.root / "etc/systemd/system"
    assert (units / "edge-client.service").exists()
    machine.env["INSTALL_BOARD_PACKAGED"] = "yes"

    done = machine.run(*ASKED)

    assert done.returncode == 0, done.stderr
    assert "brought up to date" in done.stdout
    assert not (units / "edge-client.service").exists()
    assert (units / "edge-client.service.d/jetson.conf").exists()
    assert read_config(machine.root / "etc/braid/edge-client.toml")["server"] == ASKED[1]
    refused = machine.run("--uninstall")
    assert refused.returncode == 2
    assert "apt remove braid-edge-client" in refused.stderr
    assert (machine.root / "opt/braid/venv").exists()
