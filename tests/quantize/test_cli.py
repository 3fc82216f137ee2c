"""`quantize report` and `quantize convert`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from quantize.base import FORMATS, load_base
from quantize.cli import main
from quantize.writer import convert
from tests.fakes.hub import loopback_hub
from tests.fakes.models.flan_t5 import XL, tiny_xl_repo, use_hub


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def test_help_and_version_as_every_command_here_has_them() -> None:
    """-h is --help, on the commands as well, and --version names the distribution's."""
    assert run("-h").output == run("--help").output
    assert run("convert", "-h").exit_code == 0
    assert run("--version").output == f"quantize, version {version('braid-fl')}\n"


def test_report_prints_a_table(config: Any, tensors: Any, make_base: Any) -> None:
    """One line per format under a header, then what must be known about the numbers."""
    result = run("report", str(make_base(config, tensors)))

    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == ["format", *FORMATS, "note:"]


def test_a_folder_that_is_no_base_is_one_sentence(tmp_path: Path) -> None:
    """No traceback, exit status 1."""
    result = run("report", str(tmp_path / "nothing"))

    assert result.exit_code == 1
    assert result.output.startswith(f"Error: base model folder {tmp_path / 'nothing'} does not exist")


def test_there_and_back_is_lossless_after_the_first_rounding(
    config: Any, tensors: Any, make_base: Any, tmp_path: Path
) -> None:
    """fp32 → int8 → fp32 → int8 gives the same values as the first int8, and files beside the weights travel along."""
    folder = make_base(config, tensors)
    (folder / "tokenizer.json").write_text("{}")
    for source, format, target in (("base", "int8", "i8"), ("i8", "fp32", "f32"), ("f32", "int8", "again")):
        result = run("convert", str(tmp_path / source), "--format", format, "--out", str(tmp_path / target))
        assert result.exit_code == 0, result.output

    first, again = load_base(tmp_path / "i8", "int8"), load_base(tmp_path / "again", "int8")
    for name, weight in first.weights.items():
        torch.testing.assert_close(
            again.weights[name].dense(torch.float32), weight.dense(torch.float32), atol=0, rtol=3e-7
        )
    assert (tmp_path / "again" / "tokenizer.json").read_text() == "{}"


def test_an_existing_folder_is_never_overwritten(config: Any, tensors: Any, make_base: Any) -> None:
    """convert wants a new folder and leaves nothing half-written behind."""
    folder = make_base(config, tensors)

    result = run("convert", str(folder), "--format", "int8", "--out", str(folder))

    assert result.exit_code == 1
    assert "exists already" in result.output
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_leaving_nf4_is_told(config: Any, tensors: Any, make_base: Any, tmp_path: Path) -> None:
    """nf4 → fp32 brings nothing back, and convert says so; fp32 → nf4 needs no such word."""
    there = run("convert", str(make_base(config, tensors)), "--format", "nf4", "--out", str(tmp_path / "nf4"))
    back = run("convert", str(tmp_path / "nf4"), "--format", "fp32", "--out", str(tmp_path / "fp32"))

    assert "stays lost" not in there.output
    assert "stored in nf4; what that lost of the original stays lost" in back.output


