"""Variables become values, or reasons; what is not ours is left alone."""

from __future__ import annotations

import pytest

from lifecycle.settings import KNOWN, Variables, period, socket_address


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("15m", 900.0), ("6h", 21600.0), ("1d", 86400.0), ("250ms", 0.25), ("1.5h", 5400.0)],
)
def test_a_length_of_time(text: str, seconds: float) -> None:
    assert seconds == period(text)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1w", "1 h", "1e3", "١s"])
def test_what_is_no_length_of_time(text: str) -> None:
    assert period(text) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("::1:80", None),
        ("localhost:80", None),
        ("127.0.0.1", None),
        ("127.0.0.1:99999", None),
        ("127.0.0.1:", None),
    ],
)
def test_an_address_to_listen_on(text: str, address: tuple[str, int] | None) -> None:
    assert address == socket_address(text)


def test_a_misspelt_variable_is_refused_and_a_strangers_is_not() -> None:
    variables = Variables({"CERTWRIGHT_LOG_LEVL": "info", "CERTWRIGHT_CACHE": "/x", "PATH": "/bin"})
    (found,) = variables.problems()
    assert (found.field, found.fix) == ("CERTWRIGHT_LOG_LEVL", "did you mean CERTWRIGHT_LOG_LEVEL?")


def test_only_known_variables_can_be_read() -> None:
    with pytest.raises(KeyError):
        Variables({}).text("SOMETHING_NEW")
    assert all(KNOWN.values())


def test_a_long_value_is_cut_and_a_control_character_refused() -> None:
    variables = Variables({"CERTWRIGHT_LOG_LEVEL": "x" * 500, "CERTWRIGHT_TENANT": "a\x1bb"})
    variables.choice("LOG_LEVEL", ("info",), "info")
    assert variables.text("TENANT", "default") == "default"
    level, tenant = variables.problems()
    assert len(level.value) <= 80
    assert (tenant.value, tenant.problem) == ("", "has control characters")
