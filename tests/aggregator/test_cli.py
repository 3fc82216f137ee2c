"""The `aggregator` command: folders, secrets, errors in one line with a documented exit code, and a real server."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aggregator.errors import ExitCode
from aggregator.http.addresses import ipv6_addresses, reachable_hosts
from aggregator.http.server import Listening
from aggregator.http.tls import Tls
from edge_client.network.transport import Transport
from tests.fakes.aggregator_command import call


def test_help_loads_no_server() -> None:
    """`import aggregator.cli` loads neither aiohttp nor numpy nor SQLAlchemy, nor what asks the hub."""
    heavy = ("aiohttp", "numpy", "sqlalchemy", "ssl", "huggingface_hub")
    code = f"import aggregator.cli, sys; print([m for m in {heavy} if m in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_init_makes_a_folder_with_secrets_of_its_own(tmp_path: Path, server_base: Path) -> None:
    """run.toml holds what was asked for; the tokens can be read by their owner only."""
    code, text = call(
        "init", tmp_path / "srv", "--model", server_base, "--rounds", 9, "--min-devices", 5, "--set", "train.batch=8"
    )

    assert code == 0 and "aggregator serve" in text
    written = (tmp_path / "srv" / "run.toml").read_text()
    assert "rounds = 9 " in written and "min_devices = 5 " in written and "quorum = 4 " in written
    assert "batch = 8 " in written
    for name in ("operator.token", "join.token"):
        assert stat.S_IMODE((tmp_path / "srv" / name).stat().st_mode) == 0o600
    assert call("init", tmp_path / "srv", "--model", server_base)[0] == ExitCode.CONFIG
    assert call("init", tmp_path / "srv", "--model", server_base, "--force")[0] == 0


def test_mistakes_are_one_line_and_a_hint(tmp_path: Path, server_base: Path) -> None:
    """Each has its exit code, no traceback, and says what to do."""
    server = tmp_path / "srv"
    call("init", server, "--model", server_base)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "other" / "model.safetensors").write_bytes(b"")
    for arguments, expected in [
        (("init", tmp_path / "a", "--model", "google/flan-t5-small"), ExitCode.BASE),
        (("init", tmp_path / "a", "--model", tmp_path / "empty"), ExitCode.BASE),
        (("init", tmp_path / "a", "--model", tmp_path / "other"), ExitCode.BASE),
        (("init", tmp_path / "a", "--model", server_base, "--set", "train.scop=all"), ExitCode.CONFIG),
        (("init", tmp_path / "a", "--model", server_base, "--rounds", 0), ExitCode.CONFIG),
        (("serve", tmp_path / "empty"), ExitCode.STATE),
        (("serve", server, "--tls", "maybe"), ExitCode.TLS),
        (("serve", server, "--tls", "a.pem,b.pem"), ExitCode.TLS),
        (("status", server), ExitCode.UNREACHABLE),
        (("status", "http://127.0.0.1:9"), ExitCode.CONFIG),
        (("status", "http://127.0.0.1:9", "--token", "x"), ExitCode.UNREACHABLE),
        (("export", server, "--out", tmp_path / "out"), ExitCode.EXPORT),
        (("token", "revoke", server, 9), ExitCode.CONFIG),
        (("device", "revoke", server, "d-9"), ExitCode.CONFIG),
    ]:
        code, text = call(*arguments)
        assert code == expected, (arguments, text)
        assert text.startswith("error: ") and "\n  → " in text and "Traceback" not in text


def test_a_changed_manifest_is_refused_once_boards_have_enrolled(make_folder: Any, tmp_path: Path) -> None:
    """Settings that boards' files depend on cannot change in the middle of a run."""
    from aggregator.run.setup import open_run, open_store

    folder = make_folder()
    open_run(folder, time.monotonic).store.close()
    folder.config.write_text(folder.config.read_text().replace("max_rank = 4", "max_rank = 5"))
    open_run(folder, time.monotonic).store.close()  # nobody has enrolled yet
    store = open_store(folder)
    store.enrol("1" * 32, "ada", "c" * 64)
    store.close()
    folder.config.write_text(folder.config.read_text().replace("max_rank = 5", "max_rank = 6"))

    code, text = call("serve", folder.root, "--port", 0)

    assert code == ExitCode.STATE and "max_rank was 5" in text


