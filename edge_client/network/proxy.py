"""The proxy of the environment, as curl and Go's programs find it: http_proxy, https_proxy, no_proxy.

Our own code, not urllib's `proxy_bypass`: that knows no networks (10.0.0.0/8), and would send the loopback address to a
proxy, which takes it for its own.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.request import getproxies_environment

from yarl import URL

from braid_common.loopback import is_loopback
from edge_client.errors import ConfigError


def environment_proxy(url: str) -> URL | None:
    """The proxy that http_proxy, https_proxy and no_proxy name for `url`; user and password stay in it for aiohttp.

    Raises ConfigError that names the variable, for what is no HTTP proxy.
    """
    parts, settings = URL(url), getproxies_environment()
    address, host = settings.get(parts.scheme, ""), parts.host or ""
    if not address or is_loopback(host) or _is_exempt(host, parts.port, settings.get("no", "")):
        return None
    variable = proxy_variable(parts.scheme)
    try:
        proxy = URL(address if "://" in address else f"http://{address}")
        is_usable = bool(proxy.host) and proxy.port is not None and not re.search(r"\s", address)
    except ValueError:
        proxy, is_usable = URL(), False
    if proxy.scheme.startswith("socks"):
        raise ConfigError(
            f"{variable} names a SOCKS proxy ({shown(proxy)}), which edge-client does not speak",
            f"give an HTTP proxy there, or go without: {without_proxy(host)}",
        )
    if not is_usable or proxy.scheme not in ("http", "https"):
        raise ConfigError(
            f"{variable} is not the address of a proxy", f"write http://HOST:PORT, or go without: {without_proxy(host)}"
        )
    return proxy


def proxy_variable(scheme: str) -> str:
    """The variable that holds the proxy of http or https; the one in small letters is stronger."""
    name = f"{scheme}_proxy"
    return name if os.environ.get(name) else name.upper()


def shown(proxy: URL) -> str:
    """A proxy's address for people, without user and password."""
    return str(proxy.with_user(None)).rstrip("/") if proxy.user or proxy.password else str(proxy).rstrip("/")


def without_proxy(host: str) -> str:
    """The setting that takes a host out of the proxy's hands."""
    return f"NO_PROXY={host.partition('%')[0]}"


def _is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether no_proxy names the host: "*", a name and all below it, an address, a network, each with ":PORT" or not.

    A name is not looked up, so that networks exempt only servers that are named by their address.
    """
    address, name = _address(host), host.rstrip(".").lower()
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return True
        network = _network(entry)
        if network is not None:
            if address is not None and address in network:
                return True
            continue
        wanted, _, wanted_port = entry.rpartition(":") if entry.rpartition(":")[2].isdigit() else (entry, "", "")
        if wanted_port and int(wanted_port) != port:
            continue
        same = _address(wanted.strip("[]"))
        suffix = wanted.lstrip("*").strip(".")
        if (same is not None and same == address) or (suffix and (name == suffix or name.endswith(f".{suffix}"))):
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, without its zone; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The addresses that an entry of no_proxy stands for: a network, or one address."""
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None
