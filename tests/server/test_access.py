"""Who is let in: by key, by address and by origin; and what a reload changes for those who are in already."""

from __future__ import annotations

import hmac
from contextlib import suppress

import pytest

from wizard_actors.config import ModelConfig, RouteConfig, ServerConfig, WizardConfig
from wizard_actors.errors import AccessDeniedError, ConfigError
from wizard_actors.server.access import Access, Caller, check_names, check_origin
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.keys_file import hash_of

ALICE = KeyConfig(
    name="alice", hash=hash_of("wz_alice"), admin=True, routes=["wizard"], models=["primary"], max_in_flight=3
)
BOB = KeyConfig(name="bob", hash=hash_of("wz_bob"))
GONE = KeyConfig(name="carol", hash=hash_of("wz_carol"), enabled=False)


def access(*keys: KeyConfig) -> Access:
    """Return the access of a server with these keys."""
    return Access(KeysConfig(keys=keys or [ALICE, BOB, GONE]))


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_known_by_itself() -> None:
    """Whoever presents it is its name, and may do what it says."""
    caller = access().caller("wz_alice")

    assert (caller.name, caller.admin, caller.routes, caller.models) == ("alice", True, ("wizard",), ("primary",))
    assert (caller.max_in_flight, caller.tenant, caller.session_prefix) == (3, "alice", "alice/")


@pytest.mark.parametrize("presented", [None, "", "wz_ali", "alice", "wz_carol", ALICE.hash, "wz_alice ", "\udc80", "ä"])
def test_anything_else_is_refused_without_a_hint_at_names(presented: str | None) -> None:
    """No key, a wrong one, one that is not in force, a name, a hash: nobody learns which keys there are."""
    with pytest.raises(AccessDeniedError) as caught:
        access().caller(presented)

    assert caught.value.key is None
    assert not any(name in str(caught.value) for name in ("alice", "bob", "carol"))


def test_a_wrong_key_and_one_out_of_force_are_told_apart_by_nobody() -> None:
    """Their errors say the same."""
    said = []
    for presented in ("wz_wrong", "wz_carol"):
        with pytest.raises(AccessDeniedError) as caught:
            access().caller(presented)
        said.append(str(caught.value))

    assert said[0] == said[1]