def test_tokens_and_devices_are_listed_as_json(tmp_path: Path, server_base: Path) -> None:
    """What `create` shows is a working secret; the list shows none."""
    call("init", tmp_path / "srv", "--model", server_base)

    made = json.loads(call("token", "create", tmp_path / "srv", "--label", "shed", "--json")[1])
    call("token", "revoke", tmp_path / "srv", made["id"])
    listed = json.loads(call("token", "list", tmp_path / "srv", "--json")[1])

    assert [(row["label"], row["revoked"]) for row in listed] == [("first", False), ("shed", True)]
    assert made["token"] not in json.dumps(listed)
    assert json.loads(call("device", "list", tmp_path / "srv", "--json")[1]) == []


class Serving:
    """`aggregator serve` as a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "aggregator.cli", "serve", str(folder), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if "edge-client join" in line:
                break

    @property
    def url(self) -> str:
        found = re.search(r"--server (\S+)", self.lines[-1])
        assert found, self.lines
        return found[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=20)
        return self.process.returncode


@pytest.fixture
def serving(tmp_path: Path, server_base: Path) -> Iterator[Any]:
    started: list[Serving] = []

    def start(*options: str) -> Serving:
        folder = tmp_path / "srv"
        if not folder.exists():
            call("init", folder, "--model", server_base)
        started.append(Serving(folder, *options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.mark.slow
def test_serve_prints_how_to_join_and_ends_in_order(serving: Any, tmp_path: Path) -> None:
    """The join command holds the token; `status` finds the server by folder and by URL; SIGTERM exits 0; a second
    server on the folder and a taken port are refused."""
    server = serving()
    token = (tmp_path / "srv" / "join.token").read_text().strip()
    assert server.lines[-1].strip() == f"edge-client join --server {server.url} --token {token}"

    facts = json.loads(call("status", tmp_path / "srv", "--json")[1])
    assert facts["run"]["state"] == "profiling" and facts["boards"] == []
    assert "profiling" in call("status", tmp_path / "srv")[1]
    operator = (tmp_path / "srv" / "operator.token").read_text().strip()
    assert call("rounds", server.url, "--token", operator)[0] == 0
    assert call("status", server.url, "--token", "wrong")[0] == ExitCode.REFUSED
    assert call("serve", tmp_path / "srv")[0] == ExitCode.LOCKED

    assert server.stop() == 0
    assert not (tmp_path / "srv" / "server.json").exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = call("serve", tmp_path / "srv", "--port", taken.getsockname()[1])
    assert code == ExitCode.ADDRESS and "--port" in text


@pytest.mark.slow
def test_a_self_signed_server_is_pinned_by_fingerprint(serving: Any, tmp_path: Path) -> None:
    """The certificate is made once, its key is private, and only the printed fingerprint is trusted."""
    server = serving("--tls", "self-signed")
    found = re.search(r"--fingerprint ([0-9a-f]{64})$", server.lines[-1])
    assert found and server.url.startswith("https://")
    assert stat.S_IMODE((tmp_path / "srv" / "tls.key").stat().st_mode) == 0o600
    operator = (tmp_path / "srv" / "operator.token").read_text().strip()

    assert call("status", tmp_path / "srv")[0] == 0
    assert call("status", server.url, "--token", operator, "--fingerprint", found[1])[0] == 0
    for pin in ([], ["--fingerprint", "0" * 64]):
        assert call("status", server.url, "--token", operator, *pin)[0] == ExitCode.UNREACHABLE
    server.stop()

    assert found[1] in serving("--tls", "self-signed").lines[-1]


def given_certificate(folder: Path, *names: str, ca: bool = True) -> tuple[Path, Path]:
    """Certificate and key of an authority of our own, for hosts of these names."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.NameOID.COMMON_NAME
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(name, "server")]))
    builder = builder.issuer_name(x509.Name([x509.NameAttribute(name, "authority" if ca else "server")]))
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()) if ca else key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    certificate, private = folder / "given.crt", folder / "given.key"
    # As `openssl x509 -text` writes it, with words before the certificate.
    certificate.write_bytes("Issuer: Äußere Stelle\n".encode() + made.public_bytes(pem))
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return certificate, private


