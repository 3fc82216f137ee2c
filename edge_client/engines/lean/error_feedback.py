"""Error feedback: what quantisation drops of an upload stays on the board and is added to the next one.

Seide et al. 2014 (1-bit SGD); Karimireddy et al. 2019 (arXiv 1901.09847). What is sent then adds up to what was
trained to within one quantisation step, however many rounds pass.

What a weight's upload lacked is kept as a product D = L·R, L (m, k), R (k, n): what B·A was to be, less what was sent.
For the factors of one round need not mean anything in the next: bases turn, the server's SVD mixes strands and flips
their signs, ranks change; and boards are not told by which rule they are merged. In the next round D is read into the
factors that are trained there, ⁺ being the pseudo-inverse:

    B        B + D·A⁺          on an orthonormal basis, E·A_t·A_{t+1}ᵀ for what B_t lacked, E
    A        A + B⁺·D
    both     A + B⁺·D,  B + (D - B·B⁺·D)·A⁺        exact to first order: what B·A can express in its tangent space

What lies outside of these rows and columns is lost. A board that draws rows of its own has others in the next round,
which hold next to nothing of D: it keeps none.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.tensor_file import load_tensors, save_tensors
from edge_client.jobs.messages import TrainJob
from wire.messages import Tensor as WireTensor
from wire.messages import Trains, Update, UpdatePart
from wire.tensors import unpack

WEAKEST_SHARE = 1e-2
"""Directions of B or A weaker than this part of the strongest carry nothing over: it would take steps a hundred times
as long as those it stands for, which the next quantisation would pay with its step."""


class ErrorFeedback:
    """The residuals of one board in one run, in the file `job.residual_path`.

    The file holds two generations: what the newest update lacked, and what the one before had lacked. It is written
    just before the result. A board that dies in between does the round's end again, and finds by round and version
    that the newest generation is this very round's own: it then adds the one before, as it did the first time, so that
    nothing is added twice. Once a result is there, its residual counts as the newest whether the server takes the
    update, refuses it or has closed the round: what a refused update carried over from before is gone with it.

    `is_lost`: a file was there that is damaged or of another run, and residuals start from zero.
    """

    def __init__(self, job: TrainJob) -> None:
        settings = job.run.settings
        keeps = job.residual_path and settings.upload in ("int8", "int4") and not settings.own_basis
        self._path = Path(job.residual_path) if keeps else None
        self._key = hashlib.sha256(f"{job.run.run_id} {job.run.manifest} {job.board_id}".encode()).hexdigest()
        self._task = {"round": float(job.spec.round), "version": float(job.spec.version)}
        self._trains: Trains = job.spec.trains
        earlier = _earlier(self._path, self._key, self._task) if self._path else {}
        self._residuals = earlier or {}
        self.is_lost = earlier is None and self._path is not None and self._path.exists()

    def added(self, trained: Mapping[str, Factors]) -> dict[str, Factors]:
        """The factors that are to be sent: those `trained` (on the CPU), with what earlier uploads lacked."""
        return {
            name: read_in(self._residuals[name], factors, self._trains) if name in self._residuals else factors
            for name, factors in trained.items()
        }

    def keep(self, wanted: Mapping[str, Factors], update: Update) -> None:
        """Write the residuals of an upload: what `update` lacks of `wanted`, which `added` gave.

        Residuals of weights that were not trained this time stay. Raises DiskError.
        """
        if self._path is None:
            return
        lacked = {part.name: dropped(wanted[part.name], part) for part in update.parts if part.name in wanted}
        tensors = _named("now", self._residuals | lacked) | _named("before", self._residuals)
        save_tensors(self._path, self._key, tensors, self._task | {"crc32": _checksum(tensors, self._task)})


def dropped(wanted: Factors, sent: UpdatePart) -> Factors:
    """The residual of an upload, D = B·A - B̂·Â: what it lacks of a product.

    Args:
        wanted: b (m, r) and a (r, n), what was to be sent.
        sent: the quantised B̂ and Â. A factor that is not in it was not trained, and is on the server as it is.

    Returns:
        D as factors b (m, k), a (k, n) fp32, k = r for each factor that was sent.
    """
    # D = (B - B̂)·A + B̂·(A - Â): a term for each factor that was rounded, side by side in one pair of factors.
    lefts, rights, b = [], [], wanted.b
    if sent.b.shape[1]:
        b = _array(sent.b)
        lefts.append(wanted.b - b)
        rights.append(wanted.a.float())
    if sent.a is not None:
        lefts.append(b)
        rights.append(wanted.a - _array(sent.a))
    return Factors(torch.cat(lefts, 1), torch.cat(rights))


def read_in(residual: Factors, factors: Factors, trains: Trains) -> Factors:
    """Add a residual to a round's factors, as far as the factors that are trained can express it.

    Args:
        residual: D as b (m, k), a (k, n).
        factors: B (m, r) and A (r, n), fp32.
        trains: which of B and A the round sends.

    Returns:
        The factors with the residual. Where they are not finite they come back as they are: packing refuses them with
        the reason.
    """
    left, right, b, a = residual.b, residual.a, factors.b, factors.a
    if not (torch.isfinite(b).all() and torch.isfinite(a).all()):
        return factors
    if trains != "b":
        into_a = _inverse(b) @ left  # B⁺·L (r, k): what of D lies in B's columns goes into A
        left = left - b @ into_a  # (I - B·B⁺)·L is left for B
        a = a + into_a @ right
    if trains != "a":
        # L·R·A⁺ (m, r) on the A that was just corrected; R·A⁺ comes first, being k × r.
        b = b + left @ (right @ _inverse(factors.a.t()).t())
    return Factors(b, a)


def _inverse(tall: Tensor) -> Tensor:
    """The pseudo-inverse (r, m) of a matrix (m, r) without its weakest directions. Gram matrices square the condition,
    hence float64."""
    exact = tall.double()
    gram = exact.t() @ exact
    inverse: Tensor = torch.linalg.pinv(gram, rtol=WEAKEST_SHARE**2, hermitian=True)
    return (inverse @ exact.t()).float()


def _array(tensor: WireTensor) -> Tensor:
    return torch.from_numpy(unpack(tensor).copy())


# --- the file ---------------------------------------------------------------------------------------------------------


def _named(generation: str, residuals: Mapping[str, Factors]) -> dict[str, Tensor]:
    lefts = {f"{generation}.left.{name}": residual.b for name, residual in residuals.items()}
    return lefts | {f"{generation}.right.{name}": residual.a for name, residual in residuals.items()}


def _earlier(path: Path, key: str, task: Mapping[str, float]) -> dict[str, Factors] | None:
    """The residuals that rounds before this one left, views of the file; None where there is none, or it is damaged or
    of another run."""
    saved = load_tensors(path, key)
    if saved is None:
        return None
    tensors, numbers = saved.read_all(), dict(saved.numbers)
    if numbers.pop("crc32", None) != _checksum(tensors, numbers):
        return None
    # A newest generation of this very round was written by its first try, which died before its result was out.
    generation = "before" if numbers == task else "now"
    left, right = f"{generation}.left.", f"{generation}.right."
    names = [name.removeprefix(left) for name in tensors if name.startswith(left)]
    return {name: Factors(tensors[left + name], tensors[right + name]) for name in names}


def _checksum(tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> float:
    """A CRC-32 over the whole content of the file. safetensors has none, and a flipped bit would be sent."""
    checksum = zlib.crc32(repr(sorted(numbers.items())).encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.numpy().tobytes(), checksum)
    return float(checksum)
