"""How the server encrypts: its own certificate, pinned by fingerprint; a given one; or not at all."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from aggregator.errors import TlsError
from aggregator.store.folder import Folder
from braid_common.atomic_file import write_atomically

VALID_DAYS = 3653
"""Ten years: boards pin the fingerprint, not the dates, and nobody renews a certificate in a shed."""

BACKDATED_DAYS = 3650
"""Valid since ten years ago, for whoever checks it against a clock that lags."""


@dataclass(frozen=True, slots=True)
class Tls:
    """`context` None: plain HTTP. `fingerprint`: SHA-256 of the certificate in hex, where boards should pin it."""

    context: ssl.SSLContext | None
    fingerprint: str = ""

    @property
    def scheme(self) -> str:
        return "http" if self.context is None else "https"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def prepare(choice: str | None, host: str, folder: Folder) -> Tls:
    """Carry out `--tls`: "self-signed", "off", "CERT,KEY", or None: off on loopback, else self-signed.

    Raises TlsError where certificate or key cannot be used.
    """
    if choice is None:
        choice = "off" if is_loopback(host) else "self-signed"
    if choice == "off":
        return Tls(None)
    if choice == "self-signed":
        if not (folder.certificate.exists() and folder.key.exists()):
            _make(folder, host)
        return Tls(_context(folder.certificate, folder.key), fingerprint(folder.certificate))
    certificate, comma, key = choice.partition(",")
    if not comma:
        raise TlsError(f"--tls {choice!r} is not known.", "Allowed are self-signed, off and CERT,KEY.")
    return Tls(_context(Path(certificate), Path(key)))


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a PEM certificate's DER bytes, lower-case hex. Raises TlsError."""
    try:
        text = certificate.read_text(encoding="ascii")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[: text.index("-----END") + 25])).hexdigest()
    except (OSError, ValueError) as error:
        raise TlsError(f"{certificate} is no certificate: {error}", "Remove it to have a new one made.") from error


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


def _make(folder: Folder, host: str) -> None:
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
    now = datetime.datetime.now(datetime.timezone.utc)
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
