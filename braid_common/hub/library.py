"""The one place that knows huggingface_hub: what is asked of it, and its errors as ours.

It is optional, and loaded by the calls that need it. Its settings are the user's: HF_HOME and HF_HUB_CACHE (where the
cache lies), HF_ENDPOINT (a mirror), HF_TOKEN or a token that `hf auth login` has kept, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braid_common.hub.errors import HubDiskError, HubError, HubUnreachableError
from braid_common.hub.model_id import HubId

INSTALL_HINT = "run `pip install huggingface_hub`, or give a folder that holds the model"

OFFLINE = "HF_HUB_OFFLINE is set"

ANSWER_S = 30.0
"""The hub's list of a model's files is waited for this long."""

_TOKEN_HINT = "set HF_TOKEN to a token of yours that may read it (`hf auth login` keeps one)"  # noqa: S105 - a sentence


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a model. `digest`: SHA-256 where the hub keeps it as a large file, else ""."""

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a model at one commit, by name."""

    commit: str
    files: dict[str, HubFile]


def cache_root() -> Path | None:
    """The hub's cache folder; None where huggingface_hub is not installed. Loads only the library's constants."""
    try:
        from huggingface_hub import constants
    except (ImportError, ValueError):  # ValueError: an HF_ENDPOINT that no URL begins with
        return None
    return Path(constants.HF_HUB_CACHE)


def repo_folder(root: Path, repo: str) -> Path:
    """The folder of a model in the cache, as huggingface_hub's documentation lays it out."""
    return root / f"models--{repo.replace('/', '--')}"


def endpoint() -> str:
    """The address of the hub."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def prepare() -> None:
    """Load the library and keep it from drawing bars of its own. Raises HubError where it is not installed."""
    try:
        from huggingface_hub import file_download  # noqa: F401 - the part that every fetch needs
        from huggingface_hub.utils import logging
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise HubError("huggingface_hub is not installed, which fetches models from the hub", INSTALL_HINT) from error
    except ValueError as error:
        raise HubError(
            f"huggingface_hub cannot read its settings ({_reason(error)})", "check the variables that begin with HF_"
        ) from error
    if "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        disable_progress_bars()
    if "HF_HUB_VERBOSITY" not in os.environ:
        # Breaks and how they go on are told by us.
        logging.set_verbosity_error()  # type: ignore[no-untyped-call] # the library's own lack


def list_files(model: HubId) -> Listing:
    """Ask the hub for the commit behind the revision, and for its files. Raises HubError."""
    from huggingface_hub import HfApi

    with hub_errors(model):
        api = HfApi(endpoint=endpoint())
        info = api.model_info(model.repo, revision=model.revision or None, files_metadata=True, timeout=ANSWER_S)
        files = {
            sibling.rfilename: HubFile(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else "")
            for sibling in info.siblings or ()
        }
        if info.sha is None:
            raise ValueError("the answer names no commit")
        return Listing(info.sha, files)


def cached_commit(model: HubId) -> str | None:
    """The commit that a branch or tag meant when it was fetched last; None where it never was."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            model.repo, revision=model.revision or None, cache_dir=cache_root(), local_files_only=True
        )
    except (OSError, ValueError):  # all that the library raises for what is not there
        return None
    return Path(folder).name


def place_file(model: HubId, name: str) -> Path:
    """Put one file into the cache's snapshot of the revision, fetching it unless its content is there.

    Where the revision is a branch or a tag, the cache keeps which commit it meant. Raises HubError.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(model):
        path = hf_hub_download(
            model.repo, name, revision=model.revision or None, cache_dir=cache_root(), endpoint=endpoint()
        )
    return Path(path)


def read_into(model: HubId, name: str, file: io.BufferedWriter, size_bytes: int) -> None:
    """Append a large file's bytes from `file`'s position on, until it has `size_bytes`. Raises HubError.

    A break leaves what came in `file`.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # documented to be there

    with hub_errors(model):
        http_get(
            hf_hub_url(model.repo, name, revision=model.revision, endpoint=endpoint()),
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),
            expected_size=size_bytes,
        )


