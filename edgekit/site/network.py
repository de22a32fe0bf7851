"""The address by which this machine's network knows it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence

from edgekit_runtime.errors import TargetError

OUTSIDE = ("203.0.113.1", 9)  # documentation's (RFC 5737): it is routed as the internet is, and belongs to nobody
INSIDE_MACHINE = ("docker", "br-", "veth", "virbr", "podman", "cni", "tun", "tap", "wg", "tailscale")


def lan_address() -> str:
    """An IPv4 address at which phones on this network reach this machine; nothing is sent to find it.

    Raises:
        TargetError: this machine is on no network.
    """
    import psutil

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    addresses = {
        name: [each.address for each in known if each.family == socket.AF_INET]
        for name, known in psutil.net_if_addrs().items()
        if name in up
    }
    chosen = choose_address(_routed(), addresses)
    if chosen is None:
        raise TargetError("this machine is on no network", "connect it, or name its address: --address 192.168.…")
    return chosen


def choose_address(routed: str | None, interfaces: Mapping[str, Sequence[str]]) -> str | None:
    """The address that the way to the internet begins at, unless that is a tunnel; else the first of a network card.

    Args:
        routed: source address of packets to the internet; None without a way there.
        interfaces: IPv4 addresses of each interface that is up.

    Returns:
        None when there is none.
    """
    cards = [
        address
        for name, addresses in interfaces.items()
        if not name.startswith(INSIDE_MACHINE)
        for address in addresses
        if not (ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(address).is_link_local)
    ]
    return routed if routed in cards else next(iter(cards), None)


def _routed() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(OUTSIDE)  # of a datagram socket: chooses a route, sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