async def answers(url: str, fingerprint: str = "") -> bool:
    """Whether a board at this machine reaches an aggregator at the address."""
    async with Transport(url, fingerprint=fingerprint) as transport, transport.open("GET", "/healthz") as response:
        return await response.text() == "ok\n"


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "::1"])
def test_status_works_under_a_given_certificate(serving: Any, tmp_path: Path, host: str) -> None:
    """For a name that is not the address: by DIR without a word, by URL with the certificate's fingerprint in openssl's
    spelling. The join command has the certificate's name, which is what boards check."""
    certificate, key = given_certificate(tmp_path, "*.example", "shed.example")
    server = serving("--host", host, "--tls", f"{certificate},{key}")

    for command in ("status", "rounds"):
        code, text = call(command, tmp_path / "srv")
        assert code == 0, text
    assert re.match(r"https://shed\.example:\d+$", server.url) and "--fingerprint" not in server.lines[-1]
    pin = re.search(r"add --fingerprint ([0-9a-f]{64})$", "\n".join(server.lines), re.MULTILINE)
    assert pin, server.lines
    facts = json.loads((tmp_path / "srv" / "server.json").read_text())
    assert facts["url"].startswith("https://[::1]:" if host == "::1" else "https://127.0.0.1:")
    operator = (tmp_path / "srv" / "operator.token").read_text().strip()
    spelled = "sha256 Fingerprint=" + ":".join(pin[1][i : i + 2].upper() for i in range(0, 64, 2))
    assert call("status", facts["url"], "--token", operator, "--fingerprint", spelled)[0] == 0
    code, text = call("status", facts["url"], "--token", operator)
    assert code == ExitCode.UNREACHABLE and "the name that the certificate was made for" in text
    code, text = call("status", facts["url"].replace("https", "http"), "--token", operator)
    assert code == ExitCode.UNREACHABLE and "https://" in text


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_that_listens_everywhere_prints_addresses(serving: Any, tmp_path: Path, host: str) -> None:
    """Not the wildcard, nor a name that boards may not know: each address printed is one where it answers."""
    server = serving("--host", host)
    said = "\n".join(server.lines)
    pin = re.search(r"--fingerprint ([0-9a-f]{64})$", server.lines[-1])
    assert pin and host not in server.url
    urls = {server.url, *re.findall(r"https://\S+?(?=,|$)", "".join(re.findall(r"also at .*", said)))}

    for url in (*urls, server.url.replace(server.url.split("//")[1].rpartition(":")[0], "127.0.0.1")):
        assert asyncio.run(answers(url, pin[1])), url
    assert call("status", tmp_path / "srv")[0] == 0


def test_addresses_for_boards() -> None:
    """By the certificate's names where boards check one, as a proxy is called where one stands before; a fingerprint
    only where nothing else can be trusted."""
    given = Tls(None, certificate="ab", names=("192.0.2.9", "a.example", "*.example"))
    own = Tls(None, certificate="ab", is_pinned=True, names=("a.example",))

    assert Listening("192.0.2.9", 1, given).urls == ["http://192.0.2.9:1", "http://a.example:1"]
    assert Listening("192.0.2.7", 1, given).urls == ["http://192.0.2.9:1", "http://a.example:1"]
    assert (Listening("192.0.2.7", 1, own).urls, Listening("h", 1, own).pin) == (["http://192.0.2.7:1"], "ab")
    proxied = Listening("127.0.0.1", 1, own, "https://a.example/braid")
    assert (proxied.urls, proxied.pin, proxied.own_url) == (["https://a.example/braid"], "", "http://127.0.0.1:1")
    assert Listening("fd00::7", 1, own).urls == ["http://[fd00::7]:1"]
    assert Listening("::", 1, own).own_url == "http://[::1]:1"


def test_a_machine_without_addresses_gives_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """IPv6 addresses of one link and the loopback's are none that boards could use."""
    table = tmp_path / "if_inet6"
    table.write_text(
        "fd000000000000000000000000000002 04 40 00 82     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n"
    )
    assert ipv6_addresses(table) == ["fd00::2"] and ipv6_addresses(tmp_path / "none") == []
    monkeypatch.setattr("aggregator.http.addresses.ipv4_addresses", list)

    assert reachable_hosts("0.0.0.0") == [socket.gethostname()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("http://h:1", "--fingerprint", "ab" * 32), "no certificate to compare"),
        (("https://h:1", "--fingerprint", "ab" * 20), "SHA-1"),
        (("https://h:port",), "cannot be asked"),
    ],
)
def test_an_address_for_status_that_cannot_be_right(arguments: tuple[str, ...], words: str) -> None:
    """Refused before the operator's token goes anywhere."""
    code, text = call("status", *arguments, "--token", "x")

    assert code == ExitCode.CONFIG and words in text


def test_run_toml_may_begin_with_a_byte_order_mark(make_folder: Any) -> None:
    """Editors on other systems write one."""
    from aggregator.settings.runfile import load

    folder = make_folder()
    before = load(folder.config)
    folder.config.write_bytes(b"\xef\xbb\xbf" + folder.config.read_bytes())

    assert load(folder.config) == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_an_idle_server_is_small(serving: Any) -> None:
    """At most 90 MB, of which the imported libraries take 70."""
    server = serving()

    status = Path(f"/proc/{server.process.pid}/status").read_text()

    assert int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) <= 90_000
    assert os.getpgid(server.process.pid)
