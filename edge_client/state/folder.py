"""The folder where a board keeps who it is and where it was, so that a power cut costs at most the current step.

    lock              held by the one running client
    trial             written and removed while a disk was full, to see whether it still is
    identity.json     server, device, credential (mode 0600)
    install_id        the id that this board had when it left a server, so that it joins again as the same device
    status.json       what the client is doing, for `edge-client status` and dashboards
    work/KEY.*        files of the one task that is under way (`state/task_files.py`)
    run.json          the run that this board takes part in, and the last of its versions that it knew
    held/             the adapter of the last round, to which the next is fetched as a patch
    residual          what quantisation dropped of the last update, to be added to the next one
    pruned.json       ranks of the weights that the rounds so far have pruned
    personal/         the strands of this board alone, which nothing but `edge-client personal forget` removes
    matmul_speed.json how fast this board multiplies, measured once
    calibration.json  what probes took beside what was predicted
    cache/            the frozen encoder's output per text: can be made again, so never swept with a task

Files appear under their names only when whole (`braid_common/atomic_file.py`), so every file that is there can be used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from pathlib import Path

import msgspec

from braid_common.atomic_file import make_folder, make_private_folder, sweep_temporaries, write_atomically
from edge_client.errors import ConfigError, DiskError, LockedError, disk_errors
from edge_client.state.personal_folder import PersonalFolder

_INSTALL_ID = re.compile(r"[0-9a-f]{32}")


TRIAL = "trial"
TRIAL_BYTES = 1 << 20
"""Written to see whether a disk that was full takes files again: most of a round's files have that size or less, and a
worker that is started only to fail costs a board more."""


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this board is. `device` and `credential` are empty until the server has answered the enrolment.

    Attributes:
        fingerprint: of the certificate that is pinned.
        given_fingerprint: the one that people gave; the board may have followed its server from there to another.
        next_credential: was drawn, and may be known to the server.
        former_credential: the one before, which a server that was restored from a backup may still know.
    """

    server: str
    install_id: str
    fingerprint: str = ""
    given_fingerprint: str = ""
    device: str = ""
    credential: str = ""
    next_credential: str = ""
    former_credential: str = ""

    @property
    def credentials(self) -> tuple[str, ...]:
        """All that the server may know, the likeliest first."""
        known = (self.credential, self.next_credential, self.former_credential)
        return tuple(dict.fromkeys(credential for credential in known if credential))

    def with_next(self, drawn: str, in_use: str) -> Identity:
        """The identity that is about to tell the server its next credential: one that it has drawn before and does not
        use, else `drawn`. The one `in_use` stays in it, whichever it is."""
        kept = self.next_credential
        former = self.former_credential if in_use == self.credential else self.credential
        return msgspec.structs.replace(
            self,
            credential=in_use,
            next_credential=kept if kept and kept != in_use else drawn,
            former_credential=former,
        )

    def renewed(self) -> Identity:
        """The identity that uses its next credential from now on."""
        return msgspec.structs.replace(
            self, credential=self.next_credential, next_credential="", former_credential=self.credential
        )


def default_state_folder() -> Path:
    """/var/lib/braid for root (as the systemd unit has it), else a folder in the user's home."""
    if os.geteuid() == 0:
        return Path("/var/lib/braid")
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "braid"


class StateFolder:
    """The state of one board. Nothing is written before `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / "work"
        self.cache = path / "cache"
        self.held = path / "held"
        self.residual = path / "residual"
        self.pruned = path / "pruned.json"
        self.personal = PersonalFolder(path / "personal")
        self._lock_fd = -1

    def lock(self) -> None:
        """Create the folder and take it for this process. Raises LockedError or DiskError."""
        with disk_errors(self.path):
            make_folder(self.path)
            for folder in (self.work, self.cache, self.held):
                make_private_folder(folder)
            descriptor = _open_lock(self.path / "lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise LockedError(
                f"another edge-client (process {holder or 'unknown'}) uses {self.path}",
                "stop that one, or give this one a folder of its own with --state",
            ) from error
        self._lock_fd = descriptor
        with contextlib.suppress(OSError):  # on a full disk; who holds the lock is for people to read
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        try:
            with disk_errors(self.path):
                for folder in (self.path, self.work, self.held):  # what a killed client was writing
                    sweep_temporaries(folder)
                if (self.path / TRIAL).exists():
                    (self.path / TRIAL).unlink()
        except DiskError:
            self.unlock()
            raise

    def unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def is_locked(self) -> bool:
        """Whether some client is running on this folder now."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    # --- identity --------------------------------------------------------------------------------------------------

    def read_identity(self) -> Identity | None:
        """Raises ConfigError where the file is damaged: guessing would make this board a second one."""
        path = self.path / "identity.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DiskError(f"{path} cannot be read: {error.strerror}", "check its owner and rights") from error
        try:
            return msgspec.json.decode(data, type=Identity)
        except ValueError as error:  # msgspec's errors, and UnicodeDecodeError
            raise ConfigError(
                f"{path} is damaged: {error}", "run `edge-client leave`, then join again with a new token"
            ) from error

    def write_identity(self, identity: Identity) -> None:
        self.write("identity.json", msgspec.json.encode(identity))

    def former_install_id(self) -> str:
        """The id that this board had when it left; "" where it has never left."""
        try:
            text = (self.path / "install_id").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""
        return text if _INSTALL_ID.fullmatch(text) else ""

    def forget_identity(self, install_id: str = "") -> None:
        """Remove identity, work, residual, pruned ranks, held adapter and cache; the folder and its lock stay.

        `install_id` is kept for the next enrolment; "" forgets that as well.
        """
        if install_id:
            self.write("install_id", f"{install_id}\n".encode())
        with disk_errors(self.path):
            if not install_id:
                (self.path / "install_id").unlink(missing_ok=True)
            (self.path / "identity.json").unlink(missing_ok=True)
            (self.path / "run.json").unlink(missing_ok=True)
            self.residual.unlink(missing_ok=True)
            self.pruned.unlink(missing_ok=True)
            for path in self.held.glob("*"):
                path.unlink(missing_ok=True)
        self.sweep("")
        self.empty_cache()

    def empty_cache(self) -> None:
        """Remove all encoder outputs."""
        with disk_errors(self.cache):
            if self.cache.exists():
                shutil.rmtree(self.cache)
            self.cache.mkdir(mode=0o700)

    def write(self, name: str, data: bytes) -> None:
        """Replace the file `name` in this folder at once and for good, readable by its owner only."""
        path = self.path / name
        with disk_errors(path):
            write_atomically(path, data)

    def try_out(self) -> None:
        """Write TRIAL_BYTES and remove them again. Raises DiskError where the disk takes nothing."""
        path = self.path / TRIAL
        self.write(TRIAL, bytes(TRIAL_BYTES))
        with disk_errors(path):
            path.unlink()

    # --- work ------------------------------------------------------------------------------------------------------

    def sweep(self, keep: str) -> None:
        """Remove the work files whose names do not start with `keep` ("" removes all)."""
        with disk_errors(self.work):
            for path in self.work.glob("*"):
                if not path.is_dir() and not (keep and path.name.startswith(keep)):
                    path.unlink(missing_ok=True)


def _open_lock(path: Path) -> int:
    """The descriptor of a lock file, made where there is none. On a file system that has become read-only one that is
    there can be locked as well: its client waits until it can write."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def new_install_id() -> str:
    """32 hexadecimal digits, drawn once per board and kept."""
    return secrets.token_hex(16)


def new_credential() -> str:
    """256 random bits, URL-safe, as a server draws the first one."""
    return secrets.token_urlsafe(32)
