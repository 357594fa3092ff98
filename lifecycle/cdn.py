"""Whose address is this, if it belongs to a content delivery network that customers put in front of a name?

A name that a CDN answers for (proxied) shows the CDN's addresses; a provider that flattens a CNAME at a zone's apex
shows the target's own, which needs no word. The table holds those that publish all of their addresses; a network that
is not in it is somebody else like any other. Left out: whether the CDN passes challenges through.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import cache

CLOUDFLARE = (
    "173.245.48.0/20 103.21.244.0/22 103.22.200.0/22 103.31.4.0/22 141.101.64.0/18 108.162.192.0/18 190.93.240.0/20 "
    "188.114.96.0/20 197.234.240.0/22 198.41.128.0/17 162.158.0.0/15 104.16.0.0/13 104.24.0.0/14 172.64.0.0/13 "
    "131.0.72.0/22 2400:cb00::/32 2606:4700::/32 2803:f800::/32 2405:b500::/32 2405:8100::/32 2a06:98c0::/29 "
    "2c0f:f248::/32"
)
"""Cloudflare, "IP Ranges" (cloudflare.com/ips)."""

FASTLY = (
    "23.235.32.0/20 43.249.72.0/22 103.244.50.0/24 103.245.222.0/23 103.245.224.0/24 104.156.80.0/20 140.248.64.0/18 "
    "140.248.128.0/17 146.75.0.0/17 151.101.0.0/16 157.52.64.0/18 167.82.0.0/17 167.82.128.0/20 167.82.160.0/20 "
    "167.82.224.0/20 172.111.64.0/18 185.31.16.0/22 199.27.72.0/21 199.232.0.0/16 2a04:4e40::/32 2a04:4e42::/32"
)
"""Fastly, "Public IP List" (api.fastly.com/public-ip-list)."""

_NETWORKS = {"Cloudflare": CLOUDFLARE, "Fastly": FASTLY}


def cdn_of(address: str) -> str:
    """The network's name, empty where it is none of the table or the text is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return next((name for name, ranges in _parsed() if any(parsed in one for one in ranges)), "")


def cdns_of(addresses: Iterable[str]) -> tuple[str, ...]:
    """The networks that the addresses belong to, each once; empty where one of them belongs to none."""
    found = [cdn_of(address) for address in addresses]
    return tuple(dict.fromkeys(found)) if found and all(found) else ()


@cache
def _parsed() -> tuple[tuple[str, tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]], ...]:
    return tuple((name, tuple(map(ipaddress.ip_network, ranges.split()))) for name, ranges in _NETWORKS.items())
