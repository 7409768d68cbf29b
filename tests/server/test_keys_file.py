"""The keys file: what it may say, what is found wrong with it, and how keys are added to it."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from wizard_actors.config import ServerConfig
from wizard_actors.errors import ConfigError, StorageError
from wizard_actors.server.key_settings import KeyConfig, KeyLimitConfig, KeysConfig, TokenBudgetConfig
from wizard_actors.server.keys_file import add_key, hash_of, load_keys, new_key

HASH = hash_of("wz_a")
OTHER = hash_of("wz_b")

WHOLE = f"""
[[keys]]
name = "alice"
hash = "{HASH}"
admin = true
routes = ["wizard"]
models = ["primary"]
max_in_flight = 16
rate_limit = {{ requests_per_minute = 60, tokens_per_minute = 100_000, burst = 10, max_wait = 2 }}
token_budget = {{ tokens = 1_000_000, window = "1d" }}

[[keys]]
name = "bob"
hash = "{OTHER}"
enabled = false
"""


def loaded(text: str) -> KeysConfig:
    """Return the keys in a text."""
    keys = load_keys(ServerConfig(), {"WIZARD_API_KEYS": text})
    assert keys is not None
    return keys


def table(**settings: str) -> str:
    """Return the text of one key."""
    given = {"name": '"alice"', "hash": f'"{HASH}"', **settings}
    return "[[keys]]\n" + "".join(f"{name} = {value}\n" for name, value in given.items())


def wrong(text: str) -> list[tuple[str, str]]:
    """Return the key and the reason of everything that is wrong with a text."""
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    return [(problem.key, problem.reason) for problem in caught.value.problems]


# -- reading -----------------------------------------------------------------------------------------------------------


def test_every_setting_is_read() -> None:
    """A file that says everything there is to say is what code would say."""
    assert loaded(WHOLE) == KeysConfig(
        keys=[
            KeyConfig(
                name="alice",
                hash=HASH,
                admin=True,
                routes=["wizard"],
                models=["primary"],
                max_in_flight=16,
                rate_limit=KeyLimitConfig(requests_per_minute=60, tokens_per_minute=100_000, burst=10, max_wait=2),
                token_budget=TokenBudgetConfig(tokens=1_000_000, window=86_400),
            ),
            KeyConfig(name="bob", hash=OTHER, enabled=False),
        ]
    )


def test_a_key_says_little_by_itself() -> None:
    """Name and hash are enough: the key is in force, no admin, and may use all there is."""
    (key,) = loaded(table()).keys

    assert (key.enabled, key.admin, key.routes, key.models, key.max_in_flight) == (True, False, None, None, None)
    assert (key.rate_limit, key.token_budget) == (None, None)


def test_a_limit_refuses_at_once_and_learns_nothing() -> None:
    """Unlike a model's limit, a key's waits for nobody unless it is told to."""
    (key,) = loaded(table(rate_limit="{ requests_per_minute = 60 }")).keys

    assert key.rate_limit is not None
    assert (key.rate_limit.max_wait, key.rate_limit.adaptive) == (0.0, False)


def test_without_file_and_variable_there_are_no_keys() -> None:
    """None is for nobody having set any, and for nothing else."""
    assert load_keys(ServerConfig(), {}) is None


def test_the_file_is_read(tmp_path: Path) -> None:
    """`server.api_keys_file` names it."""
    path = tmp_path / "keys.toml"
    path.write_text(WHOLE)
    path.chmod(0o600)

    assert load_keys(ServerConfig(api_keys_file=path), {}) == loaded(WHOLE)


def test_file_and_variable_together_are_refused(tmp_path: Path) -> None:
    """Nobody could tell which of them counts."""
    path = tmp_path / "keys.toml"
    path.write_text(WHOLE)

    with pytest.raises(ConfigError, match=r"api_keys_file.*WIZARD_API_KEYS"):
        load_keys(ServerConfig(api_keys_file=path), {"WIZARD_API_KEYS": WHOLE})


def test_a_file_that_is_not_there_is_told_with_what_makes_one(tmp_path: Path) -> None:
    """The error names the setting, the file and the remedy."""
    with pytest.raises(ConfigError) as caught:
        load_keys(ServerConfig(api_keys_file=tmp_path / "keys.toml"), {})

    assert "server.api_keys_file" in str(caught.value)
    assert "keys.toml" in str(caught.value)
    assert "--new-key" in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nobody yet\n", "keys = []\n", table(enabled="false")])
def test_keys_that_nobody_could_use_are_no_keys(text: str) -> None:
    """Neither is everybody locked out by mistake, nor everybody let in."""
    assert [key for key, _ in wrong(text)] == ["keys"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": '"al/ice"'}, "keys[0].name"),
        ({"name": '""'}, "keys[0].name"),
        ({"name": f'"{"a" * 65}"'}, "keys[0].name"),
        ({"name": '"älice"'}, "keys[0].name"),
        ({"hash": '"wz_a"'}, "keys[0].hash"),
        ({"hash": f'"sha256:{"A" * 64}"'}, "keys[0].hash"),
        ({"hash": f'"md5:{"a" * 64}"'}, "keys[0].hash"),
        ({"admin": '"yes"'}, "keys[0].admin"),
        ({"routes": "[]"}, "keys[0].routes"),
        ({"models": '"primary"'}, "keys[0].models"),
        ({"max_in_flight": "0"}, "keys[0].max_in_flight"),
        ({"rate_limit": "{ requests_per_minute = 1, adaptive = true }"}, "keys[0].rate_limit.adaptive"),
        ({"rate_limit": "{ tokens_per_minute = 1, burst = 3 }"}, "keys[0].rate_limit.burst"),
        ({"rate_limit": "{ max_wait = 3 }"}, "keys[0].rate_limit.requests_per_minute"),
        (
            {"rate_limit": "{ requests_per_minutes = 3, tokens_per_minute = 1 }"},
            "keys[0].rate_limit.requests_per_minutes",
        ),
        ({"token_budget": "{ tokens = 1 }"}, "keys[0].token_budget.window"),
        ({"token_budget": '{ tokens = 0, window = "1d" }'}, "keys[0].token_budget.tokens"),
        ({"token_budget": "{ tokens = 1, window = 0 }"}, "keys[0].token_budget.window"),
        ({"colour": '"red"'}, "keys[0].colour"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(settings: dict[str, str], key: str) -> None:
    """Each mistake is one problem, at the key that has it."""
    assert [found for found, _ in wrong(table(**settings))] == [key]


def test_everything_wrong_is_told_at_once() -> None:
    """Doubled names and hashes too, beside what single values show."""
    text = table(admin="3") + table(name='"bob"') + table(hash=f'"{OTHER}"', colour="1")

    assert sorted(key for key, _ in wrong(text)) == ["keys[0].admin", "keys[1].hash", "keys[2].colour", "keys[2].name"]


def test_keys_of_one_name_or_hash_are_refused_in_code_too() -> None:
    """The same rule holds for keys that no file has."""
    with pytest.raises(ConfigError, match=r"keys\[1\]\.name"):
        KeysConfig(keys=[KeyConfig(name="alice", hash=HASH), KeyConfig(name="alice", hash=OTHER)])


def test_a_key_in_the_place_of_its_hash_is_not_repeated() -> None:
    """Whoever reads the error learns what to write, and no key."""
    key = new_key()
    with pytest.raises(ConfigError) as caught:
        loaded(table(hash=f'"{key}"') + table(name='"bob"', key=f'"{key}"'))

    assert key not in str(caught.value)
    assert "--new-key" in str(caught.value)


def test_tables_that_are_called_key_are_told_what_they_are_called() -> None:
    """`[[key]]` is no key in the place of a hash."""
    with pytest.raises(ConfigError, match="did you mean `keys`"):
        loaded(table().replace("[[keys]]", "[[key]]"))


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_a_file_that_is_open_to_others_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int) -> None:
    """It holds hashes only: a warning, and it is read."""
    path = tmp_path / "keys.toml"
    path.write_text(WHOLE)
    path.chmod(mode)

    with caplog.at_level(logging.WARNING, "wizard_actors.server"):
        assert load_keys(ServerConfig(api_keys_file=path), {}) is not None

    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


def test_a_file_for_its_owner_alone_is_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As `add_key` makes it."""
    path = tmp_path / "keys.toml"
    add_key(path, "alice", HASH)

    load_keys(ServerConfig(api_keys_file=path), {})

    assert not caplog.records
    assert path.stat().st_mode & 0o777 == 0o600


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_new_key_is_long_and_another_one_each_time() -> None:
    """256 random bits, in characters that a header may hold."""
    keys = {new_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(key.startswith("wz_") and len(key) == 46 and key.isascii() for key in keys)


def test_the_hash_is_sha256_of_the_key() -> None:
    """So that it can be made with any tool."""
    assert hash_of("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# -- writing -----------------------------------------------------------------------------------------------------------


def read_back(path: Path) -> KeysConfig | None:
    """Return the keys in a file."""
    return load_keys(ServerConfig(api_keys_file=path), {})


def test_what_stands_in_the_file_stays_as_it_is(tmp_path: Path) -> None:
    """Comments too, and a last line without its end."""
    path = tmp_path / "keys.toml"
    text = "# ours\r\n" + table(rate_limit="{ requests_per_minute = 60 }  # enough").rstrip("\n")
    path.write_bytes(text.encode())

    add_key(path, "bob", OTHER, admin=True)

    assert path.read_bytes().startswith(text.encode() + b"\n")
    found = read_back(path)
    assert found is not None
    assert [(key.name, key.admin) for key in found.keys] == [("alice", False), ("bob", True)]


@pytest.mark.parametrize("text", [None, "", "# nobody yet\n", table(name='"bob"', hash=f'"{OTHER}"', enabled="false")])
def test_the_first_key_in_force_can_be_added(tmp_path: Path, text: str | None) -> None:
    """Also to a file that is missing, or of no use before."""
    path = tmp_path / "keys.toml"
    if text is not None:
        path.write_text(text)

    add_key(path, "alice", HASH)

    found = read_back(path)
    assert found is not None
    assert found.keys[-1] == KeyConfig(name="alice", hash=HASH)


@pytest.mark.parametrize(
    ("name", "key_hash", "there"),
    [
        ("alice", OTHER, table()),
        ("bob", HASH, table()),
        ("b/ob", OTHER, table()),
        ("bob", "wz_b", table()),
        ("bob", OTHER, table(colour="1")),
        ("bob", OTHER, "[[keys"),
        ("bob", OTHER, f'keys = [{{ name = "alice", hash = "{HASH}" }}]\n'),
    ],
)
def test_what_cannot_be_added_leaves_the_file_as_it_was(tmp_path: Path, name: str, key_hash: str, there: str) -> None:
    """A name or hash that is taken or is none, and a file that is not valid, or cannot be added to."""
    path = tmp_path / "keys.toml"
    path.write_text(there)

    with pytest.raises(ConfigError):
        add_key(path, name, key_hash)

    assert path.read_text() == there


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As a file that cannot be written, by its name."""
    with pytest.raises(StorageError, match=r"keys\.toml"):
        add_key(tmp_path / "none" / "keys.toml", "alice", HASH)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is there, whole, and no unfinished one beside it."""
    path = tmp_path / "keys.toml"
    add_key(path, "alice", HASH)
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        add_key(path, "bob", OTHER)

    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [".keys.toml.lock", "keys.toml"]


def test_the_file_keeps_its_permissions(tmp_path: Path) -> None:
    """Its lock has them, too: whoever may write the one may take the other."""
    path = tmp_path / "keys.toml"
    path.write_text(table())
    path.chmod(0o640)

    add_key(path, "bob", OTHER)

    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / ".keys.toml.lock").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("there", [True, False])
def test_the_file_and_its_lock_belong_to_whom_they_belonged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    """Or to the owner of the folder, whoever adds the key: root may."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr("os.fchown", lambda _handle, owner, group: given.append((owner, group)))
    path = tmp_path / "keys.toml"
    if there:
        path.write_text(table())
    like = (path if there else tmp_path).stat()

    add_key(path, "bob", OTHER)

    assert given == [(like.st_uid, like.st_gid)] * 2


def test_a_group_that_is_not_ours_to_give_leaves_its_permissions_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be those of another group."""
    path = tmp_path / "keys.toml"
    path.write_text(table())
    path.chmod(0o640)
    stat = os.fstat

    def refused(_handle: int, _owner: int, _group: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    def elsewhere(handle: int) -> os.stat_result:
        found = list(stat(handle))
        found[5] += 1
        return os.stat_result(found)

    monkeypatch.setattr("os.fchown", refused)
    monkeypatch.setattr("os.fstat", elsewhere)
    add_key(path, "bob", OTHER)

    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    """It is not the file of the keys that is at fault."""
    (tmp_path / ".keys.toml.lock").mkdir()

    with pytest.raises(StorageError, match=r"\.keys\.toml\.lock cannot be written"):
        add_key(tmp_path / "keys.toml", "alice", HASH)


def test_whoever_cannot_be_told_gets_no_key(tmp_path: Path) -> None:
    """The name is free as before, and there is no unfinished file."""
    path = tmp_path / "keys.toml"

    def nobody_listens() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        add_key(path, "alice", HASH, tell=nobody_listens)

    assert [file.name for file in tmp_path.iterdir()] == [".keys.toml.lock"]
    assert add_key(path, "alice", HASH) == path.resolve()


def test_a_link_stays_one(tmp_path: Path) -> None:
    """The file behind it gets the key."""
    path, link = tmp_path / "keys.toml", tmp_path / "link.toml"
    add_key(path, "alice", HASH)
    link.symlink_to(path)

    add_key(link, "bob", OTHER)

    assert link.is_symlink()
    found = read_back(path)
    assert found is not None
    assert len(found.keys) == 2


def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    """Whoever adds one waits for the others."""
    path = tmp_path / "keys.toml"
    names = [f"key-{number}" for number in range(8)]
    threads = [threading.Thread(target=add_key, args=(path, name, hash_of(name))) for name in names]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = read_back(path)
    assert found is not None
    assert sorted(key.name for key in found.keys) == names
