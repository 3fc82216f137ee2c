"""A root for arm64 that one may go into: mounted, with the processor that QEMU is told to be.

Call it in a mount namespace of one's own (arm64/__main__.py): then no mount outlives the process, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from arm64.cores import cores_named, cpuinfo, features
from arm64.shell import NotPossibleError, run

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

VARIABLES = ("HOME=/root", "LANG=C.UTF-8", f"PATH={PATH}", "DEBIAN_FRONTEND=noninteractive", "PIP_NO_COMPILE=1")
"""All that commands inside know of the outside; QEMU_CPU besides. Byte code is made of what is imported, not of all
that pip installs: torch has two thousand files."""


PROCESSORS = Path("/sys/devices/system/cpu")
"""All that a root sees of /sys: torch counts processors there. This machine's sensors and control groups are not the
board's."""


NETWORK_FILES = ("resolv.conf", "hosts")
"""Of /etc, as this machine has them: debootstrap writes none."""


class Emulated:
    """A root with its mounts, as a context manager.

    Args:
        root: the folder.
        core: QEMU's name of the processor.
        folders: of this machine, and where they are seen inside.
    """

    def __init__(self, root: Path, core: str, folders: Mapping[Path, str] | None = None) -> None:
        self.root, self.core = root, core
        self._folders = dict(folders or {})
        self._mounted: list[Path] = []

    def __enter__(self) -> Emulated:
        try:
            self._mount_all()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._mounted:
            subprocess.run(["umount", "--recursive", "--lazy", self._mounted.pop()], check=False)

    def words(self, *command: str) -> tuple[str, ...]:
        """The command line, outside, of a command inside."""
        return ("chroot", str(self.root), "/usr/bin/env", "-i", *VARIABLES, f"QEMU_CPU={self.core}", *command)

    def run(self, *command: str, log: Path | None = None, why: str = "") -> str:
        """Run a command inside to its end. Raises NotPossibleError where it fails."""
        return run(self.words(*command), log=log, why=why)

    def _mount_all(self) -> None:
        self._mount("proc", "proc", "-t", "proc")
        self._mount("/dev", "dev", "--rbind")
        for folder, inside in {PROCESSORS: str(PROCESSORS), **self._folders}.items():
            (self.root / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)
            self._mount(str(folder), inside.lstrip("/"), "--bind")
        for name in NETWORK_FILES:
            shutil.copyfile(f"/etc/{name}", self.root / "etc" / name)
        (core,) = cores_named(self.core)
        shown = run(self.words("LD_SHOW_AUXV=1", "/bin/true"), why="binfmt_misc must start arm64's programs")
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write(cpuinfo(core, features(shown), len(os.sched_getaffinity(0))))
        self._mount(file.name, "proc/cpuinfo", "--bind")
        Path(file.name).unlink()  # what is mounted stays readable

    def _mount(self, what: str, where: str, *how: str) -> None:
        place = self.root / where
        try:
            run(["mount", *how, what, str(place)])
        except NotPossibleError as error:
            raise NotPossibleError(
                error.message, "this must run as root, and not in a container that may not mount"
            ) from error
        self._mounted.append(place)
