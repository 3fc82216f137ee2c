"""Pack a training run into the model folder: ``python -m builtin_base.training.pack --run RUN_DIR``.

Weights are stored in 8 bits so that the base fits into a wheel. Every matrix ``NAME`` of shape (rows, columns) is an
int8 tensor of that name and an fp32 tensor ``NAME.row_scale`` of shape (rows,); value = int8 · row_scale[row]. All
other tensors are fp32. The scores in the model card are measured on the packed weights, as a board will see them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import T5Config, T5ForConditionalGeneration

import builtin_base
from braid_common.text_form import DEFAULT_PREFIX
from builtin_base.training import architecture, mixture, train
from builtin_base.training.tokenizer import EOS_ID

FORMAT = "braid-int8-rows"
STORAGE = "int8-rows"
MAX_FOLDER_BYTES = 12_000_000
"""All files together; what the project is willing to carry in its repository and its wheel."""

_REPEATED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Names under which transformers repeats `shared.weight`."""

_SUFFIX = ".row_scale"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def pack_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Store matrices as int8 with one scale per row.

    Args:
        weights: a T5's state dict.

    Returns:
        int8 ``NAME`` and fp32 ``NAME.row_scale`` for each matrix, fp32 for the rest; no repeated embeddings. The
        error of a value is at most half its row's scale, which is the row's largest magnitude / 127.

    Raises:
        ValueError: if a value is not finite.
    """
    packed: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if name in _REPEATED:
            continue
        value = weight.detach().float().cpu()
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds values that are not finite: the run diverged, pack an earlier checkpoint")
        if value.ndim != 2:
            packed[name] = value.contiguous()
            continue
        largest = value.abs().amax(dim=1)  # (rows,)
        scale = torch.where(largest > 0, largest / 127.0, torch.ones_like(largest))
        packed[name] = (value / scale[:, None]).round().clamp(-127, 127).to(torch.int8).contiguous()
        packed[name + _SUFFIX] = scale.contiguous()
    return packed


def unpack_weights(packed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Restore fp32 weights from what `pack_weights` gave."""
    return {
        name: value.float() * packed[name + _SUFFIX][:, None] if value.dtype == torch.int8 else value
        for name, value in packed.items()
        if not name.endswith(_SUFFIX)
    }


def load(folder: Path) -> T5ForConditionalGeneration:
    """Load a packed folder as a transformers model in fp32, in evaluation mode.

    Raises:
        RuntimeError: if a tensor is missing, extra or misshapen.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = architecture.untied(T5Config(**settings))
    weights = unpack_weights(load_file(folder / "model.safetensors"))
    weights.update(dict.fromkeys(_REPEATED, weights["shared.weight"]))
    model.load_state_dict(weights)
    model.train(False)
    return model


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of lower-case words and numbers, 0..1 (Lin 2004, no stemming)."""
    ours, theirs = (re.findall(r"[a-z0-9]+", text.lower()) for text in (prediction, reference))
    lengths = [0] * (len(theirs) + 1)
    for word in ours:
        diagonal = 0
        for j, other in enumerate(theirs, start=1):
            diagonal, lengths[j] = lengths[j], diagonal + 1 if word == other else max(lengths[j], lengths[j - 1])
    return 2.0 * lengths[-1] / (len(ours) + len(theirs)) if lengths[-1] else 0.0


@torch.no_grad()
def write_summaries(
    model: T5ForConditionalGeneration, tokenizer: Tokenizer, sources: Sequence[Sequence[int]], batch_size: int = 32
) -> list[str]:
    """Write a summary line for each source by greedy decoding, at most `mixture.MAX_TARGET` pieces.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        sources: ids with prefix and eos, as `mixture.encode_source` gives them.
        batch_size: sources decoded together.
    """
    written: list[str] = []
    for start in range(0, len(sources), batch_size):
        rows = mixture.pad([_ids(source) for source in sources[start : start + batch_size]])
        ids = torch.from_numpy(rows)
        output = model.generate(  # type: ignore[misc]
            input_ids=ids, attention_mask=(ids != 0).long(), do_sample=False, max_new_tokens=mixture.MAX_TARGET
        )
        written += tokenizer.decode_batch([[int(i) for i in row if i > EOS_ID] for row in output])
    return written


