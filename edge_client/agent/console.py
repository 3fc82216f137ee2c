"""Output of a running client, for a person or for a program.

On a terminal the current phase is one live line; elsewhere plain lines come out, rarely enough for a log. With `--json`
standard output holds one JSON object per line and nothing else. Every object has `event`; the events are:

    data        format, compression, encoding, delimiter, shape, columns, ignored_columns, n_examples, n_train,
                n_held_out, n_skipped, left_out_from, left_out_files        how the board's text is read
    enrolled    device, run_id, server
    text_lengths    n_examples, n_measured, max_source_tokens, max_target_tokens, sources_cut, targets_cut (0…1),
                source_p50 … source_p100, target_p50 … target_p100: tokens that so many percent do not exceed
    plan        round, format, compute, device, micro_batch, checkpointing, cache, frozen_encoder, ranks_total,
                max_rank, weights, predicted_peak_bytes, budget_bytes
    probe       round, format, compute, device, micro_batch, checkpointing, cache, frozen_encoder,
                predicted_peak_bytes, peak_bytes, step_s        what a plan took when it was tried
    backed_off  message, and as in plan        memory ran short: the round goes on in this leaner way
    phase       phase (wait, measure, probe, profile, fetch, train, upload, evaluate, personal), round,
                version
    waiting     round, version       nothing to do until the server has more
    paused      round, message       the board may not train now, by --window, --below or --only-on-mains
    unpaused    round                it may again
    progress    phase (load, encode, profile, train, evaluate), round, step, steps, loss, tokens_per_s, peak_bytes,
                bytes_up, bytes_down; in phase base, where one comes from the hub, step and steps with their unit
    round_done  kind (profile, train), round, version, accepted, reason, bytes_up, bytes_down, and the worker's numbers:
                loss, tokens_per_s, seconds, peak_bytes, n_examples, held_out_loss
    own_strands round, loss, personal_loss, mix, n_examples, tokens_per_s, seconds, peak_bytes
                        the strands of this board alone have taken their steps
    evaluation  round, version, n_examples, loss, and where asked rouge1, rouge2, rougeL, exact_match (0…1); the same of
                the base, and of strands of the board's own, by the names of `braid_common.metrics`
    offline     message, hint        the server went away; the client keeps trying
    online      seconds              it is back
    notice      message, hint        anything else worth a line
    finished    rounds_done, bytes_up, bytes_down
    error       message, hint, exit_code        the last line of a client that failed

`bytes_up` and `bytes_down` count since the client started; losses are mean negative log-likelihoods per target token.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from braid_common.terminal import moves_cursor
from braid_common.units import show_seconds, show_size

PLAIN_EVERY_S = 10.0
"""A progress line in a log at most this often."""

LIVE_EVERY_S = 0.2
"""A terminal's live line is redrawn at most this often."""

JSON_EVERY_S = 0.5
"""A `progress` object at most this often."""

_BAR_CELLS = 20


class Console:
    """Writes events to `stream`. Errors of the stream itself (a closed pipe) are not caught: SIGPIPE's usual end."""

    def __init__(
        self, *, as_json: bool = False, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stdout
        self._as_json = as_json
        self._live = not as_json and moves_cursor(self._stream)
        self._every_s = JSON_EVERY_S if as_json else LIVE_EVERY_S if self._live else PLAIN_EVERY_S
        self._clock = clock
        self._drawn_s = float("-inf")
        self._line_open = False
        self._phase: tuple[str, int | None] = ("", None)
        self._step = 0
        self._began_s = 0.0

    def event(self, name: str, text: str = "", **fields: Any) -> None:
        """One thing that happened: its object in JSON mode, else `text` as a line ("" prints nothing)."""
        if self._as_json:
            self._write(json.dumps({"event": name, **fields}) + "\n")
        elif text:
            self._write(self._wipe() + text + "\n")

    def notice(self, message: str, hint: str = "") -> None:
        self.event("notice", message + (f"\n  → {hint}" if hint else ""), message=message, hint=hint)

    def progress(self, *, phase: str, round: int | None = None, step: int, steps: int, **fields: Any) -> None:
        """How far the current phase is. Calls that come too often are dropped, the first and the last are not."""
        now_s = self._clock()
        began, self._step = (phase, round) != self._phase or step < self._step, step
        if began:  # also where the same phase begins anew: an evaluation reads all texts, then writes all of them
            self._phase, self._began_s = (phase, round), now_s
        elif now_s - self._drawn_s < self._every_s and step < steps:
            return
        self._drawn_s = now_s
        if self._as_json:
            self.event("progress", phase=phase, round=round, step=step, steps=steps, **fields)
            return
        text = progress_text(phase, round, step, steps, elapsed_s=now_s - self._began_s, **fields)
        if self._live:
            self._write(self._wipe() + text[: shutil.get_terminal_size().columns - 1])
            self._line_open = True
        else:
            self._write(text + "\n")

    def close(self) -> None:
        """Remove the live line."""
        self._write(self._wipe())

    def _wipe(self) -> str:
        was_open, self._line_open = self._line_open, False
        return "\r\x1b[2K" if was_open else ""

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()


def progress_text(phase: str, round: int | None, step: int, steps: int, *, elapsed_s: float, **fields: Any) -> str:
    """One line: bar, steps, loss, speed, peak memory, traffic, time left."""
    share = min(step / steps, 1.0) if steps else 0.0
    filled = int(share * _BAR_CELLS)
    place = phase if round is None else f"round {round} {phase:<8}"
    unit = f" {fields['unit']}" if "unit" in fields else ""
    parts = [f"{place} {'█' * filled}{'░' * (_BAR_CELLS - filled)} {step}/{steps}{unit}"]
    if fields.get("loss"):  # 0 means that nothing has been measured yet
        parts.append(f"loss {fields['loss']:.3f}")
    if fields.get("tokens_per_s"):
        parts.append(f"{fields['tokens_per_s']:.0f} tokens/s")
    if fields.get("peak_bytes"):
        parts.append(f"peak {show_size(fields['peak_bytes'])}")
    if "bytes_up" in fields:
        parts.append(f"up {show_size(fields['bytes_up'])} down {show_size(fields['bytes_down'])}")
    if 0.0 < share < 1.0:
        parts.append(f"{show_seconds(int(elapsed_s / share - elapsed_s))} left")
    return " · ".join(parts)
