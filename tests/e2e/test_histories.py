"""What lies in Temporal for years, and what is logged: no key, no token, no PEM, in whatever wrapping.

Runs after all other end-to-end tests and reads every history they made, the memos and search attributes in it
included, what is pending, and the logs of the product's processes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.e2e.play import Play

pytestmark = pytest.mark.lab

SHAPES = re.compile(
    rb"PRIVATE KEY|AGE-SECRET-KEY-|eyJhbGciOi[\w-]+\.|BEGIN CERT|acme-challenge/[\w-]{20}|\"tls\.key\"|\"d\": ?\""
)
"""What secrets look like: PEM, age identities, JWTs, a challenge's path, a Secret's data, a JWK's private part."""

PUBLIC = re.compile(rb"BEGIN CERT")
"""An issuer is asked for with the CA's public certificates, and only there."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]{40,}")
_DEEPEST = 3


def layers(text: bytes, depth: int = 0) -> Iterator[bytes]:
    """The text, and what each long piece of base64 in it says, and what is in that."""
    yield text
    if depth == _DEEPEST:
        return
    for piece in _BASE64.findall(text):
        for decoded in _decoded(piece):
            yield from layers(decoded, depth + 1)


def _decoded(piece: bytes) -> Iterator[bytes]:
    bare = piece.rstrip(b"=")
    for alphabet in (None, b"-_"):
        try:
            yield base64.b64decode(bare + b"=" * (-len(bare) % 4), altchars=alphabet, validate=True)
        except binascii.Error:
            continue


def wrapped(secret: bytes) -> set[bytes]:
    """Octets as they may stand in a text: as they are, in hex, and in base64 at each of three places in a longer one.

    The ends are left out where they depend on the neighbours.
    """
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret)
        inner = encoded[4 if shift else 0 : -4]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def of_key(pem: bytes) -> set[bytes]:
    """What gives a private key away: its PEM, its DER, its secret number, in each wrapping."""
    key = load_pem_private_key(pem, password=None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        octets = key.private_bytes_raw()
        secret = int.from_bytes(octets, "big")
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        numbers = key.private_numbers()
        secret = numbers.private_value if isinstance(numbers, ec.EllipticCurvePrivateNumbers) else numbers.d
        octets = secret.to_bytes((secret.bit_length() + 7) // 8, "big")
    body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-----"))
    return {
        *wrapped(pem),
        *wrapped(der),
        *wrapped(octets),
        *wrapped(body),
        *pem.splitlines()[1:-1][:1],
        str(secret).encode(),
    }


async def needles(play: Play) -> set[bytes]:
    """Every secret of this run: keys that a Secret ever held, tokens, the age identity."""
    stage = play.stage
    found: set[bytes] = set()
    for pem in play.keys:
        found |= of_key(pem)
    for token in stage.tokens.values():
        found |= wrapped(token.encode())
    found |= wrapped(stage.identity.read_bytes().strip())
    for kubeconfig in (stage.directory / "keys").glob("*.kubeconfig"):
        (token_line,) = re.findall(r"token: (\S+)", kubeconfig.read_text())
        found |= wrapped(token_line.encode())
        found |= wrapped(token_line.rpartition(".")[2].encode())
    assert all(len(needle) >= 16 for needle in found), "a shorter one would be found by chance"
    return found


async def events(play: Play) -> dict[str, bytes]:
    """Each workflow run of the session, by type, id and run: its whole history and what is pending, as octets."""
    read = {}
    async for execution in play.stage.temporal.list_workflows():
        handle = play.stage.temporal.get_workflow_handle(execution.id, run_id=execution.run_id)
        history = await handle.fetch_history()
        described = (await handle.describe()).raw_description
        parts = [*(event.SerializeToString() for event in history.events), described.SerializeToString()]
        # what protobuf writes as octets is also read as a person would export it
        parts.append(json.dumps(history.to_json_dict()).encode())
        read[f"{execution.workflow_type} {execution.id} {execution.run_id}"] = b"\n".join(parts)
    return read


async def test_no_history_holds_a_key_a_token_or_pem(play: Play, resident: dict[str, object]) -> None:
    secrets = await needles(play)
    assert play.keys, "nothing was issued, so nothing was proved"
    histories = await events(play)
    assert any(name.startswith("DomainOnboarding") for name in histories)
    for name, octets in histories.items():
        text = b"\n".join(layers(octets))
        found = {match[0] for match in SHAPES.finditer(text)}
        if name.startswith("IssuerSetup"):
            found = {shape for shape in found if not PUBLIC.fullmatch(shape)}
        assert found == set(), f"{name} holds {found}"
        assert not any(secret in text for secret in secrets), f"{name} holds a secret of this run"


async def test_no_log_of_the_product_holds_a_key_a_token_or_pem(play: Play, resident: dict[str, object]) -> None:
    secrets = await needles(play)
    logs = [play.stage.directory / f"{name}.log" for name in ("worker", "installer", "portal")]
    assert all(log.stat().st_size for log in logs)
    for log in logs:
        text = b"\n".join(layers(log.read_bytes()))
        assert {match[0] for match in SHAPES.finditer(text)} == set(), log.name
        assert not any(secret in text for secret in secrets), f"{log.name} holds a secret of this run"


def test_the_scan_finds_a_key_in_each_wrapping() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    number = key.private_numbers().private_value.to_bytes(32, "big")
    secrets = of_key(pem)
    for hidden in (
        pem,
        base64.b64encode(pem),
        base64.b64encode(b'{"data": "' + base64.b64encode(pem) + b'"}'),
        number.hex().encode(),
        b'{"n": "' + base64.urlsafe_b64encode(number) + b'"}',
    ):
        text = b"\n".join(layers(b"an event: " + hidden + b" and more"))
        assert any(secret in text for secret in secrets), hidden
