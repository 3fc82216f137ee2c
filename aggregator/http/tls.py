"""How the server encrypts: its own certificate, pinned by fingerprint; a given one; or not at all."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import logging
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from aggregator.errors import TlsError
from aggregator.store.folder import Folder
from braid_common.atomic_file import write_atomically
from braid_common.loopback import is_loopback

VALID_DAYS = 3653
"""Ten years: boards pin the fingerprint, not the dates, and nobody renews a certificate in a shed."""

BACKDATED_DAYS = 3650
"""Valid since ten years ago, for whoever checks it against a clock that lags."""

RENEW_BEFORE_DAYS = 60
"""How long before its end the server's own certificate is made anew: boards follow at once, and people who have taken
the old one into a browser have two months."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


log = logging.getLogger("aggregator")


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server speaks.

    Attributes:
        context: None for plain HTTP.
        certificate: SHA-256 of the server's certificate in hex, "" for plain HTTP.
        is_pinned: whether boards must know it by its fingerprint, since no authority vouches for it.
        names: hosts that the certificate was made for, where it is one of an authority.
        files: certificate and key, None for plain HTTP.
        ends_at: when the server's own certificate ends, seconds since 1970; None for one of somebody else's making.
    """

    context: ssl.SSLContext | None
    certificate: str = ""
    is_pinned: bool = False
    names: tuple[str, ...] = ()
    files: tuple[Path, Path] | None = None
    ends_at: float | None = None

    @property
    def scheme(self) -> str:
        return "http" if self.context is None else "https"


def prepare(choice: str | None, host: str, folder: Folder, now: float | None = None) -> Tls:
    """Carry out `--tls`: "self-signed", "off", "CERT,KEY", or None: off on loopback, else self-signed.

    `now`: seconds since 1970, the system's clock if not given. Raises TlsError where certificate or key cannot be used.
    """
    if choice is None:
        choice = "off" if is_loopback(host) else "self-signed"
    if choice == "off":
        return Tls(None)
    if choice == "self-signed":
        return _own(folder, host, time.time() if now is None else now)
    certificate, comma, key = choice.partition(",")
    if not comma:
        raise TlsError(f"--tls {choice!r} is not known.", "Allowed are self-signed, off and CERT,KEY.")
    return _given(Path(certificate), Path(key))


def is_ending(ends_at: float, now: float) -> bool:
    """Whether the server's own certificate is to be made anew. Both in seconds since 1970."""
    return now >= ends_at - RENEW_BEFORE_DAYS * 86400


def _own(folder: Folder, host: str, now: float) -> Tls:
    """The server's own certificate: made where there is none, where it ends soon, and where key and certificate do not
    belong together, as after a renewal that was cut short. Boards that pinned the old one follow (`wire.proof`)."""
    if folder.certificate.exists() and folder.key.exists():
        try:
            found = _read_own(folder)
            if found.ends_at is None or not is_ending(found.ends_at, now):
                return found
            log.info("the server's own certificate ends soon: a new one takes its place, and boards follow it")
        except TlsError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            log.warning("%s A new certificate takes its place, and boards follow it", error.message)
    _make(folder, host, now)
    return _read_own(folder)


def _read_own(folder: Folder) -> Tls:
    """The certificate that the server has made. Without `cryptography` it is not known when it ends."""
    files = folder.certificate, folder.key
    try:
        from cryptography import x509
    except ImportError:
        return Tls(_context(*files), fingerprint(files[0]), is_pinned=True, files=files)
    try:
        ends_at = x509.load_der_x509_certificate(_first_certificate(files[0])).not_valid_after_utc.timestamp()
    except ValueError as error:
        raise TlsError(f"{files[0]} is no certificate: {error}.") from error
    return Tls(_context(*files), fingerprint(files[0]), is_pinned=True, files=files, ends_at=ends_at)


def _given(certificate: Path, key: Path) -> Tls:
    """A certificate of somebody else's making. Without `cryptography` its names stay unknown."""
    context, files = _context(certificate, key), (certificate, key)
    try:
        from cryptography import x509
    except ImportError:
        return Tls(context, fingerprint(certificate), files=files)
    try:
        made = x509.load_der_x509_certificate(_first_certificate(certificate))
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        # No client of today takes it by a name.
        return Tls(context, fingerprint(certificate), is_pinned=True, files=files)
    except ValueError as error:
        raise TlsError(f"{certificate} is no certificate: {error}", "It must be PEM.") from error
    hosts = (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
    return Tls(context, fingerprint(certificate), is_pinned=made.issuer == made.subject, names=hosts, files=files)


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a PEM certificate's DER bytes, lower-case hex. Raises TlsError."""
    try:
        return hashlib.sha256(_first_certificate(certificate)).hexdigest()
    except ValueError as error:
        raise TlsError(f"{certificate} is no certificate: {error}", "Remove it to have a new one made.") from error


def _first_certificate(path: Path) -> bytes:
    """The DER bytes of the first certificate in a PEM file: the server's own in a chain, wherever its key stands.

    Raises ValueError.
    """
    try:
        found = _CERTIFICATE.search(path.read_text(encoding="ascii", errors="replace"))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if found is None:
        raise ValueError("it holds no BEGIN CERTIFICATE")
    return ssl.PEM_cert_to_DER_cert(found[0])


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TlsError(
            f"Certificate {certificate} and key {key} cannot be used: {error}", "Both must be PEM and belong together."
        ) from error
    return context


def _make(folder: Folder, host: str, at: float) -> None:
    """Write a new EC P-256 key (mode 0600) and its certificate."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise TlsError(
            "A self-signed certificate needs the package cryptography.",
            "pip install 'braid-fl[server]', or give --tls CERT,KEY.",
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Braid aggregator")])
    now = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=BACKDATED_DAYS))
    builder = builder.not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    write_atomically(folder.key, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    write_atomically(folder.certificate, certificate.public_bytes(pem))
