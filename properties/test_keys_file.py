"""Properties of the keys file: whatever it holds is keys, or told; and what is added is all that changes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from wizard_actors.config import ServerConfig
from wizard_actors.errors import ConfigError
from wizard_actors.server.key_settings import KeyConfig
from wizard_actors.server.keys_file import add_key, hash_of, load_keys

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
TEXTS = ('"alice"', '"1d"', '"\\u0000"', f'"{hash_of("wz_a")}"', f'"{hash_of("wz_b")}"', '["a"]')
PLAIN = ("true", "0", "-1", "1.5", "nan", "1979-05-27", "[]", "{}")
VALUES = st.sampled_from([*TEXTS, *PLAIN, "{ requests_per_minute = 6 }", "{ tokens = 5, window = 7 }"])
SETTINGS = st.sampled_from(
    [*(setting.name for setting in attrs.fields(KeyConfig)), "key", "colour", "rate_limit.burst"]
)
TABLES = st.lists(st.dictionaries(SETTINGS, VALUES, max_size=5), max_size=4)


@given(st.text(max_size=50) | TABLES.map(lambda tables: "".join(map(_text, tables))))
def test_whatever_stands_there_is_keys_or_an_error_that_says_why(text: str) -> None:
    """Never a bug, and never keys that nobody could use."""
    with suppress(ConfigError):
        keys = load_keys(ServerConfig(), {"WIZARD_API_KEYS": text})
        assert keys is not None
        assert any(key.enabled for key in keys.keys)


def _text(table: dict[str, str]) -> str:
    return "[[keys]]\n" + "".join(f"{name} = {value}\n" for name, value in table.items())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(NAMES, st.booleans()), unique_by=lambda key: key[0], min_size=1, max_size=4), st.booleans())
def test_what_was_added_is_read_in_its_order(keys: list[tuple[str, bool]], ends: bool) -> None:
    """After what stood there, which is kept to the letter."""
    before = "# ours" + "\n" * ends
    with TemporaryDirectory() as folder:
        path = Path(folder, "keys.toml")
        path.write_text(before)

        for name, admin in keys:
            add_key(path, name, hash_of(name), admin=admin)

        path.chmod(0o600)
        found = load_keys(ServerConfig(api_keys_file=path), {})
        assert path.read_text().startswith(before)
    assert found is not None
    assert [(key.name, key.hash, key.admin) for key in found.keys] == [(n, hash_of(n), a) for n, a in keys]
