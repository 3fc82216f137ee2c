"""A small T5 on disk, non-square everywhere, its transformers original beside it, and a run on top of it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from braid_common.base.files import read_t5_config
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import EvaluateJob, Job, PersonalJob, Plan, ProbeJob, ProfileJob, TrainingMode, TrainJob
from tests.fakes.models.random_t5 import random_t5, save_base
from wire.checks import basis_rank
from wire.codec import encode
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Adapter, AdapterPart, RoundSpec, Trains
from wire.run import Base, RunInfo, TrainSettings
from wire.tensors import pack

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

VOCABULARY = 96
MAX_RANK = 12
JOB_TYPES: dict[str, Any] = {
    "probe": ProbeJob,
    "profile": ProfileJob,
    "train": TrainJob,
    "personal": PersonalJob,
    "evaluate": EvaluateJob,
}
WORDS = [f"w{i}" for i in range(VOCABULARY - 3)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share the machine's few cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reference() -> T5ForConditionalGeneration:
    """transformers' model: d_model 32, inner 24, d_ff 40, untied head."""
    model = random_t5(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        num_heads=3,
        d_ff=40,
        num_layers=2,
        num_decoder_layers=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=12,
    )
    gc.freeze()  # transformers is loaded now, and stays: tests/conftest.py says why
    return model


@pytest.fixture(scope="session")
def base_folder(reference: T5ForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a base: config.json, tokenizer.json, model.safetensors."""
    folder = tmp_path_factory.mktemp("base")
    save_base(reference, folder)
    pieces = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {word: i + 3 for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 examples whose target is the reversed start of the source, of unequal length."""
    path = tmp_path_factory.mktemp("data") / "text.jsonl"
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(40):
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(3, 14))]
        lines.append(json.dumps({"source": " ".join(words), "target": " ".join(reversed(words[:4]))}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def make_run(base_folder: Path) -> Callable[..., RunInfo]:
    """A run over all weights; keyword arguments change its settings."""

    def make(**changes: Any) -> RunInfo:
        settings = TrainSettings(
            scope="all",
            learning_rate=1e-2,
            batch=6,
            micro_batch=4,
            local_steps=4,
            max_source_tokens=16,
            max_target_tokens=8,
            sketch_batches=3,
            upload="fp32",
        )
        settings = msgspec.structs.replace(settings, **changes)
        weights = t5_weights(read_t5_config(base_folder), settings.scope)
        return RunInfo(
            protocol=1,
            run_id="test",
            state="training",
            base=Base(model="small", digest="0" * 64),
            weights=weights,
            manifest=manifest_digest(weights),
            settings=settings,
            max_rank=MAX_RANK,
            server_rank=5,
            rounds=3,
            round=1,
            version=1,
        )

    return make


@pytest.fixture
def make_job(
    make_run: Callable[..., RunInfo], base_folder: Path, data_path: Path, tmp_path: Path
) -> Callable[..., Job]:
    """A training job, or one of another `kind`, with its adapter on disk. `ranks` repeats over the manifest; `settings`
    change the run's; with `starts` boards begin at a B that is not zero."""

    def make(
        kind: str = "train",
        ranks: tuple[int, ...] = (3, 0, 2),
        settings: dict[str, Any] | None = None,
        trains: Trains = "b",
        starts: bool = False,
        **changes: Any,
    ) -> Job:
        run = make_run(**(settings or {}))
        every = tuple(ranks[i % len(ranks)] for i in range(len(run.weights)))
        path = tmp_path / "round.adapter"
        path.write_bytes(encode(make_adapter(run, every, starts=starts)))
        fields: dict[str, Any] = {
            "base_folder": str(base_folder),
            "data": DataSpec(str(data_path)),
            "board_id": "board",
            "run": run,
            "spec": RoundSpec(round=1, version=1, seed=7, sketch=True, trains=trains),
            "plan": Plan(
                mode=TrainingMode(format="fp32", compute="fp32", micro_batch=4),
                ranks=every,
                predicted_bytes=0,
                expected_peak_bytes=0,
                budget_bytes=1 << 30,
            ),
            "adapter_path": str(path),
            "ranks": every,
            "result_path": str(tmp_path / "result"),
        }
        job_type = JOB_TYPES[kind]
        return job_type(**{name: fields[name] for name in job_type.__struct_fields__ if name in fields} | changes)

    return make


def make_adapter(run: RunInfo, ranks: tuple[int, ...], *, starts: bool = False) -> Adapter:
    """Version 1 with small random frozen factors of rank 0…server_rank, and orthonormal bases unless boards draw their
    own. With `starts` their B is random, else absent."""
    rng = np.random.default_rng(5)
    parts = []
    for i, (weight, rank) in enumerate(zip(run.weights, ranks, strict=True)):
        s = i % (run.server_rank + 1)
        columns = np.linalg.qr(rng.standard_normal((weight.columns, basis_rank(weight, run.max_rank))))[0]
        part = AdapterPart(
            name=weight.name,
            frozen_b=pack(0.1 * rng.standard_normal((weight.rows, s)), "fp32"),
            frozen_a=pack(rng.standard_normal((s, weight.columns)), "fp32"),
            basis=pack(columns.T[: 0 if run.settings.own_basis else rank], "fp32"),
            start_b=pack(0.1 * rng.standard_normal((weight.rows, rank)), "fp32") if starts else None,
        )
        parts.append(part)
    return Adapter(protocol=1, run_id=run.run_id, version=1, manifest=run.manifest, parts=tuple(parts))