@contextmanager
def hub_errors(model: HubId) -> Iterator[None]:
    """Raise what the library raises as HubError, HubUnreachableError or HubDiskError."""
    from huggingface_hub import errors

    failures: tuple[type[Exception], ...] = (*_transport_errors(errors), OSError)
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise _unreachable(model, OFFLINE) from error
    except errors.LocalEntryNotFoundError as error:  # the library's word for: no answer, and nothing in the cache
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError) and cause.response is not None:
            raise _refused(model, cause) from error
        offline = isinstance(cause, errors.OfflineModeIsEnabled)
        raise _unreachable(model, OFFLINE if offline else _reason(cause or error)) from error
    except errors.HfHubHTTPError as error:
        raise _refused(model, error) from error
    except errors.HFValidationError as error:
        raise HubError(f"{model.repo} is no name on the hub: {_reason(error)}", "check its spelling") from error
    except failures as error:
        if isinstance(error, ValueError):  # requests' word for what is no JSON
            raise _no_hub(error) from error
        if not isinstance(error, OSError) or error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
            raise _unreachable(model, _reason(error)) from error
        raise HubDiskError(
            f"the hub's cache {cache_root()} cannot be written: {error.strerror or error}",
            "free some space, or set HF_HOME to a folder of yours on another disk",
        ) from error
    except (ImportError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _no_hub(error) from error


def _transport_errors(errors: Any) -> tuple[type[Exception], ...]:
    """Errors of the HTTP library below huggingface_hub, which was requests, then httpx, then httpx2."""
    base: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    library = sys.modules[base.__module__.partition(".")[0]]
    return (base, getattr(library, "InvalidURL", base))


def _refused(model: HubId, error: Any) -> HubError:
    """An answer with a status that is no success."""
    from huggingface_hub import errors, get_token

    where, status = endpoint(), error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return HubError(
            f"{model.repo} is gated: its owners ask you to agree to their terms",
            f"do so at {where}/{model.repo}, then {_TOKEN_HINT}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"{model.repo} has no revision {model.revision}",
            f"give a branch, tag or commit of {where}/{model.repo}, or leave the part from @ on out",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return HubError(f"{model.shown} lacks a file that every base has ({_reason(error)})", "give another model")
    if status == 404 or isinstance(error, errors.RepositoryNotFoundError) or (status == 401 and not get_token()):
        known = ", or it does not know your token" if get_token() and status == 401 else ""
        return HubError(
            f"{where} has no model {model.repo}, or it is private{known}", f"check its spelling; or {_TOKEN_HINT}"
        )
    if status in (401, 403):
        return HubError(f"{where} does not let your token read {model.repo} (status {status})", _TOKEN_HINT)
    if status == 429 or status >= 500:
        return _unreachable(model, f"status {status}")
    return HubError(f"{where} refuses to give {model.repo} (status {status})", "try later, or give a folder")


def _no_hub(error: BaseException) -> HubError:
    """An answer that is not the hub's, or no request at all: what the HTTP library says about its settings."""
    reason = _reason(error)
    if isinstance(error, ImportError) or "proxy" in reason.lower():  # SOCKS needs a package, other schemes are none
        return HubError(
            f"the proxy that the environment names cannot be used ({reason})",
            "mend HTTPS_PROXY or HTTP_PROXY, or name the hub in NO_PROXY",
        )
    if isinstance(error, UnicodeEncodeError):
        return HubError("HF_TOKEN has characters that no token has", "copy it once more from the hub's settings page")
    return HubError(
        f"{endpoint()} does not answer as a model hub does ({reason})",
        "check HF_ENDPOINT, and whether the network asks for a login first",
    )


def _unreachable(model: HubId, reason: str) -> HubUnreachableError:
    if reason == OFFLINE:
        return HubUnreachableError(
            f"{model.shown} is not in the hub's cache {cache_root()} while HF_HUB_OFFLINE is set",
            "unset it once, or copy the cache or the model's folder from a machine that has it",
            reason,
        )
    return HubUnreachableError(
        f"{endpoint()} cannot be reached for {model.shown} ({reason})",
        "check the network and HF_ENDPOINT and try again; or copy the model's folder here and give that",
        reason,
    )


def _reason(error: BaseException) -> str:
    """The first line of an error's text, else its type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
