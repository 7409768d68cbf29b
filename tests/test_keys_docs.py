"""`docs/keys.md` lists the settings that there are, and its example is a keys file."""

import re
import tomllib
from pathlib import Path

import attrs
import pytest

from wizard_actors.config import ServerConfig
from wizard_actors.server.key_settings import KeyConfig, KeyLimitConfig, KeysConfig, TokenBudgetConfig
from wizard_actors.server.keys_file import API_KEYS, load_keys

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "keys.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(?P<key>\w+)` \|[^|]*\| (?P<default>[^|]*?) \|", re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("## `[[keys]]`", KeyConfig),
        ("### `[keys.rate_limit]`", KeyLimitConfig),
        ("### `[keys.token_budget]`", TokenBudgetConfig),
    ],
)
def test_the_page_lists_every_setting_with_its_default(heading: str, table: type[attrs.AttrsInstance]) -> None:
    """Each setting of a key has its row, in order, and the default there is the one in force."""
    section = re.split(r"^#", TEXT.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = {row["key"]: row["default"] for row in ROW.finditer(section)}

    defaults = {each.name: each.default for each in attrs.fields(table)}
    assert list(rows) == list(defaults)
    for key, written in rows.items():
        value = {"required": attrs.NOTHING, "none": None}.get(written, written)
        if isinstance(value, str):
            value = tomllib.loads(f"x = {written.strip('`')}")["x"]
        assert value == defaults[key], key


def test_the_example_is_a_keys_file() -> None:
    """What people copy works, but for the hashes."""
    keys = load_keys(ServerConfig(), {API_KEYS: EXAMPLE})

    assert isinstance(keys, KeysConfig)
    assert [(key.name, key.admin) for key in keys.keys] == [("alice", False), ("ops", True)]
    budget = keys.keys[0].token_budget
    assert budget is not None
    assert (budget.tokens, budget.window) == (1_000_000, 86_400.0)


def test_the_bounds_that_the_page_names_are_the_defaults() -> None:
    """Its advice on how many keys fit goes by them."""
    server = ServerConfig()

    assert f"`server.max_in_flight`, {server.max_in_flight:,})" in TEXT
    assert f"{server.max_per_key} a key, that is so for up to three keys" in TEXT
    assert 3 * server.max_per_key < server.max_in_flight < 4 * server.max_per_key