def test_long_work_tells_how_far_it_is(
    config: Any, tensors: Any, make_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal: plain lines on stderr, up to 100 %, and none of them in what is printed."""
    monkeypatch.setattr("quantize.cli.LINE_EVERY_S", 0.0)

    result = run("convert", str(make_base(config, tensors)), "--format", "nf4", "--out", str(tmp_path / "out"))

    lines = result.stderr.splitlines()
    assert len(lines) > 3
    assert lines[-1] == f"writing {tmp_path / 'out'}: 100%"
    assert result.stdout.startswith("wrote ")


def test_an_unknown_format_is_a_usage_error(config: Any, tensors: Any, make_base: Any, tmp_path: Path) -> None:
    """The formats are listed, and nothing is written."""
    result = run("convert", str(make_base(config, tensors)), "--format", "int3", "--out", str(tmp_path / "out"))

    assert result.exit_code == 2
    assert "'nf4'" in result.output
    assert not (tmp_path / "out").exists()


def test_damage_in_mid_conversion_leaves_no_folder(config: Any, tensors: Any, make_base: Any, tmp_path: Path) -> None:
    """A NaN in the last tensor: the error is a sentence, and `out` does not appear."""
    tensors["decoder.final_layer_norm.weight"].fill_(float("nan"))
    folder = make_base(config, tensors)

    result = run("convert", str(folder), "--format", "fp32", "--out", str(tmp_path / "out"))

    assert result.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_help_needs_no_torch() -> None:
    """The command answers `--help` without importing torch."""
    script = "import sys; from quantize.cli import main; main(['--help'], standalone_mode=False)"
    script += "; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=Path(__file__).parents[2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_a_converted_folder(config: Any, tensors: Any, make_base: Any, tmp_path: Path) -> None:
    """int8 rows → fp32 is a plain Hugging Face folder: from_pretrained finds every key, with the values of int8."""
    transformers = pytest.importorskip("transformers")
    convert(make_base(config, tensors), "int8", tmp_path / "i8")
    convert(tmp_path / "i8", "fp32", tmp_path / "f32")

    model, info = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "f32", output_loading_info=True)

    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = model.state_dict()
    for name, weight in load_base(tmp_path / "i8", "int8").weights.items():
        assert torch.equal(state[f"{name}.weight"], weight.dense(torch.float32)), name


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.9999])
@pytest.mark.parametrize("format", ["fp32", "int8", "nf4"])
def test_a_truncated_base_is_one_sentence(
    config: Any, tensors: Any, make_base: Any, tmp_path: Path, format: str, share: float
) -> None:
    """Full precision, int8 rows and nf4 blocks, cut anywhere: both commands say so, and no new folder appears."""
    convert(make_base(config, tensors), format, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    os.truncate(weights, int(share * weights.stat().st_size))

    report = run("report", str(tmp_path / "cut"))
    converted = run("convert", str(tmp_path / "cut"), "--format", "fp32", "--out", str(tmp_path / "out"))

    for result in (report, converted):
        assert result.exit_code == 1
        assert "damaged or truncated" in result.output
        assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_sentence(config: Any, tensors: Any, make_base: Any, tmp_path: Path) -> None:
    """The real command under a real limit on file sizes: no traceback, nothing half-written."""
    folder = make_base(config, tensors)
    command = [
        Path(sys.executable).parent / "quantize",
        "convert",
        folder,
        "--format",
        "fp32",
        "--out",
        tmp_path / "out",
    ]

    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )

    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot write")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_missing_torch_is_one_sentence() -> None:
    """It says what to install."""
    script = "import sys; sys.modules['torch'] = None; from quantize.cli import main; main(['report', 'x'])"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])

    assert done.returncode == 1
    assert done.stderr == "Error: torch is not installed; install braid-fl[quant]\n"


@pytest.mark.slow
def test_the_builtin_base_becomes_a_checkpoint_of_transformers(tmp_path: Path) -> None:
    """`quantize convert builtin --format fp32` writes what transformers loads, its own head included."""
    from transformers import T5ForConditionalGeneration

    result = run("convert", "builtin", "--format", "fp32", "--out", str(tmp_path / "base"))
    model, info = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", output_loading_info=True)

    assert result.exit_code == 0
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not torch.equal(model.lm_head.weight, model.shared.weight)


def test_a_hub_id_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MODEL may be ORG/NAME: its two shards become one file in another format, and its tokenizer travels along."""
    with loopback_hub({XL: tiny_xl_repo()}) as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        result = run("convert", XL, "--format", "int8", "--out", str(tmp_path / "int8"))

    assert result.exit_code == 0, result.output
    assert "fetching google/flan-t5-xl@" in result.stderr and "wrote" in result.stdout
    assert {path.name for path in (tmp_path / "int8").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert load_base(tmp_path / "int8", "int8").weights.keys() >= {"shared", "lm_head"}


def test_what_the_hub_does_not_give_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1, the reason, and what to do."""
    with loopback_hub() as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        result = run("report", "a/b")

    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert f"{hub.url} has no model a/b, or it is private; check its spelling" in result.stderr