def measure(folder: Path, held_out: mixture.Tokens, n_rouge: int) -> dict[str, Any]:
    """Score a packed folder on held-out text: losses and accuracies by task, and ROUGE-L on docstrings."""
    model, tokenizer = load(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    scores: dict[str, Any] = train.evaluate(model, held_out, n_batches=24)
    model.train(False)
    rows = [row for rows in held_out.pairs["docstring"].values() for row in rows]
    rows = [rows[i * len(rows) // n_rouge] for i in range(min(n_rouge, len(rows)))]
    references = tokenizer.decode_batch([[int(i) for i in target] for _, target in rows])
    written = write_summaries(model, tokenizer, [[int(i) for i in source] for source, _ in rows])
    names = [_signature_words(tokenizer.decode([int(i) for i in source])) for source, _ in rows]
    scores["rouge_l"] = _mean(rouge_l(w, r) for w, r in zip(written, references, strict=True))
    scores["rouge_l_of_name"] = _mean(rouge_l(n, r) for n, r in zip(names, references, strict=True))
    scores["n_rouge"] = len(rows)
    scores["samples"] = list(zip(references, written, strict=True))[:: max(1, len(rows) // 6)][:6]
    return scores


def pack(run: Path, out: Path, n_rouge: int, note: str = "") -> dict[str, Any]:
    """Pack the latest checkpoint of a run, measure it and write its card.

    Args:
        run: a folder of `builtin_base.training.train`.
        out: the model folder; its files are replaced one by one, each at once.
        n_rouge: held-out docstrings to write summaries for; 0 for none.
        note: a sentence about this run for the card: the machine, what went otherwise than usual.

    Returns:
        The scores.

    Raises:
        ValueError: if a weight is not finite or the folder would be larger than `MAX_FOLDER_BYTES`.
    """
    checkpoint = torch.load(run / train.CHECKPOINT, map_location="cpu", weights_only=True)
    fresh = out.with_name(out.name + ".tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(pack_weights(checkpoint["model"]), fresh / "model.safetensors", metadata={"format": FORMAT})
    for name in _TOKENIZER_FILES:
        shutil.copyfile(run / name, fresh / name)
    config = {
        **architecture.config(**_sizes(checkpoint["config"])).to_dict(),
        "architectures": ["T5ForConditionalGeneration"],
        "tie_word_embeddings": False,  # transformers 5 writes True for every T5
        "braid_storage": STORAGE,
    }
    (fresh / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    scores: dict[str, Any] = {}
    if n_rouge:
        scores = measure(fresh, train.prepare(run, [], None)[1], n_rouge)
    report = json.loads((run / "corpus.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    (fresh / "README.md").write_text(card(checkpoint, report, rows, scores, note), encoding="utf-8")
    size = folder_bytes(fresh)
    if size > MAX_FOLDER_BYTES:
        raise ValueError(f"the folder would take {size:,} bytes of the {MAX_FOLDER_BYTES:,} allowed")
    out.mkdir(exist_ok=True)
    for path in sorted(fresh.iterdir()):
        path.chmod(0o644)  # safetensors makes its file readable by its owner alone
        path.replace(out / path.name)
    fresh.rmdir()
    return scores


def folder_bytes(folder: Path) -> int:
    """Size of a folder's files, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir())


def card(
    checkpoint: Mapping[str, Any],
    report: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    note: str = "",
) -> str:
    """Write the model card from a checkpoint, the corpus's report, the run's log and the measured scores."""
    config = checkpoint["config"]
    n_values = sum(v.numel() for k, v in checkpoint["model"].items() if k not in _REPEATED)
    speeds = sorted(row["tokens_per_s"] for row in rows if "tokens_per_s" in row)
    speed = f"{speeds[len(speeds) // 2]:,}" if speeds else "?"
    template = (Path(__file__).resolve().parent / "card.md").read_text(encoding="utf-8")
    return template.format(
        n_values=f"{n_values / 1e6:.1f} million",
        architecture=(
            f"d_model {config['d_model']}, {config['num_heads']} heads of {config['d_kv']}, d_ff {config['d_ff']}, "
            f"{config['num_layers']} + {config['num_decoder_layers']} layers, {config['vocab_size']:,} pieces"
        ),
        minutes=f"{checkpoint['elapsed_s'] / 60.0:.0f}",
        steps=f"{checkpoint['step']:,}",
        tokens=f"{checkpoint['n_tokens'] / 1e6:.1f} million",
        speed=speed,
        corpus=_corpus_table(report),
        excluded=", ".join(f"`{name}`" for name in report["excluded_libraries"]),
        n_excluded=f"{report['excluded_texts']:,}",
        scores=_scores_table(scores),
        samples=_samples_table(scores.get("samples", [])),
        note=note,
        date=time.strftime("%Y-%m-%d"),
    )


def _corpus_table(report: Mapping[str, Any]) -> str:
    texts = {
        "docstring": f"docstrings of {len(report['packages']):,} Python packages and standard-library modules",
        "comment": "comment blocks of the same files",
        "debian": "Debian package descriptions",
        "manual": "English manual pages",
        "readme": "descriptions in packages' metadata",
        "doc": "texts under /usr/share/doc",
    }
    totals = Counter(report["document_bytes"])
    return "\n".join(
        f"| {texts[origin]} | {report['documents'][origin]:,} | {size / 1e6:.1f} MB "
        f"| {report['pairs'].get(origin, 0):,} |"
        for origin, size in totals.most_common()
    )


def _scores_table(scores: Mapping[str, Any]) -> str:
    if not scores:
        return "Not measured on this snapshot."
    perplexity = math.exp(scores["summary_loss"])
    return "\n".join(
        [
            "| measure | value |",
            "| --- | --- |",
            f"| restoring spans and sentinels: loss, nats per piece | {scores['span_loss']:.3f} |",
            f"| restoring spans and sentinels: likeliest piece is right | {100 * scores['span_accuracy']:.1f} % |",
            f"| summary line of a docstring: loss, nats per piece | {scores['summary_loss']:.3f} |",
            f"| the same as perplexity | {perplexity:.1f} |",
            f"| summary line: likeliest piece is right | {100 * scores['summary_accuracy']:.1f} % |",
            f"| summary line, greedy, ROUGE-L of {scores['n_rouge']} docstrings | {100 * scores['rouge_l']:.1f} |",
            f"| for comparison: the words of the function's own name | {100 * scores['rouge_l_of_name']:.1f} |",
        ]
    )


def _samples_table(samples: Sequence[tuple[str, str]]) -> str:
    rows = [f"| {_cell(reference)} | {_cell(written)} |" for reference, written in samples]
    return "\n".join(["| reference | written |", "| --- | --- |", *rows]) if rows else ""


def _signature_words(source: str) -> str:
    """Split the name in a source's first line into words: what somebody would answer who read nothing else."""
    name = source.removeprefix(DEFAULT_PREFIX.strip()).strip().partition("(")[0]
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name))


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("vocab_size", "d_model", "d_kv", "num_heads", "d_ff", "num_layers", "num_decoder_layers")
    return {name: config[name] for name in names}


def _ids(source: Sequence[int]) -> Any:
    return torch.tensor(source, dtype=torch.int32).numpy()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / max(len(listed), 1)


def main(argv: list[str] | None = None) -> int:
    """Pack and print the scores."""
    parser = argparse.ArgumentParser(prog="python -m builtin_base.training.pack", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of builtin_base.training.train")
    parser.add_argument("--out", type=Path, default=builtin_base.folder())
    parser.add_argument("--rouge", type=int, default=400, help="held-out docstrings to summarise; 0 measures nothing")
    parser.add_argument("--note", default="", help="a sentence about this run for the model card")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(json.dumps(pack(args.run, args.out, args.rouge, args.note), indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
