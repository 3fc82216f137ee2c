"""The installer of boards: what it says it would do on each kind of board, word for word, and what it does below a
folder, with a Python that makes no environment and writes down what pip was asked for."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edge_client.agent.settings import read_config
from tests.edge_client.host.torch_build.boards import BOARDS
from tests.scripts.test_constraints import needed, pinned

pytestmark = pytest.mark.slow  # a shell script, run for every board

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/install-board.sh"
GOLDEN = Path(__file__).parent / "golden"

ASKED = ("--server", "https://192.0.2.7:8470", "--token", "SECRET")
ASKED += ("--fingerprint", "ab12", "--data", "/srv/notes.jsonl")

SAID = {
    "pi4": ("Pi 4", ASKED),
    "pi5-uninstall": ("Pi 5", ("--uninstall", "--purge")),
    "orin-jetpack6": ("Orin, JetPack 6.2", ASKED),
    "orin-jetpack7": ("Orin, JetPack 7.2", ()),
    "x86-64": ("x86-64", ("--no-service",)),
    "pi4-offline": ("Pi 4", ("--offline", "{offline}")),
    "jetpack6-download": ("x86-64", ("--download", "/tmp/wheels", "--build", "jetpack-6.1", "--board-python", "3.10")),
}
"""Golden file → board and flags."""

PYTHON = """#!/bin/sh
# A Python for installers under test: it decides as the real one does, and installs nothing.
case "$1 $2" in
"-m edge_client.host.torch_build") exec {real} "$@" ;;
"-m venv")
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    printf '#!/bin/sh\\necho "doctor was here"\\nexit {doctor}\\n' > "$folder/bin/edge-client"
    chmod +x "$folder/bin/edge-client"
    ;;
"-m pip")
    printf '%s\\n' "$*" >> {log}
    while [ $# -gt 0 ]; do [ "$1" != --constraint ] || cp "$2" {log}.constraints; shift; done
    ;;
*) exec {real} "$@" ;;
esac
"""


class Machine:
    """A board below a folder, with programs of its own in front of the real ones."""

    def __init__(self, folder: Path, name: str, *, free_mib: int = 20_000, doctor: int = 0) -> None:
        self.board, self.root = BOARDS[name], BOARDS[name].lay_out(folder / "root")
        self.log = folder / "pip"
        self.log.touch()
        programs = folder / "bin"
        programs.mkdir()
        self.program(programs / "python3", PYTHON.format(real=sys.executable, log=self.log, doctor=doctor))
        rows = f"Filesystem 1M-blocks Used Available Capacity Mounted\\nroot 1 1 {free_mib} 1% /"
        self.program(programs / "df", f'#!/bin/sh\nprintf "{rows}\\n"\n')
        facts = f"--machine {self.board.machine} --python {self.board.python} --glibc {self.board.glibc}"
        self.env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "INSTALL_BOARD_FACTS": facts}

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *arguments: str, words: str = "") -> subprocess.CompletedProcess[str]:
        command = [SCRIPT, "--root", self.root, *arguments]
        return subprocess.run(command, input=words, capture_output=True, text=True, env=self.env, timeout=60)

    def asked_of_pip(self) -> list[str]:
        return self.log.read_text().splitlines()

    def plain(self, text: str) -> str:
        """Output without what differs from machine to machine."""
        for path, name in ((self.root, ""), (ROOT, "CLONE")):
            text = text.replace(str(path), name)
        return re.sub(r"^python   .*\n", "", re.sub(r"/tmp/tmp\.\w+", "CONSTRAINTS", text), flags=re.MULTILINE)


@pytest.mark.parametrize("name", SAID)
def test_a_dry_run_says_what_would_be_done(name: str, tmp_path: Path) -> None:
    """For each kind of board; nothing is written, nothing is installed, and no secret is shown.

    To write the expected texts anew: UPDATE_GOLDEN=1 pytest tests/deploy
    """
    board, flags = SAID[name]
    machine, offline = Machine(tmp_path, board), tmp_path / "root/wheels"
    if "{offline}" in flags:
        offline.mkdir()
        wheel(offline)
    before = sorted(machine.root.rglob("*"))

    done = machine.run("--dry-run", *(flag.format(offline=offline) for flag in flags))

    assert done.returncode == 0, done.stderr
    said = machine.plain(done.stdout)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(said)
    assert said == path.read_text()
    assert "SECRET" not in done.stdout
    assert sorted(machine.root.rglob("*")) == before
    assert machine.asked_of_pip() == []


def wheel(folder: Path) -> None:
    """A wheel of Braid as far as an installer looks: the table's package in a zip."""
    with zipfile.ZipFile(folder / "braid_fl-0.1.0-py3-none-any.whl", "w") as file:
        for name in ("__init__.py", "host/__init__.py", "host/system_files.py"):
            file.write(ROOT / "edge_client" / name, f"edge_client/{name}")
        for path in (ROOT / "edge_client/host/torch_build").glob("*.*"):
            file.write(path, f"edge_client/host/torch_build/{path.name}")


