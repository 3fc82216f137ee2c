"""The table of Debian packages: what each one brings, and which Pythons and processors it is for."""

from __future__ import annotations

from dataclasses import dataclass

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""The systems' own: Ubuntu 22.04 and JetPack 6, Debian 12, Ubuntu 24.04 and JetPack 7, Debian 13."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's name of an architecture → Python's."""

PIP = "pip==26.3"
"""The installer that goes into the packages, so that a machine needs nothing but python3. constraints.txt does not have
it: it is nobody's requirement."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package.

    Attributes:
        name: of the package, of its folder in /usr/lib, and of its maintainer scripts in scripts/deb/files.
        program: the command that people type.
        venv: the virtual environment that its units know.
        extras: of braid-fl, that the environment gets.
        summary: one line.
        description: paragraphs.
        depends: packages beside python3.
        units: files of deploy/ for systemd.
        installer: files of deploy/ and scripts/deb/files that lie beside the wheels.
        examples: files of deploy/.
    """

    name: str
    program: str
    venv: str
    extras: tuple[str, ...]
    summary: str
    description: tuple[str, ...]
    units: tuple[str, ...]
    examples: tuple[str, ...]
    depends: tuple[str, ...] = ()
    installer: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Folder of wheels and scripts, without the leading slash."""
        return f"usr/lib/{self.name}"


BOARD = Package(
    name="braid-edge-client",
    program="edge-client",
    venv="/opt/braid/venv",
    extras=("board",),
    summary="fine-tune FLAN-T5 on this board, together with others",
    description=(
        "The client of a Braid run: it trains a LoRA adapter on this board's own text, which never leaves it, and "
        "sends what was learnt to the aggregator, which braids the boards' work into one adapter.",
        "torch is not in the package, for which build serves depends on the board: edge-client-setup installs it, "
        "writes the settings and starts the service.",
    ),
    units=("edge-client.service", "edge-client-doctor.service"),
    examples=("edge-client.toml", "edge-client.env.example"),
    installer=(
        "install-board.sh",
        "offline-packages.txt",
        "edge-client.toml",
        "edge-client.service",
        "edge-client-doctor.service",
        "edge-client.service.d/jetson.conf",
    ),
)

SERVER = Package(
    name="braid-aggregator",
    program="aggregator",
    venv="/opt/braid-aggregator/venv",
    extras=("server", "hub"),
    summary="server of a federated fine-tuning of FLAN-T5 by small boards",
    description=(
        "The server of a Braid run: boards join it with a token, train LoRA adapters on text of their own, and it "
        "merges them. It needs neither torch nor a GPU.",
    ),
    units=("aggregator.service",),
    examples=("aggregator.env.example",),
    depends=("adduser",),
)

PACKAGES = (BOARD, SERVER)
