"""The control groups that this process is in, v1 and v2."""

from __future__ import annotations

from pathlib import Path

from edge_client.host.system_files import read_text


def cgroup_folders(root: Path, controller: str) -> list[tuple[Path, bool]]:
    """(folder, is it v2) of this process's control group and of all above it, innermost first.

    A limit higher up binds as well. Inside a container the path in /proc/self/cgroup may name folders of the host that
    are not mounted here; those that exist are used, the mount's root always.
    """
    folders = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [(root / "sys/fs/cgroup", True), (root / "sys/fs/cgroup/unified", True)]
        elif controller in controllers.split(","):
            mounts = [(root / "sys/fs/cgroup" / controllers, False), (root / "sys/fs/cgroup" / controller, False)]
        else:
            continue
        for mount, v2 in dict(mounts).items():
            inner = mount.joinpath(*(part for part in path.split("/") if part not in ("", "..")))
            chain = [inner, *inner.parents]
            folders += [(folder, v2) for folder in chain[: chain.index(mount) + 1] if folder.is_dir()]
    return folders
