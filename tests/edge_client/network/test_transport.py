"""Errors of the network become sentences; a pinned certificate needs neither an authority nor a clock."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_client.errors import ConfigError, ExitCode
from edge_client.network.errors import UntrustedError
from edge_client.network.translate import translate
from edge_client.network.transport import Transport, parse_pin
from wire.run import RunInfo


def self_signed(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context and the SHA-256 of its certificate, which expired in 1971."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(1970, 1, 2))
        .not_valid_after(datetime.datetime(1971, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, certificate.fingerprint(hashes.SHA256()).hex()


async def call(server: Any, folder: Path, pin: str | None) -> RunInfo:
    """GET /v1/run over TLS; `pin` None takes the certificate's own fingerprint."""
    context, fingerprint = self_signed(folder)
    server.devices["x"] = "credential-1"
    running = TestServer(server.app(), scheme="https")
    await running.start_server(ssl=context)
    try:
        url = str(running.make_url("")).rstrip("/")
        pinned = fingerprint if pin is None else pin
        async with Transport(url, credential="credential-1", fingerprint=pinned) as transport:
            return await transport.call("GET", "/v1/run", RunInfo)
    finally:
        await running.close()


async def test_a_pinned_certificate_is_trusted_whatever_the_clock_says(server: Any, tmp_path: Path) -> None:
    """The fingerprint alone decides: this certificate ended in 1971."""
    assert (await call(server, tmp_path, None)).run_id == "run-1"


async def test_an_unknown_certificate_asks_for_the_fingerprint(server: Any, tmp_path: Path) -> None:
    """The hint names --fingerprint."""
    with pytest.raises(UntrustedError) as caught:
        await call(server, tmp_path, "")

    assert "--fingerprint" in caught.value.hint
    assert caught.value.exit_code == ExitCode.CONFIG


async def test_another_certificate_than_the_pinned_one_is_refused(server: Any, tmp_path: Path) -> None:
    """Both fingerprints' owner is told which one came."""
    with pytest.raises(UntrustedError, match="not the one given"):
        await call(server, tmp_path, "cd" * 32)


def test_a_wrong_clock_is_named() -> None:
    """OpenSSL's "not yet valid" is the board's clock, nearly always."""
    reason = ssl.SSLCertVerificationError()
    reason.verify_code = 9
    key: Any = SimpleNamespace(host="h", port=1, ssl=True, is_ssl=True)

    error = translate(aiohttp.ClientConnectorCertificateError(key, reason), "https://h:1")

    assert "clock is wrong" in error.message
    assert "timedatectl" in error.hint


@pytest.mark.parametrize("text", ["AB" * 32, "sha256:" + "ab" * 32, ":".join(["aB"] * 32), " " + "ab" * 32 + "\n"])
def test_fingerprints_are_read_in_every_usual_spelling(text: str) -> None:
    """Upper or lower case, with colons, with the algorithm in front."""
    assert parse_pin(text) == b"\xab" * 32


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 20, "ab" * 33])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    """A SHA-1 among them."""
    with pytest.raises(ConfigError):
        parse_pin(text)


def test_authorities_are_read_by_the_connection_that_asks_them() -> None:
    """Not by each client at its start, as aiohttp does: most boards have pinned their server's certificate. What the
    environment says of authorities is as it was."""
    script = """
import os, edge_client.network.transport as transport, aiohttp
print(aiohttp.connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"])
for server, pin in (("https://a.example", ""), ("https://a.example", "ab" * 32), ("http://a.example", "")):
    trusted = transport.Transport(server, fingerprint=pin)._ssl
    print(trusted.cert_store_stats()["x509"] if hasattr(trusted, "cert_store_stats") else type(trusted).__name__)
print(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
"""
    authorities = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    if not authorities.exists():
        pytest.skip("this machine has no file of authorities")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["SSL_CERT_FILE"] = str(authorities)

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)

    known = len(ssl.create_default_context(cafile=authorities).get_ca_certs())
    assert done.stdout.split() == ["0", str(known), "Fingerprint", "bool", str(authorities), "None"]
