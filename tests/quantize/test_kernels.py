"""Which code unpacks nf4: the choice, its reason, and that a GPU without a kernel cannot take this process along."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from edge_client.host.matmul_speed import MatmulSpeed
from edge_client.host.torch_trial import Trial
from quantize import kernel_trial, kernels, nf4
from quantize.kernels import BITSANDBYTES, ON_SHARED_MEMORY, PLAIN_TORCH, Kernel, as_line, nf4_kernel
from quantize.nf4 import to_nf4, unpack_with_torch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_choice_yet() -> Iterator[None]:
    """The choice is made once in a process; here it is made anew in every test."""
    nf4_kernel.cache_clear()
    yield
    nf4_kernel.cache_clear()


@pytest.fixture
def self_test(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the self-test's process end as told, on a machine with bitsandbytes."""

    def ends(status: int = 0, stdout: str = "", stderr: str = "") -> None:
        code = "import sys; sys.stdout.write(sys.argv[2]); sys.stderr.write(sys.argv[3]); sys.exit(int(sys.argv[1]))"
        real = subprocess.run
        command = [sys.executable, "-c", code, str(status), stdout, stderr]
        monkeypatch.setattr(kernels.subprocess, "run", lambda given, **options: real(command, **options))
        monkeypatch.setattr(kernels, "find_spec", lambda name: object())

    return ends


def test_a_processor_takes_plain_torch_and_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes' import would cost more memory than its speed is worth; no process is started to find out."""
    monkeypatch.setattr(kernels.subprocess, "run", lambda *_, **__: pytest.fail("started"))

    assert nf4_kernel("cpu") == Kernel(PLAIN_TORCH, kernels.ON_PROCESSOR)


def test_without_bitsandbytes_a_gpu_takes_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is that it is not installed."""
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)

    assert nf4_kernel("cuda") == Kernel(PLAIN_TORCH, "bitsandbytes is not installed")


def test_a_self_test_that_passes_is_believed(self_test: Any) -> None:
    """What its last line says is the choice, whatever a library printed before."""
    chosen = Kernel(BITSANDBYTES, "the same numbers")
    self_test(stdout=f"a library's banner\n{as_line(chosen)}\n")

    assert nf4_kernel("cuda") == chosen


@pytest.mark.parametrize(
    ("status", "stdout"), [(1, ""), (0, ""), (0, "no JSON"), (0, "[]"), (0, '{"name": "x"}'), (1, '{"name": "x"}')]
)
def test_a_self_test_that_dies_means_plain_torch(self_test: Any, status: int, stdout: str) -> None:
    """bitsandbytes exits where it has no kernel image; its last words are the reason."""
    self_test(status, stdout, "loading\nError no kernel image is available for execution on the device\n")

    kernel = nf4_kernel("cuda")

    assert kernel.name == PLAIN_TORCH
    assert "no kernel image" in kernel.reason


def test_a_self_test_that_hangs_means_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after a while."""

    def hang(command: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(kernels.subprocess, "run", hang)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())

    assert "did not finish" in nf4_kernel("cuda").reason


def test_equal_numbers_choose_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the self-test's process: the same values in bf16 and fp32."""
    monkeypatch.setattr(kernel_trial, "unpack_with_bitsandbytes", unpack_with_torch)

    assert kernel_trial.try_kernel(CPU).name == BITSANDBYTES


