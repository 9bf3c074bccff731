"""Where requests may go: to public addresses, each looked up once and then connected to as it is.

A name may lead into somebody's own network: it resolves to a private address, or to another one
at the second look (DNS rebinding), or a redirect names it. So what is checked is the number, and
that number is what is connected to.
"""

import socket
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import final

from selftaught.curate.fetch.address import PORTS, Target
from selftaught.curate.fetch.refused import Refused
from selftaught.data.absent import missing
from selftaught.data.text.coding import opened
from selftaught.errors import UserError

IP = IPv4Address | IPv6Address

_UNICAST = IPv6Network("2000::/3")
"""All that is global in IPv6; what IANA gives to other uses within it is taken out below."""
_NOT_GLOBAL = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)
"""IANA's registries of special addresses, as Python's own list depends on its version."""
_HOUR = 3600.0
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")


def public(ip: IP) -> bool:
    """Whether an address is anybody's, so that asking it gives away nothing of one's own network.

    IPv6 addresses that carry an IPv4 address are what that one is.
    """
    if isinstance(ip, IPv6Address):
        inner = _inner(ip)
        if inner is not None:
            return public(inner)
        if ip not in _UNICAST:
            return False
    within = (ip in network for network in _NOT_GLOBAL if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not any(within)


def _inner(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address in one that is mapped, compatible, translated (NAT64) or of 6to4."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _SIX_TO_FOUR:
        return ip.sixtofour
    if ip in _NAT64 or ip in _COMPATIBLE:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def within(host: str, names: Iterable[str]) -> bool:
    """Whether a host is one of some, or a subdomain of one."""
    labels = host.split(".")
    known = names if isinstance(names, set | frozenset) else frozenset(names)
    return any(".".join(labels[n:]) in known for n in range(len(labels)))


@final
class Guard:
    """Says where a request may go.

    Args:
        allow: hosts and networks of one's own, which may be private and have any port.
        blocklist: file of hosts that are left alone.

    Raises:
        UserError: the file cannot be read, or holds no host.
    """

    def __init__(self, allow: Iterable[str], blocklist: Path | None):
        self.names, self.networks = _sorted(allow)
        self.blocked = _hosts(blocklist) if blocklist is not None else frozenset()
        self._found: dict[str, tuple[float, tuple[IP, ...]]] = {}

    def check(self, to: Target) -> tuple[IP, ...]:
        """The addresses that may be connected to, in the order in which they are to be tried.

        Raises:
            Refused: of these there is none: the host is blocked, unknown, or one of its addresses
                is private.
        """
        self.check_listed(to.host)
        named = within(to.host, self.names)
        ips = self._resolve(to.host)
        for ip in ips:
            own = named or any(ip in n for n in self.networks if n.version == ip.version)
            if not own and not public(ip):
                mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
                raise Refused(f"private address {mapped or ip}")
            if not own and to.port != PORTS[to.scheme]:
                raise Refused(f"port {to.port}")
        return ips

    def check_listed(self, host: str) -> None:
        """Raise Refused where a host is on the blocklist."""
        if within(host, self.blocked):
            raise Refused("host is on the blocklist")

    def _resolve(self, host: str) -> tuple[IP, ...]:
        """What was looked up is what is checked and connected to, for an hour."""
        found = self._found.get(host)
        if found is None or time.monotonic() > found[0] + _HOUR:
            found = self._found[host] = time.monotonic(), _looked_up(host)
        if not found[1]:
            raise Refused("host is not known")
        return found[1]


def _looked_up(host: str) -> tuple[IP, ...]:
    """All addresses of a host; none where it is not known."""
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Refused("host cannot be looked up now", transient=True) from error
        return ()
    except UnicodeError:  # labels of no length, or too long
        return ()
    return tuple(dict.fromkeys(ip_address(str(answer[4][0])) for answer in answers))


def _sorted(allow: Iterable[str]) -> tuple[frozenset[str], tuple[IPv4Network | IPv6Network, ...]]:
    names, networks = set(), []
    for word in filter(None, map(str.strip, allow)):
        try:
            networks.append(ip_network(word.strip("[]"), strict=False))
        except ValueError as error:
            if "/" in word or ":" in word:
                raise UserError(
                    f"allow takes hosts and networks, such as localhost or 10.1.0.0/16, not {word}"
                ) from error
            names.add(word.lower().strip("."))
    return frozenset(names), tuple(networks)


def _hosts(file: Path) -> frozenset[str]:
    """Hosts of a file, one a line; of those that name an address first (hosts files) the second."""
    if not file.is_file():
        raise missing(file)
    with opened(file) as text:
        lines = [line.partition("#")[0].split() for line in text]
    found = frozenset(words[-1].lower().strip(".*") for words in lines if words)
    if not found:
        raise UserError(f"{file} is empty: a blocklist has a host a line, such as example.org")
    return found