def test_a_board_is_installed_and_installed_again(tmp_path: Path) -> None:
    """torch first, then Braid; settings that the client accepts, a token for root alone; a second run keeps both and
    changes what it is asked to."""
    machine = Machine(tmp_path, "Pi 4")

    first = machine.run(*ASKED)

    assert first.returncode == 0, first.stderr
    torch, braid = machine.asked_of_pip()
    assert torch.endswith(" torch==2.9.1")
    assert braid.endswith(f" {ROOT}[client]")
    assert "doctor was here" in first.stdout
    settings = read_config(machine.root / "etc/braid/edge-client.toml")
    assert [settings[key] for key in ("server", "fingerprint", "data")] == [ASKED[1], ASKED[5], ASKED[7]]
    token = machine.root / "etc/braid/edge-client.env"
    assert token.read_text() == "BRAID_TOKEN=SECRET\n"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600

    with (machine.root / "etc/braid/edge-client.toml").open("a") as file:
        file.write('name = "hall-3"\n')
    second = machine.run("--server", "https://192.0.2.9:8470")

    assert second.returncode == 0, second.stderr
    settings = read_config(machine.root / "etc/braid/edge-client.toml")
    assert (settings["server"], settings["name"]) == ("https://192.0.2.9:8470", "hall-3")
    assert settings["data"] == "/srv/notes.jsonl"
    assert token.read_text() == "BRAID_TOKEN=SECRET\n"
    assert "is brought up to date" in second.stdout


@pytest.mark.parametrize("source", ["-", "file"])
def test_a_token_may_come_where_no_list_of_processes_shows_it(tmp_path: Path, source: str) -> None:
    """By standard input, or by a file's first line; an empty one is refused before anything is installed."""
    machine, file = Machine(tmp_path, "Pi 4"), tmp_path / "token"

    for text, status in (("", 2 if source == "-" else 3), ("SECRET", 0)):
        file.write_text(text)
        done = machine.run("--token-file", "-" if source == "-" else str(file), words=text)
        assert done.returncode == status, done.stderr

    assert "no token" in machine.run("--token-file", "-", words="").stderr
    assert (machine.root / "etc/braid/edge-client.env").read_text() == "BRAID_TOKEN=SECRET\n"


def test_a_jetson_gets_its_gpu_and_a_card_that_moves_loses_it(tmp_path: Path) -> None:
    """The drop-in, for the client and for its doctor; gone when the card starts in a Raspberry Pi."""
    jetson = Machine(tmp_path / "jetson", "Orin, JetPack 7.2")
    assert jetson.run().returncode == 0
    units = jetson.root / "etc/systemd/system"
    drop_ins = [units / f"{unit}.service.d/jetson.conf" for unit in ("edge-client", "edge-client-doctor")]
    assert all(path.read_text().count("DeviceAllow=/dev/nvmap rw") == 1 for path in drop_ins)

    (jetson.root / "etc/nv_tegra_release").unlink()
    assert jetson.run().returncode == 0

    assert not any(path.exists() for path in drop_ins)


def test_jetpack_6_gets_the_library_that_nvidias_build_lacks(tmp_path: Path) -> None:
    """It is linked where torch's own libraries look first; offline, NVIDIA's file is taken by its path."""
    machine = Machine(tmp_path, "Orin, JetPack 6.2")
    site = machine.root / "opt/braid/venv/lib/python3.10/site-packages"
    for folder in ("torch/lib", "nvidia/cusparselt/lib"):
        (site / folder).mkdir(parents=True)
    library = site / "nvidia/cusparselt/lib/libcusparseLt.so.0"
    library.write_text("the library")
    programs = machine.root / "opt/braid/venv/bin"
    programs.mkdir()
    Machine.program(programs / "python", (tmp_path / "bin/python3").read_text())
    Machine.program(programs / "edge-client", "#!/bin/sh\n")

    assert machine.run().returncode == 0
    assert machine.run().returncode == 0

    assert (site / "torch/lib/libcusparseLt.so.0").read_text() == "the library"
    assert "torch @ https://developer.download.nvidia.com/" in machine.asked_of_pip()[0]

    offline = tmp_path / "wheels"
    offline.mkdir()
    wheel(offline)
    missing = machine.run("--offline", str(offline))
    assert missing.returncode == 3
    assert "17622132-cp310-cp310-linux_aarch64.whl is missing" in missing.stderr
    assert "--build jetpack-6.1" in missing.stderr

    library.unlink()
    assert "libcusparseLt.so.0 was not found" in machine.run().stderr


def test_what_is_fetched_for_another_python_is_pinned_as_the_rest(tmp_path: Path) -> None:
    """Packages that were each the newest did not fit each other: SymPy asks for an mpmath below 1.4."""
    machine = Machine(tmp_path, "Pi 4")

    done = machine.run("--download", str(tmp_path / "wheels"), "--build", "armv8.0", "--board-python", "3.11")

    assert done.returncode == 0, done.stderr
    pins = machine.log.with_name("pip.constraints").read_text().splitlines()
    assert "torch==2.9.1" in pins
    assert any(pin.startswith("mpmath==1.3") for pin in pins)
    assert ";" not in "".join(pin for pin in pins if not pin.startswith("#"))


