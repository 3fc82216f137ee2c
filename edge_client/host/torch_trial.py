"""A trial of torch on this board: one product for each device, dtype and number of threads, each in a child of its own.

A build for another processor dies at its import, at the first product, or at the first on several threads. A child that
dies says which of these it was; the others go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edge_client.errors import ClientError, TorchError
from edge_client.host.deaths import torch_version
from edge_client.host.forked import ForkedError, run_forked
from edge_client.host.processors import usable_processors
from edge_client.host.torch_build.choose import remedy
from edge_client.host.torch_build.facts import read_facts
from edge_client.host.worker_memory import is_out_of_memory, offer_to_oom_killer, prepare_for_training
from edge_client.jobs.messages import Compute, Device

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SHAPE = (256, 512, 256)
"""Tokens, rows and columns of a product: large enough for every library to split it over threads."""

DTYPES: tuple[Compute, ...] = ("fp32", "bf16")

ONE_THREAD = "with one thread it works: `threads = 1` in edge-client.toml (--threads 1) is slower, and trains meanwhile"
"""Last resort of a board whose torch dies on several threads only."""

_IF_KILLED = ("torch took more memory than this board has", "stop other programs on this board, and see `free -m`")


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """One product that was tried.

    Attributes:
        threads: on which it was split; 1 on a GPU.
        message, hint: why it failed, "" where it worked.
        exit_code: what a client would end with because of it, 0 where it worked.
    """

    device: Device
    dtype: Compute
    threads: int
    message: str = ""
    hint: str = ""
    exit_code: int = 0


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found out about torch on this board.

    Attributes:
        version: torch's.
        cuda: version of CUDA that it is built for, "" for a build for processors.
        gpu: name of the GPU that it reaches, "" for none.
        products: all that were tried.
    """

    version: str
    cuda: str = ""
    gpu: str = ""
    products: tuple[Product, ...] = ()

    @property
    def failed(self) -> tuple[Product, ...]:
        """The products that did not work."""
        return tuple(product for product in self.products if product.exit_code)


def try_torch(threads: int = 0) -> Trial:
    """Try torch in child processes; `threads` 0 stands for all that this process may use.

    Call it while this process has one thread. Raises ForkedError where torch cannot even be imported, or dies at it.
    """
    most = threads or usable_processors()
    return run_forked(lambda: _try_all(most), Trial, who="importing torch", if_killed=_IF_KILLED, uses_torch=True)


def advice(products: Sequence[Product]) -> str:
    """The next step where some products of a trial failed, "" where none did."""
    failed = [product for product in products if product.exit_code]
    if not failed:
        return ""
    alone = [product for product in products if product.threads == 1 and product.device == "cpu"]
    needs_one = all(product.threads > 1 for product in failed) and alone and not any(p.exit_code for p in alone)
    return f"{failed[0].hint}; {ONE_THREAD}" if needs_one else failed[0].hint


@contextmanager
def loading_torch() -> Iterator[None]:
    """A place for the import of torch, or of what imports it: where that fails, it is a TorchError that names the build
    for this board."""
    try:
        yield
    except (ImportError, OSError) as error:
        message = f"torch {torch_version()} is installed but cannot be loaded: {error}"
        raise TorchError(message, remedy(read_facts())) from error


def _try_all(most_threads: int) -> Trial:
    """Import torch, in a child, and try each product in a child of that one, before any thread was started."""
    offer_to_oom_killer()
    prepare_for_training()
    with loading_torch():
        import torch
    try:
        gpu = _forked(_gpu_name, str, "looking for a GPU") if torch.version.cuda else ""
    except ForkedError as error:
        gpu = ""
        products = [Product(device="cuda", dtype="fp32", threads=1, **_why(error))]
    else:
        products = [_try("cuda", dtype, 1) for dtype in DTYPES] if gpu else []
    counts = sorted({1, most_threads})
    products += [_try("cpu", dtype, threads) for threads, dtype in itertools.product(counts, DTYPES)]
    return Trial(version=str(torch.__version__), cuda=torch.version.cuda or "", gpu=gpu, products=tuple(products))


def _try(device: Device, dtype: Compute, threads: int) -> Product:
    on = "the GPU" if device == "cuda" else "one thread" if threads == 1 else f"{threads} threads"
    try:
        _forked(lambda: _multiply(device, dtype, threads), bool, f"a product in {dtype} on {on}")
    except ForkedError as error:
        return Product(device=device, dtype=dtype, threads=threads, **_why(error))
    return Product(device=device, dtype=dtype, threads=threads)


def _forked(call: Callable[[], T], kind: type[T], who: str) -> T:
    return run_forked(call, kind, who=who, if_killed=_IF_KILLED, uses_torch=True)


def _why(error: ClientError) -> dict[str, Any]:
    return {"message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}


def _gpu_name() -> str:
    import torch

    return str(torch.cuda.get_device_properties(0).name) if torch.cuda.is_available() else ""


def _multiply(device: Device, dtype: Compute, threads: int) -> bool:
    """A forward and a backward product, whose results are numbers."""
    import torch

    torch.set_num_threads(threads)
    tokens, rows, columns = SHAPE
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    try:
        x, weight = (torch.ones(n, columns, dtype=kind, device=device) for n in (tokens, rows))
        grad = torch.mm(torch.mm(x, weight.t()), weight)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise TorchError(*_IF_KILLED) from error
        raise TorchError(
            f"a product in {dtype} on {device} fails: {_first_line(error)}", remedy(read_facts())
        ) from error
    _check(grad, float(rows * columns))
    return True


def _check(result: torch.Tensor, expected: float) -> None:
    """Raise TorchError where a product of ones is not what it must be: sums of so many ones are exact in fp32, and in
    bf16 powers of two are."""
    if not bool((result.float() == expected).all()):
        found = float(result.float().flatten()[0])
        raise TorchError(f"torch multiplies wrongly: {found:g} instead of {expected:g}", remedy(read_facts()))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]
