"""Folders with Debian for arm64: a bare one, and for each build of torch one in which Braid is installed as on a board.

All of it is kept between runs. What was finished has a file beside it that says so; what was not is made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from arm64.emulated import Emulated
from arm64.shell import NotPossibleError, run, say
from edge_client.host.torch_build.choose import choose
from edge_client.host.torch_build.facts import numbers, read_facts
from scripts.deb.packages import MACHINES
from scripts.deb.wheels import Target

REPOSITORY = Path(__file__).resolve().parents[1]

SUITE, SUITE_PYTHON, SUITE_GLIBC = "bookworm", "3.11", (2, 36)
"""Debian 12, the oldest that boards are promised, its Python and its C library."""

INCLUDED = ("python3", "python3-venv", "ca-certificates")

TEST_PACKAGES = """
pytest pytest-asyncio pytest-xdist hypothesis packaging SQLAlchemy cryptography threadpoolctl tomli sortedcontainers
scipy execnet iniconfig pluggy cffi pycparser greenlet typing-extensions pygments
"""
"""Needed by the tests and benchmarks beyond a board's packages, with what these need."""

FETCHED_BY = ("constraints.txt", "deploy/offline-packages.txt", "edge_client/host/torch_build/builds.json")
"""Files that say which packages a board gets; while they are the same, those that were fetched serve."""

PACKAGE = "braid-edge-client_*_arm64.deb"


@dataclass(frozen=True, slots=True)
class Kept:
    """The folder that keeps everything, one place for each thing in it."""

    folder: Path

    @property
    def bare(self) -> Path:
        """Debian as debootstrap makes it."""
        return self.folder / "root"

    def board(self, build: str) -> Path:
        """A board with a build of torch."""
        return self.folder / f"board-{build}"

    def wheels(self, build: str) -> Path:
        """Packages that `install-board.sh --download` fetched for it."""
        return self.folder / "wheels" / build

    def log(self, name: str) -> Path:
        """Output of a long command."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        return self.folder / "logs" / f"{name}.log"

    def done(self, name: str) -> Path:
        """The file that says of what a thing was made."""
        return self.folder / f"{name}.done"


def make_bare(kept: Kept, mirror: str) -> None:
    """Debian for arm64, unless it is there: about ten minutes. `mirror`: "" for debootstrap's own."""
    mark = kept.done("root")
    if mark.exists():
        return
    say("Debian for arm64, with debootstrap: about ten minutes, once")
    remove(kept.bare)
    packages = kept.folder / "debian-packages"  # a second try does not fetch them again
    packages.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--arch=arm64", "--variant=minbase", f"--include={','.join(INCLUDED)}"]
    command += [f"--cache-dir={packages}", SUITE, str(kept.bare), *([mirror] if mirror else [])]
    run(
        command,
        why=f"see {kept.log('debootstrap')}; MIRROR= names another mirror of Debian",
        log=kept.log("debootstrap"),
    )
    mark.touch()


def fetch(kept: Kept, build: str) -> None:
    """The packages of a board, by this machine's pip, whose index no board needs to know."""
    made_of = "".join((REPOSITORY / name).read_text() for name in FETCHED_BY)
    mark = kept.done(f"wheels-{build}")
    if mark.exists() and mark.read_text() == made_of:
        return
    say(f"packages for {build}")
    installer = str(REPOSITORY / "deploy/install-board.sh")
    command = ["sh", installer, "--python", sys.executable, "--download", str(kept.wheels(build)), "--build", build]
    run([*command, "--board-python", SUITE_PYTHON], log=kept.log(f"fetch-{build}"))
    mark.write_text(made_of)


def install(kept: Kept, build: str, core: str) -> Path:
    """Braid from its Debian package, and this build of torch, by the commands that a person types; the root.

    An older package is brought up to date. The core is one that the build is for.
    """
    package = newest_package()
    root, mark = kept.board(build), kept.done(f"board-{build}")
    made_of = hashlib.sha256(package.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == made_of:
        return root
    fetch(kept, build)
    if not mark.exists():
        remove(root)
        run(["cp", "-a", str(kept.bare), str(root)])
    mark.unlink(missing_ok=True)
    with Emulated(root, core, {kept.wheels(build): "/mnt/wheels", package.parent: "/mnt/deb"}) as board:
        say(f"apt-get install {package.name}, emulated")
        board.run("apt-get", "update", log=kept.log(f"apt-{build}"))
        words = ("apt-get", "install", "--yes", "--no-install-recommends", "--reinstall", f"/mnt/deb/{package.name}")
        board.run(*words, log=kept.log(f"apt-{build}"))
        say(f"edge-client-setup with the torch for {build}, emulated: some minutes")
        board.run("edge-client-setup", "--offline", "/mnt/wheels", "--no-service", log=kept.log(f"setup-{build}"))
    mark.write_text(made_of)
    return root


def build_for(kept: Kept, core: str) -> str:
    """The build of torch that the table chooses for a board with this core and the roots' system."""
    with Emulated(kept.bare, core):
        return choose(
            read_facts(kept.bare, machine=MACHINES["arm64"], python=numbers(SUITE_PYTHON), glibc=SUITE_GLIBC)
        ).name


def newest_package() -> Path:
    """The client's package, as `make deb` leaves it. Raises NotPossibleError where there is none."""
    found = sorted((REPOSITORY / "dist/deb").glob(PACKAGE), key=lambda path: path.stat().st_mtime)
    if not found:
        raise NotPossibleError("there is no package of the client for arm64", "make deb")
    return found[-1]


def put_sources(kept: Kept, root: Path) -> None:
    """A copy of the repository's files in a root, and what the fast tests need, in a folder beside it."""
    source, packages = root / "srv/braid", root / "srv/test-packages"
    remove(source)
    source.mkdir(parents=True)
    names = run(["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, source / name)
    mark = kept.done(f"{root.name}-test-packages")
    if not mark.exists() or mark.read_text() != TEST_PACKAGES:
        say("packages for the tests")
        remove(packages)
        constraints = kept.folder / "test-constraints.txt"
        module = ("-m", "edge_client.host.torch_build", "--build", "aarch64", "--python", SUITE_PYTHON)
        lines = run([sys.executable, *module, "--constraints", str(REPOSITORY / "constraints.txt")])
        constraints.write_text(lines)
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--constraint", str(constraints)]
        target = ["--target", str(packages), *Target(SUITE_PYTHON, MACHINES["arm64"]).pip_flags]
        run([*pip, *target, *TEST_PACKAGES.split()], log=kept.log("test-packages"))
        mark.write_text(TEST_PACKAGES)


def remove(folder: Path) -> None:
    """Remove a folder, if it is there, with all that is in it. Raises NotPossibleError where anything is mounted in
    it: that is not the folder's."""
    table = Path("/proc/self/mountinfo").read_text()
    if inside := mounted_below(Path(os.path.realpath(folder)), table):
        raise NotPossibleError(f"{inside[0]} is mounted, so {folder} is not removed", f"umount {inside[0]}")
    if folder.exists():
        shutil.rmtree(folder)


def mounted_below(folder: Path, table: str) -> list[str]:
    """The places in a folder, or the folder itself, where something is mounted by the table of /proc/self/mountinfo."""
    places = [line.split()[4].encode().decode("unicode_escape") for line in table.splitlines()]  # \040 is a blank
    return [place for place in places if Path(place).is_relative_to(folder)]
