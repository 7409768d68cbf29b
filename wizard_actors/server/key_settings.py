"""The settings of keys: who may use a server, and how much. `wizard_actors.server.keys_file` reads and writes them.

Annotations in this file must stay objects, not strings: they are what the values are checked against.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

from attrs import field, frozen

from wizard_actors.config import RateLimitConfig
from wizard_actors.config.idle import idle
from wizard_actors.config.strict import chosen, strict
from wizard_actors.config.values import BadValue, Seconds, above, at_least
from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["KeyConfig", "KeyLimitConfig", "KeysConfig", "TokenBudgetConfig", "doubled"]

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
HASH: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
ONLY_HASHES: Final = "only the hash of a key stands here: `wizard serve --new-key NAME` makes both"


def _key_name(_table: object, _field: object, value: str) -> None:
    if NAME.fullmatch(value) is None:
        raise BadValue("must be 1 to 64 letters, digits, `.`, `_` and `-`, of ASCII")


def _key_hash(_table: object, _field: object, value: str) -> None:
    if HASH.fullmatch(value) is None:  # the text may be the key itself, and is not repeated
        raise BadValue("must be `sha256:` and 64 hexadecimal digits, in small letters", ONLY_HASHES)


def _some(_table: object, _field: object, value: tuple[str, ...] | None) -> None:
    if not value:
        raise BadValue("is empty", "leave it out for all of them; `enabled = false` shuts a key out")


def _not_adaptive(_table: object, _field: object, value: object) -> None:
    if value:
        raise BadValue("must be false: nobody's answers teach what a key may send", "leave it out")


def _as_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return cast("tuple[str, ...] | None", names)


@frozen(kw_only=True, field_transformer=strict)
class KeyLimitConfig(RateLimitConfig):
    """How much a key may ask for in a minute; at least one of the two limits is set.

    As the limit of a model, but that a request which is not due is refused at once, unless `max_wait`, in seconds, lets
    it wait, and that nothing is learned.
    """

    adaptive: bool = field(default=False, validator=_not_adaptive)
    max_wait: Seconds = field(default=0.0, validator=at_least(0))

    def __attrs_post_init__(self) -> None:
        problems = list(idle("rate_limit", chosen(self)))
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            hint = "set `requests_per_minute` or `tokens_per_minute`, or leave the table out"
            problems.append(ConfigProblem("requests_per_minute", "is not set, nor `tokens_per_minute`", hint))
        if problems:
            raise ConfigError(problems)


@frozen(kw_only=True, field_transformer=strict)
class TokenBudgetConfig:
    """How many tokens, of prompts and answers together, a key may use within any `window` seconds.

    What was used is kept in memory: it begins anew with the process.
    """

    tokens: int = field(validator=at_least(1))
    window: Seconds = field(validator=above(0))


@frozen(kw_only=True, field_transformer=strict)
class KeyConfig:
    """One key: its name, which its sessions and cached answers go by, and its `hash`, "sha256:" and 64 digits.

    `admin`: it may look at the whole server. One that is not `enabled` is refused. `routes` and `models` are those that
    it may use, None: all; the other models of a route are left out for it. With `routes` alone it may ask by name the
    models of those routes. At most `max_in_flight` requests of it are in progress at once, None: `server.max_per_key`.
    `extra`: its prompts may hold `extra` fields, which go to providers as they are: they get round everything else that
    stands here, for they may name another model, ask for several answers, or hide what was used.
    """

    name: str = field(validator=_key_name)
    hash: str = field(validator=_key_hash)
    admin: bool = False
    enabled: bool = True
    routes: tuple[str, ...] | None = field(default=None, converter=_as_names, validator=_some)
    models: tuple[str, ...] | None = field(default=None, converter=_as_names, validator=_some)
    max_in_flight: int | None = field(default=None, validator=at_least(1))
    extra: bool = False
    rate_limit: KeyLimitConfig | None = None
    token_budget: TokenBudgetConfig | None = None


def _as_keys(keys: Sequence[KeyConfig]) -> tuple[KeyConfig, ...]:
    return cast("tuple[KeyConfig, ...]", keys)


@frozen(kw_only=True, field_transformer=strict)
class KeysConfig:
    """Every key. Raises `ConfigError` where two have one name or one hash."""

    keys: tuple[KeyConfig, ...] = field(default=(), converter=_as_keys)

    def __attrs_post_init__(self) -> None:
        if problems := list(doubled({"name": key.name, "hash": key.hash} for key in self.keys)):
            raise ConfigError(problems)


def doubled(keys: Iterable[object]) -> Iterator[ConfigProblem]:
    """Find the names and hashes that more than one of `keys`, tables as they were written, have."""
    listed = [key if isinstance(key, Mapping) else {} for key in keys]
    for setting in ("name", "hash"):
        given = [key.get(setting) for key in listed]
        counts = Counter(value for value in given if isinstance(value, str))
        first: dict[str, int] = {}
        for index, value in enumerate(given):
            if not isinstance(value, str) or counts[value] == 1:
                continue
            if value in first:
                hint = "each key has a name of its own" if setting == "name" else "each key is made anew"
                reason = f"is that of `keys[{first[value]}]` too"
                yield ConfigProblem(f"keys[{index}].{setting}", reason, hint)
            first.setdefault(value, index)
