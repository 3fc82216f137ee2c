"""What a board says about itself, on boards laid out as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.errors import ConfigError
from edge_client.host.board import SYSTEM_RESERVE_BYTES, probe_board

MIB = 1 << 20


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


RAM = {"proc/meminfo": "MemTotal:        4096000 kB\nMemFree: 1 kB\nMemAvailable:    2048000 kB\n"}
AVAILABLE = 2048000 * 1024 - SYSTEM_RESERVE_BYTES


def test_without_limits_the_available_memory_counts(tmp_path: Path) -> None:
    """Less a reserve; the sentence names /proc/meminfo."""
    board = probe_board(root=lay_out(tmp_path, RAM))

    assert board.memory_bytes == AVAILABLE
    assert "/proc/meminfo" in board.memory_source


def test_cgroup_v2_limits_bind_from_any_level(tmp_path: Path) -> None:
    """The parent's limit is tighter than the process's own, and wins."""
    files = {"proc/self/cgroup": "0::/system.slice/braid.service\n", "sys/fs/cgroup/memory.max": "max\n"}
    files["sys/fs/cgroup/system.slice/memory.max"] = f"{300 * MIB}\n"
    files["sys/fs/cgroup/system.slice/braid.service/memory.max"] = f"{500 * MIB}\n"

    board = probe_board(root=lay_out(tmp_path, RAM | files))

    assert board.memory_bytes == 300 * MIB
    assert "/sys/fs/cgroup/system.slice/memory.max" in board.memory_source


def test_cgroup_v1_limits_bind_and_its_no_limit_is_ignored(tmp_path: Path) -> None:
    """9223372036854771712 means no limit."""
    files = {"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n"}
    files["sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes"] = f"{400 * MIB}\n"
    files["sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"

    board = probe_board(root=lay_out(tmp_path, RAM | files))

    assert board.memory_bytes == 400 * MIB


@pytest.mark.parametrize("version", [1, 2])
def test_what_others_in_the_group_hold_is_not_ours(tmp_path: Path, version: int) -> None:
    """A group's limit is shared: their memory is taken off, our own is not, and the sentence says so."""
    if version == 1:
        files = {"proc/self/cgroup": "4:memory:/braid\n"}
        folder, limit = "sys/fs/cgroup/memory/braid", "memory.limit_in_bytes"
        held = f"cache 99999999999\nrss 1\ntotal_rss {130 * MIB}\ntotal_shmem {20 * MIB}\n"
    else:
        files = {"proc/self/cgroup": "0::/braid\n"}
        folder, limit = "sys/fs/cgroup/braid", "memory.max"
        held = f"anon {130 * MIB}\nfile 99999999999\nshmem {20 * MIB}\n"
    files |= {f"{folder}/{limit}": f"{500 * MIB}\n", f"{folder}/memory.stat": held}
    files["proc/self/status"] = f"Name:\tedge-client\nVmRSS:\t 90000 kB\nRssAnon:\t {30 << 10} kB\n"

    board = probe_board(root=lay_out(tmp_path, RAM | files))

    assert board.memory_bytes == (500 - 130 - 20 + 30) * MIB
    assert "less 120 MiB that others in the group hold" in board.memory_source


def test_a_group_that_others_fill_leaves_nothing(tmp_path: Path) -> None:
    """Never a negative size."""
    files = {"proc/self/cgroup": "0::/braid\n", "sys/fs/cgroup/braid/memory.max": f"{100 * MIB}\n"}
    files["sys/fs/cgroup/braid/memory.stat"] = f"anon {130 * MIB}\n"

    assert probe_board(root=lay_out(tmp_path, RAM | files)).memory_bytes == 0


def test_in_a_container_the_mounts_root_is_read(tmp_path: Path) -> None:
    """/proc/self/cgroup may name a folder of the host that is not mounted in the container."""
    files = {"proc/self/cgroup": "0::/../../docker/abc\n", "sys/fs/cgroup/memory.max": f"{256 * MIB}\n"}

    assert probe_board(root=lay_out(tmp_path, RAM | files)).memory_bytes == 256 * MIB


def test_a_limit_above_the_available_memory_does_not_raise_it(tmp_path: Path) -> None:
    """The smallest of all counts."""
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{1 << 40}\n"}

    assert probe_board(root=lay_out(tmp_path, RAM | files)).memory_bytes == AVAILABLE


def test_old_kernels_without_an_estimate_give_half_of_the_memory(tmp_path: Path) -> None:
    """MemAvailable is missing before Linux 3.14."""
    board = probe_board(root=lay_out(tmp_path, {"proc/meminfo": "MemTotal: 1024000 kB\n"}))

    assert board.memory_bytes == 512000 * 1024


def test_the_override_replaces_every_limit(tmp_path: Path) -> None:
    """--memory wins, also where nothing can be read."""
    board = probe_board(500 * MIB, root=tmp_path)

    assert (board.memory_bytes, board.memory_source) == (500 * MIB, "given by --memory")


@pytest.mark.parametrize("override_bytes", [None, 500])
def test_no_memory_known_is_a_config_error(override_bytes: int | None, tmp_path: Path) -> None:
    """An unreadable board, or a --memory without its unit, asks for --memory with one."""
    with pytest.raises(ConfigError) as caught:
        probe_board(override_bytes, root=tmp_path)

    assert "--memory 500MiB" in caught.value.hint


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"},
        {
            "proc/self/cgroup": "2:cpu,cpuacct:/a\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
        },
    ],
)
def test_a_cpu_quota_lowers_the_count(files: dict[str, str], tmp_path: Path) -> None:
    """A quota of one processor or less is one processor."""
    assert probe_board(root=lay_out(tmp_path, RAM | files)).cpu_count == 1


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 vaes", True),
        ("flags : fpu amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("Features\t: fp asimd i8mm", False),
        ("model name : bf16", False),
    ],
)
def test_bf16_is_fast_where_the_processor_has_it(line: str, fast: bool, tmp_path: Path) -> None:
    """x86 and arm64 flags alike."""
    assert probe_board(root=lay_out(tmp_path, RAM | {"proc/cpuinfo": f"processor: 0\n{line}\n"})).bf16_fast is fast


def test_a_jetson_tells_its_name(tmp_path: Path) -> None:
    """The device tree's string ends with NUL."""
    files = {"proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0"}

    assert probe_board(root=lay_out(tmp_path, RAM | files)).model == "NVIDIA Jetson Orin Nano Developer Kit"


def test_this_machine_can_be_probed() -> None:
    """Whatever runs the tests has memory and a processor."""
    board = probe_board()

    assert board.memory_bytes > 0
    assert board.cpu_count >= 1
