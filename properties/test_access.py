"""Properties of who is let in: by key, and by origin."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wizard_actors.errors import AccessDeniedError
from wizard_actors.server.access import Access, check_origin
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.keys_file import hash_of

KEYS = st.lists(st.tuples(st.text(max_size=10), st.booleans()), unique_by=lambda key: key[0], max_size=5)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{2,5}){0,2}", fullmatch=True) | st.just("[::1]")
ORIGINS = st.tuples(st.sampled_from(["http", "https"]), HOSTS, st.none() | st.integers(1, 65535))


@given(KEYS, st.text(max_size=10))
def test_a_key_in_force_lets_its_own_caller_in_and_nothing_else_does(
    keys: list[tuple[str, bool]], another: str
) -> None:
    """Whatever texts the keys are."""
    table = [KeyConfig(name=f"k{n}", hash=hash_of(key), enabled=on) for n, (key, on) in enumerate(keys)]
    access = Access(KeysConfig(keys=table))
    in_force = {key: f"k{n}" for n, (key, on) in enumerate(keys) if on}

    for presented in (another, *(key for key, _ in keys)):
        if presented in in_force:
            assert access.caller(presented).name == in_force[presented]
        else:
            with pytest.raises(AccessDeniedError):
                access.caller(presented)


def text(origin: tuple[str, str, int | None]) -> str:
    """Return an origin as a browser sends it."""
    scheme, host, port = origin
    return f"{scheme}://{host}" + ("" if port is None else f":{port}")


def full(origin: tuple[str, str, int | None]) -> tuple[str, str, int]:
    """Return an origin with the port that counts."""
    scheme, host, port = origin
    return scheme, host, {"http": 80, "https": 443}[scheme] if port is None else port


@given(ORIGINS, ORIGINS)
def test_an_origin_is_allowed_where_it_is_the_same_and_nowhere_else(
    given_origin: tuple[str, str, int | None], allowed: tuple[str, str, int | None]
) -> None:
    """Letters may be large or small; scheme, host and port count."""
    check_origin(text(allowed).upper(), [text(allowed)])
    if full(given_origin) == full(allowed):
        check_origin(text(given_origin), [text(allowed)])
    else:
        with pytest.raises(AccessDeniedError):
            check_origin(text(given_origin), [text(allowed)])


@given(st.text(max_size=40), ORIGINS)
def test_no_text_is_taken_for_an_origin_by_mistake(sent: str, allowed: tuple[str, str, int | None]) -> None:
    """Whatever is added to an origin that is allowed, the whole is another one, or none."""
    assume(sent)
    for origin in (sent + text(allowed), text(allowed) + "." + sent, text(allowed) + "/" + sent):
        with pytest.raises(AccessDeniedError):
            check_origin(origin, [text(allowed)])
