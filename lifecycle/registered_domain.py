"""Which part of a hostname did somebody register? By the Public Suffix List, as CAs count certificates.

Both sections of the list count, the private one too: each customer of a hosting platform that listed itself has a
domain of their own (Let's Encrypt, "Rate Limits", New Certificates per Registered Domain). The list comes with the
library and is as new as its pinned version, so an answer may change with a release: it is asked for where an answer is
recorded (an activity, a door), never within a workflow. Left out: what is counted (`quota`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from publicsuffixlist import PublicSuffixList


def registered_domain(hostname: str) -> str:
    """The shortest name under a public suffix that covers `hostname`; a public suffix itself stands for itself.

    Args:
        hostname: lower-case A-labels without the trailing dot, ``*.`` in front of a wildcard. A top-level label that
            the list does not know is a public suffix (its own rule ``*``).
    """
    bare = hostname.removeprefix("*.")
    return _suffixes().privatesuffix(bare) or bare


def registered_domains(hostnames: Iterable[str]) -> tuple[str, ...]:
    """Of all names, each once, sorted."""
    return tuple(sorted({registered_domain(hostname) for hostname in hostnames}))


def is_registry(name: str) -> bool:
    """Whether a zone of this name is a registry's, in which domains are registered: by the list's ICANN section.

    A top-level label that the list does not know is somebody's own.
    """
    return _registries().publicsuffix(name) == name


@cache
def _registries() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False, only_icann=True)


@cache
def _suffixes() -> PublicSuffixList:
    """Read at the first question, not on import: ten thousand rules take some tens of milliseconds."""
    return PublicSuffixList()
