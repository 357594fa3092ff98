"""The rows of bad input that both doors refuse: what is asked for, and words of each reason."""

from __future__ import annotations

BAD_HOSTNAMES = {
    "shop_1.example.com": "underscore",
    "shop..example.com": "empty label",
    "a" * 64 + ".example.com": "64 octets",
    "*.example.com": "wildcard",
    "192.0.2.7": "IP address",
    "localhost": "localhost",
    "web.default.svc.cluster.local": "cluster's own domain",
}
