"""A CA of one's own is applied with the caller's rights, once, and never over what is somebody else's."""

from __future__ import annotations

import dataclasses

import pytest

from lab.cluster import Lab
from starter import authorities
from starter.credentials import NotWrittenError
from tests.lifecycle import certificate_shapes

pytestmark = pytest.mark.lab

ROOT = dataclasses.replace(certificate_shapes.authority("root"), name="c4-own-root")


@pytest.fixture(scope="module", autouse=True)
async def foreign(lab: Lab) -> None:
    """A Certificate of somebody else; where it was taken the webhook answers (cert-manager#2908)."""
    certificate = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "c4-foreign", "namespace": "cert-manager"},
        "spec": {"secretName": "c4-foreign", "commonName": "foreign", "issuerRef": {"name": "nobody"}},
    }
    await lab.apply_when_answered(certificate)


async def test_asking_twice_changes_nothing(lab: Lab) -> None:
    first = await authorities.write(str(lab.kubeconfig), ROOT)
    again = await authorities.write(str(lab.kubeconfig), ROOT)
    assert (first.changed, again.changed) == (True, False)


async def test_the_secret_of_somebody_else_is_not_taken(lab: Lab) -> None:
    metadata = {"name": "c4-kept", "namespace": "cert-manager"}
    await lab.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"mine": "yes"}})
    with pytest.raises(NotWrittenError, match="Secret cert-manager/c4-kept is somebody else's"):
        await authorities.write(str(lab.kubeconfig), dataclasses.replace(ROOT, name="c4-kept"))


async def test_the_certificate_of_somebody_else_is_not_taken(lab: Lab) -> None:
    with pytest.raises(NotWrittenError, match="Certificate cert-manager/c4-foreign is somebody else's"):
        await authorities.write(str(lab.kubeconfig), dataclasses.replace(ROOT, name="c4-foreign"))
