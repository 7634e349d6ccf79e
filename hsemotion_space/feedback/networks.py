"""Networks that count as one client."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

UNKNOWN: Final = "unknown"
"""Stands for everything that is no address, so that inventing some makes nobody a new client."""
CUSTOMER_BITS: Final = 64
"""Length of the prefix that one customer of IPv6 has at least to themselves."""


def network_of(address: str) -> str:
    """Return the network of an address: an IPv4 address itself, also one mapped into IPv6; of any other IPv6 address its /64.

    A zone (``%eth0``) is left out, a network stays what it is, and everything else is ``UNKNOWN``.
    """
    try:
        parsed = ip_address(address.strip().partition("%")[0].partition("/")[0])
    except ValueError:
        return UNKNOWN
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), CUSTOMER_BITS), strict=False))