def test_a_board_that_cannot_train_is_not_started(tmp_path: Path) -> None:
    """The doctor's status is the installer's, and the service is left as it is."""
    machine = Machine(tmp_path, "Pi 4", doctor=12)

    done = machine.run(*ASKED)

    assert done.returncode == 12
    assert "cannot train yet" in done.stderr
    assert "systemctl enable" not in done.stdout
    assert "systemctl restart" not in done.stdout


def test_the_wheel_beside_the_installer_is_the_one_that_is_installed(tmp_path: Path) -> None:
    """Not another one in the offline folder, whose name sorts behind it; that is for the libraries."""
    machine, beside, offline = Machine(tmp_path, "Pi 4"), tmp_path / "a", tmp_path / "wheels"
    for folder in (beside, offline):
        folder.mkdir()
        wheel(folder)
    installer = shutil.copy(SCRIPT, beside)

    done = subprocess.run(
        [installer, "--root", machine.root, "--dry-run", "--offline", offline],
        capture_output=True,
        text=True,
        env=machine.env,
    )

    assert done.returncode == 0, done.stderr
    assert f"{beside}/braid_fl-0.1.0-py3-none-any.whl[client]" in done.stdout
    assert f"{offline}/braid_fl" not in done.stdout


def test_an_environment_without_torch_needs_its_room(tmp_path: Path) -> None:
    """As a package leaves it; no python3-venv is asked for."""
    machine = Machine(tmp_path, "Pi 4", free_mib=700)
    programs = machine.root / "opt/braid/venv/bin"
    programs.mkdir(parents=True)
    Machine.program(programs / "python", (tmp_path / "bin/python3").read_text())

    done = machine.run()

    assert done.returncode == 3
    assert "700 MiB free, and about 722 MiB are needed" in done.stderr


def test_removing_keeps_the_identity_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Program and units go; settings and state only with --purge. Twice is as good as once."""
    machine = Machine(tmp_path, "Pi 4")
    machine.run(*ASKED)
    state = machine.root / "var/lib/private/braid/identity.json"
    state.parent.mkdir(parents=True)
    state.touch()
    ours = [machine.root / "opt/braid/venv", machine.root / "etc/systemd/system/edge-client.service"]
    own = machine.root / "etc/systemd/system/edge-client.service.d/memory.conf"
    own.parent.mkdir()
    own.write_text("[Service]\nMemoryMax=1G\n")
    assert all(path.exists() for path in ours)

    for flags in (("--uninstall",), ("--uninstall",)):
        assert machine.run(*flags).returncode == 0
        assert not any(path.exists() for path in ours)
        assert state.exists()
        assert own.exists()
        assert (machine.root / "etc/braid/edge-client.toml").exists()
    assert machine.run("--uninstall", "--purge").returncode == 0

    assert not state.exists()
    assert not (machine.root / "etc/braid/edge-client.env").exists()


@pytest.mark.parametrize(
    ("flags", "free_mib", "status", "said"),
    [
        (("--nonsense",), 20_000, 2, "there is no option --nonsense"),
        (("--server",), 20_000, 2, "--server needs a value"),
        (("--server", 'https://x"y'), 20_000, 3, "holds a quote"),
        (("--offline", "/nowhere"), 20_000, 3, "no folder /nowhere"),
        (("--python", "python0"), 20_000, 3, "there is no python0"),
        (("--build", "nonsense"), 20_000, 3, "no build 'nonsense'"),
        (("--build", "jetpack-6.1"), 20_000, 3, "is not made for Python 3.11"),
        ((), 700, 3, "700 MiB free, and about 722 MiB are needed"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(
    flags: tuple[str, ...], free_mib: int, status: int, said: str, tmp_path: Path
) -> None:
    """One error, what to do next, and nothing written."""
    machine = Machine(tmp_path, "Pi 4", free_mib=free_mib)

    done = machine.run(*flags)

    assert done.returncode == status
    assert said in done.stderr
    assert "→" in done.stderr
    assert not (machine.root / "opt").exists()
    assert machine.asked_of_pip() == []


def test_it_is_for_root(tmp_path: Path) -> None:
    """Without --root it works on the machine itself: whoever may not is told so at once."""
    machine = Machine(tmp_path, "Pi 4")
    (tmp_path / "bin/id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "bin/id").chmod(0o755)

    done = subprocess.run([SCRIPT], capture_output=True, text=True, env=machine.env)

    assert done.returncode == 3
    assert "must be run as root" in done.stderr


def test_offline_boards_get_all_that_a_board_needs() -> None:
    """The list has every package that braid-fl[client] brings, by the packages' own words, and each is pinned."""
    lines = [line for line in (ROOT / "deploy/offline-packages.txt").read_text().splitlines() if line[0] != "#"]
    names = {line.partition(" ")[0] for line in lines}
    on_old_pythons = {"tomli", "async-timeout", "exceptiongroup"}

    assert needed("braid-fl[client]") - {"braid-fl", "torch"} == names - on_old_pythons
    assert names - on_old_pythons <= set(pinned())
    assert [line for line in lines if line.endswith("# sdist")] == ["rouge-score # sdist"]
