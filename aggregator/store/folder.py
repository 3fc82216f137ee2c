"""The server's folder: where each thing lies, its secrets, and the lock that keeps a second server out."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aggregator.errors import DiskError, LockedError, StateError
from aggregator.store.secrets import new_secret
from braid_common.atomic_file import write_atomically

OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Rights of everybody but the owner: a folder holds the keys of a fleet, and what its texts have taught."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths below DIR of `aggregator init DIR`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "run.toml"

    @property
    def database(self) -> Path:
        return self.root / "braid.db"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def quarantine(self) -> Path:
        """Damaged blobs, for people to look at; made when it is needed."""
        return self.root / "quarantine"

    @property
    def uploads(self) -> Path:
        """Uploads that have not arrived in full."""
        return self.root / "uploads"

    @property
    def cuts(self) -> Path:
        """Adapters cut to ranks, which can always be made again."""
        return self.root / "cuts"

    @property
    def base(self) -> Path:
        """Digests of the base model's files, by size and time."""
        return self.root / "base.json"

    @property
    def operator_token(self) -> Path:
        return self.root / "operator.token"

    @property
    def join_token(self) -> Path:
        """The first join token in clear, so that `serve` can print the join command."""
        return self.root / "join.token"

    @property
    def report(self) -> Path:
        """The folder of the run's report, where people have named no other."""
        return self.root / "report"

    @property
    def certificate(self) -> Path:
        return self.root / "tls.crt"

    @property
    def key(self) -> Path:
        return self.root / "tls.key"

    @property
    def address(self) -> Path:
        """The address of the running server, for the commands beside it."""
        return self.root / "server.json"

    def make_private(self) -> bool:
        """Make the folder where there is none, and shut others out of files in it that are open to them, as older
        versions left them; whether any was. Raises OSError.

        The folder itself stays as whoever made it has left it: it may be one with other things in it.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = [path for path in self._files() if path.exists()]
        is_open = [path for path in known if path.stat().st_mode & OTHERS]
        for path in is_open:
            path.chmod(path.stat().st_mode & ~OTHERS)
        return bool(is_open)

    def known(self) -> list[Path]:
        """All files and folders that a server may make here."""
        secrets = [self.operator_token, self.join_token, self.root / "lock"]
        return [*self._files(), *secrets, self.blobs, self.uploads, self.cuts, self.quarantine, self.report]

    def _files(self) -> list[Path]:
        databases = [self.database.with_name(self.database.name + suffix) for suffix in ("", "-wal", "-shm")]
        return [*databases, self.config, self.base, self.address, self.certificate, self.key]

    def need(self) -> None:
        """Raise StateError unless `aggregator init` has been here."""
        if not self.config.is_file():
            raise StateError(f"{self.root} is not a server's folder.", f"Make one with `aggregator init {self.root}`.")

    def secret(self, path: Path) -> str:
        """The secret stored at `path`, drawn and stored (mode 0600) if there is none."""
        try:
            if not path.exists():
                write_atomically(path, new_secret().encode() + b"\n")
            return path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DiskError(
                f"{path} cannot be used: {error}", "Check the folder's permissions and free space."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder as its only server. Raises LockedError at once if another one does."""
        path = self.root / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DiskError(f"{path} cannot be opened: {error.strerror}", "Check the folder's permissions.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise LockedError(
                f"Another server uses {self.root}.", "Stop it first, or serve another folder (`aggregator init`)."
            ) from error
        finally:
            os.close(descriptor)
