"""The demo's display shows what boards say: a line of cells on a terminal or not."""

from __future__ import annotations

import io

from demo.display import COLUMNS, Display, bar, row, size
from demo.fleet import BoardSpec, BoardView

SPEC = BoardSpec("attic", "builtin:docstrings/json", "500MiB")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def view(*events: dict[str, object]) -> BoardView:
    board = BoardView(SPEC)
    for event in events:
        board.take(event)
    return board


def test_a_board_that_trains_shows_how_far_it_is() -> None:
    cells = row(
        view(
            {"event": "plan", "format": "nf4", "ranks_total": 120},
            {"event": "progress", "phase": "train", "step": 5, "steps": 20, "loss": 3.14159, "tokens_per_s": 1234.5},
            {"event": "progress", "phase": "train", "bytes_up": 1_400_000, "peak_bytes": 431 << 20, "loss": None},
        )
    )

    assert len(cells) == len(COLUMNS)
    assert cells[:4] == ("attic", "500MiB", "nf4", "120")
    assert cells[5] == "train ██······ 5/20"
    assert cells[6:10] == ("3.142", "1,234", "431 MiB", "1.4 MB")  # what an event does not say stays as it was


def test_an_end_is_shown_whatever_was_done_before() -> None:
    assert row(view({"event": "progress", "phase": "train"}, {"event": "error", "message": "no"}))[5] == "error"


def test_a_terminal_is_redrawn_and_a_pipe_gets_lines() -> None:
    outputs = []
    for stream in (Terminal(), io.StringIO()):
        display = Display(stream)
        for _ in range(2):
            display.show([view()], force=True)
        display.say("done")
        outputs.append(stream.getvalue())

    assert outputs[0].count("\x1b[2F\x1b[J") == 2
    assert "\x1b" not in outputs[1]
    assert all(text.endswith("done\n") and "attic" in text for text in outputs)


def test_sizes_and_bars() -> None:
    assert [size(n) for n in (None, 812_000, 1_400_000, 64 << 20)] == ["", "812 kB", "1.4 MB", "64 MiB"]
    assert bar(-1) == bar(0) == "·" * 8
    assert bar(2) == "█" * 8