@pytest.mark.parametrize("presented", ["wz_alice", "wz_bob", "wz_wrong", "", None])
def test_every_key_is_compared_whichever_is_presented(presented: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the place of a key among the others nor its being one shows in the time."""
    compared: list[str] = []
    real = hmac.compare_digest

    def counted(given: str, known: str) -> bool:
        compared.append(known)
        return real(given, known)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    with suppress(AccessDeniedError):
        access().caller(presented)

    assert compared == [ALICE.hash, BOB.hash, GONE.hash]


def test_a_caller_shows_no_secret() -> None:
    """Neither the key nor its hash appears where it is printed."""
    shown = repr(access().caller("wz_alice"))

    assert "wz_alice" not in shown
    assert ALICE.hash not in shown
    assert "sha256" not in shown


def test_without_keys_everybody_is_an_admin_without_a_name() -> None:
    """What is presented is ignored; sessions and cached answers are those of the machine."""
    open_access = Access(None)

    assert open_access.caller(None) == open_access.caller("whatever") == Caller(name="", admin=True, extra=True)
    assert (open_access.caller(None).tenant, open_access.caller(None).session_prefix) == ("", "")


# -- reloads -----------------------------------------------------------------------------------------------------------


def test_a_caller_goes_by_the_keys_of_now() -> None:
    """What its key may do changes with a reload, its name too."""
    door = access()
    caller = door.caller("wz_bob")

    door.replace(KeysConfig(keys=[KeyConfig(name="rob", hash=BOB.hash, admin=True)]), bound=[])

    assert door.current(caller) == door.caller("wz_bob")
    assert (door.current(caller).name, door.current(caller).admin) == ("rob", True)


@pytest.mark.parametrize(
    "keys",
    [
        [ALICE],
        [ALICE, KeyConfig(name="bob", hash=BOB.hash, enabled=False)],
        [ALICE, KeyConfig(name="bob", hash=hash_of("wz_another"))],
    ],
)
def test_a_key_that_is_gone_disabled_or_replaced_lets_nobody_go_on(keys: list[KeyConfig]) -> None:
    """Another key of the same name is another key."""
    door = access()
    caller = door.caller("wz_bob")

    door.replace(KeysConfig(keys=keys), bound=[])

    with pytest.raises(AccessDeniedError):
        door.current(caller)


def test_whoever_came_without_a_key_is_asked_for_one_once_there_are_keys() -> None:
    """And whoever came with one is not taken for everybody once there are none."""
    door = Access(None)
    anybody = door.caller(None)
    assert door.current(anybody) == anybody

    door.replace(KeysConfig(keys=[BOB]), bound=[])
    bob = door.caller("wz_bob")
    with pytest.raises(AccessDeniedError):
        door.current(anybody)

    door.replace(None, bound=["127.0.0.1:8000"])
    with pytest.raises(AccessDeniedError):
        door.current(bob)


def test_a_server_that_others_reach_never_loses_its_keys() -> None:
    """The reload is refused, and the keys stay in force."""
    door = access()

    with pytest.raises(ConfigError, match=r"server\.api_keys_file"):
        door.replace(None, bound=["127.0.0.1:8000", "0.0.0.0:8001"])

    assert door.caller("wz_bob").name == "bob"
    with pytest.raises(AccessDeniedError):
        door.caller(None)


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "127.8.9.1:0", "[::1]:8000", "localhost:8000", "LocalHost:1", "[0:0:0:0:0:0:0:1]:80"]
)
def test_this_machine_needs_no_key(address: str) -> None:
    """Loopback addresses, and the one name for them."""
    Access(None).check_bind(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:8000",
        "[::]:8000",
        "192.168.0.1:80",
        "10.0.0.1:80",
        "[::ffff:127.0.0.1]:80",
        "[fe80::1]:80",
        "128.0.0.1:80",
        "my-machine:80",
        "localhost.example.com:80",
        "localhost.:80",
        "127.1:80",
        "nonsense",
    ],
)
def test_other_addresses_need_keys(address: str) -> None:
    """The error names the setting and what makes a key; with keys any address will do."""
    with pytest.raises(ConfigError) as caught:
        Access(None).check_bind(address)
    assert caught.value.problems[0].key == "server.api_keys_file"
    assert "wizard serve --new-key NAME" in str(caught.value)

    access().check_bind(address)


# -- origins -----------------------------------------------------------------------------------------------------------

ORIGINS = ("https://example.com", "http://localhost:3000", "https://[::1]:8443")


@pytest.mark.parametrize(
    "origin",
    [None, "https://example.com", "HTTPS://Example.COM", "https://example.com:443", *ORIGINS],
)
def test_an_origin_that_is_named_may_connect(origin: str | None) -> None:
    """However its letters are written; and whatever is no browser."""
    check_origin(origin, ORIGINS)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "NULL",
        "*",
        "http://example.com",
        "https://example.com:8443",
        "https://example.com.evil.org",
        "https://evil.org/https://example.com",
        "https://example.com/",
        "https://example.com?",
        "https://example.com#",
        "https://example.com:",
        "https://user@example.com",
        "https://example.com https://evil.org",
        "https://sub.example.com",
        "https://example.com.",
        "https://example.com:99999",
        "https://example.com\\.evil.org",
        "ws://example.com",
        "file://",
        "https://",
        "https://[::1",
        "https://[::1].evil.org:8443",
        "https://ex\u00e4mple.com",
        "\thttps://example.com",
    ],
)
def test_any_other_origin_is_refused(origin: str) -> None:
    """Also one that merely looks like it; "null" even where somebody has named it."""
    with pytest.raises(AccessDeniedError, match=r"server\.origins"):
        check_origin(origin, (*ORIGINS, "null", "*", ""))


def test_without_origins_no_web_page_may_connect() -> None:
    """Not even one of this machine."""
    with pytest.raises(AccessDeniedError):
        check_origin("http://localhost:3000", ())


# -- names -------------------------------------------------------------------------------------------------------------


CONFIG = WizardConfig(
    models=[
        ModelConfig(name="primary", provider="simulated"),
        ModelConfig(name="backup", provider="simulated", enabled=False),
    ],
    routes=[RouteConfig(name="cheap", chain=("primary",))],
    server=ServerConfig(api_keys_file="keys.toml"),
)


def test_names_in_keys_that_there_are_are_fine() -> None:
    """Of the default route and of a disabled model, too; a key may name none, and a server have no keys."""
    given = KeyConfig(name="a", hash=ALICE.hash, routes=["wizard", "cheap"], models=["primary", "backup"])

    check_names(KeysConfig(keys=[given, BOB]), CONFIG)
    check_names(None, CONFIG)


def test_a_name_in_a_key_that_there_is_not_is_told_with_what_there_is() -> None:
    """All of them at once, by the file and the place in it: a typo would else shut the key out, or let it in."""
    wrong = KeyConfig(name="a", hash=ALICE.hash, routes=["cheap", "chaep"], models=["xyz"])

    with pytest.raises(ConfigError) as caught:
        check_names(KeysConfig(keys=[BOB, wrong]), CONFIG)

    assert str(caught.value.file) == "keys.toml"
    assert [problem.key for problem in caught.value.problems] == ["keys[1].routes[1]", "keys[1].models[0]"]
    said = str(caught.value)
    assert "of the key 'a' names no route: 'chaep'" in said
    assert "did you mean 'cheap'?" in said
    assert "of the key 'a' names no model: 'xyz'" in said
    assert "there are 'primary', 'backup'" in said


def test_whoever_waits_for_other_keys_is_woken_when_they_are_in_force() -> None:
    """Each time; not where they are refused."""
    server = access(ALICE)
    first = server.changed
    with pytest.raises(ConfigError):
        server.replace(None, bound=["0.0.0.0:1"])
    assert not first.is_set()

    server.replace(KeysConfig(keys=[BOB]), bound=[])

    assert first.is_set()
    assert not server.changed.is_set()
