"""Who asks? Bearer tokens by a file of tenants and SHA-256 sums, so that the file opens no door.

A line is ``TENANT SHA256``, in hex; ``#`` begins a comment. A tenant may have several lines, so that a token is
replaced without a gap. A token has 256 random bits, for which one plain hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from pathlib import Path

import structlog

from starter.settings import TENANT

log = structlog.stdlib.get_logger("certwright.portal")

_PREFIX = "cw_"  # so that scanners of leaked secrets can be taught to know it
_LONGEST = 512
_SUM = re.compile(r"[0-9a-f]{64}")


class TokensFileError(ValueError):
    """The file cannot be read or has a line that is none; `str` says which."""


def new(tenant: str) -> tuple[str, str]:
    """A fresh token, and the line for the file."""
    token = _PREFIX + secrets.token_urlsafe(32)
    return token, f"{tenant} {digest(token)}"


def digest(token: str) -> str:
    """SHA-256 of a token, hex."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The tokens of a file, read again when it changes; a file that became bad keeps the last good ones."""

    def __init__(self, path: Path) -> None:
        """Raises TokensFileError."""
        self._path = path
        self._seen = _mark(path)
        self._known = _parsed(path)
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("tokens file is open to others", file=str(path), fix=f"chmod 600 {path}")

    def tenant(self, token: str) -> str | None:
        """Whose token it is, or None. Every line is compared, in constant time each."""
        self._reload()
        if not token or len(token) > _LONGEST:
            return None
        presented = digest(token)
        found = None
        for tenant, expected in self._known:
            if hmac.compare_digest(presented, expected):
                found = tenant
        return found

    def _reload(self) -> None:
        try:
            mark = _mark(self._path)
            if mark == self._seen:
                return
            self._seen = mark
            self._known = _parsed(self._path)
        except TokensFileError as error:
            log.error("tokens file is bad, the last good one counts", file=str(self._path), reason=str(error))
            return
        log.info("tokens read again", file=str(self._path), lines=len(self._known))


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise TokensFileError(f"{path} cannot be read: {error.strerror}") from None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _parsed(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokensFileError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokensFileError(f"{path} is no text") from None
    known = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not TENANT.fullmatch(words[0]) or not _SUM.fullmatch(words[1].lower()):
            # the line is not repeated: somebody may have written the token itself
            raise TokensFileError(f"line {number} of {path} is not TENANT SHA256; see `certwright token new TENANT`")
        known.append((words[0], words[1].lower()))
    return tuple(known)