def test_one_other_number_is_enough_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is off by one rounding in one value is not taken."""

    def nearly(codes: Any, absmax: Any, out: Any) -> None:
        unpack_with_torch(codes, absmax, out)
        out[777] = torch.nextafter(out[777], torch.tensor(9, dtype=out.dtype))

    monkeypatch.setattr(kernel_trial, "unpack_with_bitsandbytes", nearly)

    assert kernel_trial.try_kernel(CPU) == Kernel(PLAIN_TORCH, "bitsandbytes' kernel gives other numbers on this GPU")


@pytest.mark.parametrize("error", [RuntimeError("library not loaded"), ImportError("no module"), OSError("no libcuda")])
def test_a_kernel_that_raises_is_not_taken(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first line is in the reason."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(kernel_trial, "unpack_with_bitsandbytes", fail)

    assert str(error) in kernel_trial.try_kernel(CPU).reason


def test_a_gpu_that_shares_memory_takes_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Jetson bitsandbytes is not even imported."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(is_integrated=1))

    assert kernel_trial.try_kernel(torch.device("cuda")) == Kernel(PLAIN_TORCH, ON_SHARED_MEMORY)


def test_the_choice_is_what_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dense` and `dense_rows` go through the chosen kernel, with codes and scales that begin where the rows do."""
    calls = []

    def counted(codes: Any, absmax: Any, out: Any) -> None:
        calls.append(len(out))
        unpack_with_torch(codes, absmax, out)

    weight = to_nf4(torch.randn(6, 64, generator=torch.Generator().manual_seed(1)))
    expected = weight.dense(torch.float32)
    monkeypatch.setattr(nf4, "nf4_kernel", lambda device_type: Kernel(BITSANDBYTES, ""))
    monkeypatch.setattr(nf4, "unpack_with_bitsandbytes", counted)

    assert torch.equal(weight.dense(torch.float32), expected)
    assert torch.equal(weight.dense_rows(slice(2, 5), torch.float32), expected[2:5])
    assert calls == [6 * 64, 3 * 64]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitsandbytes_fills_the_same_numbers(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that a GPU gets, with rows from the middle of a matrix, here through its processor's kernel, which has
    no form that writes into given memory."""
    functional = pytest.importorskip("bitsandbytes.functional")

    def on_processor(codes: Any, *, absmax: Any, out: Any, blocksize: int, quant_type: str) -> None:
        unpack = torch.ops.bitsandbytes.dequantize_4bit.default
        out.copy_(unpack(codes, absmax, blocksize, quant_type, out.shape, out.dtype).view(-1))

    monkeypatch.setattr(functional, "dequantize_4bit", on_processor)
    weight = to_nf4(torch.randn(48, 64, generator=torch.Generator().manual_seed(5)))
    theirs, ours = torch.empty(2, 20 * 64, dtype=dtype)

    nf4.unpack_with_bitsandbytes(weight.codes[7 * 32 :], weight.absmax[7:], theirs)

    unpack_with_torch(weight.codes[7 * 32 :], weight.absmax[7:], ours)
    assert torch.equal(theirs, ours)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_processors_numbers() -> None:
    """Whatever is chosen on this machine's GPU, in bf16 and fp32."""
    weight = to_nf4(torch.randn(130, 192, generator=torch.Generator().manual_seed(5)))

    print(nf4_kernel("cuda"))
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(weight.to(torch.device("cuda")).dense(dtype).cpu(), weight.dense(dtype))


@pytest.mark.parametrize(
    ("torch_is_there", "measured", "shown"),
    [
        (True, None, "plain torch (bitsandbytes would be faster, but importing it takes 118 MiB)"),
        (True, "cuda", "bitsandbytes (the same numbers)"),
        (False, None, "none (torch is not installed)"),
    ],
)
def test_doctor_says_what_unpacks(
    torch_is_there: bool, measured: str | None, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Name and reason, as a line and as JSON's `nf4` and `nf4_reason`; without a measurement, the processor's."""
    from edge_client.cli import doctor

    arithmetic = measured and MatmulSpeed(
        key="",
        device="cuda",
        device_name="a card",
        device_memory_bytes=1 << 30,
        bf16_gflops=9.0,
        fp32_gflops=1.0,
        threads=0,
        torch="2",
    )
    chosen = Kernel(BITSANDBYTES, "the same numbers")
    monkeypatch.setattr(doctor, "look_up_matmul_speed", lambda state: arithmetic or None)
    monkeypatch.setattr(doctor, "nf4_kernel", lambda device: chosen if device == "cuda" else nf4_kernel(device))
    monkeypatch.setattr(doctor, "find_spec", lambda name: object() if torch_is_there else None)
    monkeypatch.setattr(doctor, "require_packages", lambda: None)
    monkeypatch.setattr(doctor, "try_torch", lambda: Trial(version="2"))

    line = CliRunner().invoke(doctor.doctor, ["--state", str(tmp_path)])
    facts = CliRunner().invoke(doctor.doctor, ["--state", str(tmp_path), "--json"])

    assert f"4-bit base  {shown}" in line.output
    assert shown == f"{json.loads(facts.output)['nf4']} ({json.loads(facts.output)['nf4_reason']})"


def test_the_choice_needs_no_torch() -> None:
    """`edge-client doctor` asks for it and must stay small."""
    script = "import sys; from quantize.kernels import nf4_kernel; nf4_kernel('cpu'); assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
