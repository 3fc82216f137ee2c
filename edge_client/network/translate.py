"""Exceptions of aiohttp, ssl and the operating system, as errors that name the cause and what to do about it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from urllib.request import getproxies_environment

import aiohttp
from yarl import URL

from edge_client.network.errors import (
    ClockError,
    MisconfiguredError,
    OtherCertificateError,
    Unavailable,
    UntrustedError,
)
from edge_client.network.proxy import proxy_variable, shown, without_proxy

_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL's x509_vfy.h
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)  # issuer or chain unknown, signed by itself

_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
"""OpenSSL's reasons where what came back was no TLS at all."""

_FINGERPRINT = "pass --fingerprint with the value that `aggregator serve` printed"


def translate(error: BaseException, url: str, proxy: URL | None = None) -> Unavailable:
    """The Unavailable that stands for a failed connection to `url`, through `proxy` or not, or for a broken answer."""
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return OtherCertificateError(
            f"the certificate of {url} has the fingerprint {error.got.hex()}, not the one given",
            "compare with the fingerprint that `aggregator serve` printed, then pass that one with --fingerprint, and "
            "if the server was set up anew a new --token",
            error.got.hex(),
        )
    if proxy is not None and (of_proxy := _proxy_error(error, url, proxy)) is not None:
        return of_proxy
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate_error(error.certificate_error, url)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unavailable(f"no address is known for {url}", "check the name in --server and the board's DNS")
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return _tls_error(error, url)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connection_error(error, url)
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return Unavailable(f"{url} did not answer in time", "check the network between the board and the server")
    return Unavailable(f"the connection to {url} broke: {_first_line(error)}", "check the network")


def speaks_tls_error(url: str) -> UntrustedError:
    """The error for plain HTTP at a port that wants TLS."""
    return UntrustedError(f"{url} speaks TLS", f"write https{url.removeprefix('http')} in --server")


def _connection_error(error: aiohttp.ClientConnectorError, url: str) -> Unavailable:
    """A connection that was not made at all."""
    host = URL(url).host or ""
    address, _, zone = host.partition("%")
    if zone and zone not in {name for _, name in socket.if_nameindex()}:
        return Unavailable(
            f"{url} cannot be reached: this board has no network interface {zone}", "`ip -br link` lists them"
        )
    if error.errno == errno.EINVAL and not zone and _is_link_local(address):
        return Unavailable(
            f"{url} cannot be reached: an address of one link needs the board's interface to that link",
            f"write http(s)://[{address}%INTERFACE]:PORT; `ip -br link` lists the interfaces",
        )
    # aiohttp's own text repeats the address; getaddrinfo's numbers are negative and no errno.
    reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error.os_error)
    hint = "check that `aggregator serve` runs there, on that port, and that its --host lets other machines in"
    if "all" in getproxies_environment():
        hint += f"; ALL_PROXY is not looked at, {URL(url).scheme.upper()}_PROXY is"
    return Unavailable(f"{url} cannot be reached: {reason}", hint)


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


def _tls_error(error: aiohttp.ClientConnectorSSLError, url: str) -> UntrustedError:
    reason = error.os_error.reason if isinstance(error.os_error, ssl.SSLError) else ""
    if not reason or reason in _NO_TLS:
        return UntrustedError(f"{url} does not speak TLS", "check --server: is it http:// instead of https://?")
    return UntrustedError(
        f"TLS with {url} failed: {reason.replace('_', ' ').lower()}",
        "check what listens on that port: an aggregator speaks TLS 1.2 and 1.3",
    )


def _certificate_error(error: Exception, url: str) -> UntrustedError:
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else None
    if code == _NOT_YET_VALID:
        return ClockError(
            f"this board's clock is wrong: the certificate of {url} lies in its future",
            "set the clock (timedatectl set-ntp true), or pass --fingerprint, which needs no clock",
        )
    if code == _EXPIRED:
        return UntrustedError(
            f"the certificate of {url} has expired, or this board's clock is ahead",
            "check `date`; renew the server's certificate, or pass the --fingerprint that `aggregator serve` printed",
        )
    if code in _OTHER_NAME:
        return UntrustedError(
            f"the certificate of {url} is for another name than {URL(url).host}",
            f"write in --server the name that the certificate was made for, or {_FINGERPRINT}",
        )
    if code is None or code in _UNKNOWN_ISSUER:
        return UntrustedError(
            f"the certificate of {url} is signed by nobody this board trusts",
            f"{_FINGERPRINT}, or name the authority's file in SSL_CERT_FILE",
        )
    reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
    return UntrustedError(f"the certificate of {url} is not accepted: {reason}", _FINGERPRINT)


def _proxy_error(error: BaseException, url: str, proxy: URL) -> Unavailable | None:
    """The error where the environment's proxy is at fault, None where something behind it is."""
    variable, host = proxy_variable(URL(url).scheme), URL(url).host or ""
    name = f"the proxy {shown(proxy)} ({variable})"
    hint = f"check {variable}, or go without: {without_proxy(host)}"
    at_proxy = isinstance(error, aiohttp.ClientConnectorError) and error.host == proxy.host
    if isinstance(error, aiohttp.ClientConnectorDNSError) and at_proxy:
        return Unavailable(f"no address is known for {name}", hint)
    if isinstance(error, aiohttp.ClientConnectorSSLError) and at_proxy and proxy.scheme == "https":
        return MisconfiguredError(f"{name} does not speak TLS", f"write http:// instead of https:// in {variable}")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error.os_error)
        return Unavailable(f"{name} cannot be reached: {reason}", hint)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == 407:
            return proxy_login_error(url, proxy)
        return Unavailable(f"{name} does not connect to {url}: {error.status} {error.message}", hint)
    if isinstance(error, aiohttp.ClientResponseError):
        return Unavailable(f"{name} does not answer in HTTP", f"is it a SOCKS proxy? {hint}")
    if isinstance(error, (aiohttp.ServerDisconnectedError, asyncio.TimeoutError, TimeoutError)):
        plain = f"if it is a proxy in plain HTTP, write http:// in {variable}; " if proxy.scheme == "https" else ""
        return Unavailable(f"no answer of {url} came through {name}", plain + hint)
    return None


def proxy_login_error(url: str, proxy: URL) -> MisconfiguredError:
    """The error for 407."""
    variable = proxy_variable(URL(url).scheme)
    fault = "refuses the user and password given" if proxy.user else "wants a user and a password"
    return MisconfiguredError(
        f"the proxy {shown(proxy)} ({variable}) {fault}",
        f"write http://USER:PASSWORD@HOST:PORT into {variable}, or go without: {without_proxy(URL(url).host or '')}",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
