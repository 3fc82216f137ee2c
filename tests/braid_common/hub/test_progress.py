"""How far a download is: a live line on a terminal, few lines elsewhere, with sizes, speed and time left."""

from __future__ import annotations

import io

import pytest

from braid_common.hub.progress import StreamProgress

MIB = 1 << 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_live", [True, False])
def test_lines_have_sizes_speed_and_time_left(is_live: bool) -> None:
    """Redrawn in place on a terminal; a line in ten seconds elsewhere, and always the last one."""
    now_s = 0.0
    stream = Terminal() if is_live else io.StringIO()
    progress = StreamProgress(stream, lambda: now_s)

    progress.say("fetching a/b")
    for second in range(25):
        now_s = float(second)
        progress.moved((10 + 2 * second) * MIB, 60 * MIB)  # 10 MiB were here before
    now_s = 25.0
    progress.moved(60 * MIB, 60 * MIB)

    lines = stream.getvalue().replace("\r\x1b[2K", "\n" if is_live else "?").strip("\n").splitlines()
    assert lines[0] == "fetching a/b" and lines[-1] == "  60.0 MiB are here, after 25 s"
    assert "  30.0 MiB of 60.0 MiB, 2.00 MiB/s, 15 s left" in lines
    assert len([line for line in lines if line]) == (26 if is_live else 4)
