"""Keys: what holds one without showing it, and where one is read from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

from wizard_actors.config.values import BadValue

__all__ = ["Environment", "Secret", "key_from_env", "key_from_file", "require_file", "secret"]

SENDABLE: Final = re.compile(r"[\x20-\x7e]*", re.ASCII)
LARGEST_KEY: Final = 65_536


class Secret:
    """A text that shows itself as `***` wherever it is printed, formatted or logged; `reveal()` returns it.

    It can be compared, hashed and copied, but not pickled: a secret does not leave its process by accident.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text itself. For the wire alone."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __setattr__(self, attribute: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, attribute: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


class Environment(Mapping[str, str]):
    """The environment that a configuration was loaded from, as it is now. As a Secret it can be copied, but not
    pickled: there are keys in it.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __copy__(self) -> Environment:
        return self

    def __deepcopy__(self, memo: object) -> Environment:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        if self._variables:
            raise TypeError("a configuration cannot be pickled that was loaded with an `env` of its own")
        return Environment, ({},)


def secret(value: object) -> Secret:
    """Return `value` as a Secret; a text that cannot stand in an HTTP header is refused."""
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise BadValue("must be a text")
    if SENDABLE.fullmatch(value) is None:
        raise BadValue("holds characters that no HTTP header may hold", "look for a line break or a typographic quote")
    return Secret(value)


def key_from_env(variable: str, env: Mapping[str, str]) -> Secret:
    """Return the key in the environment variable; spaces and line breaks round it do not count."""
    if variable not in env:
        raise BadValue(f"names the environment variable {variable}, which is not set")
    text = env[variable].strip()
    if not text:
        raise BadValue(f"names the environment variable {variable}, which is empty")
    return _key(text, f"names the environment variable {variable}")


def key_from_file(path: Path) -> Secret:
    """Return the key that the file holds; spaces and line breaks round it do not count."""
    require_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_KEY + 1)
    except OSError as error:
        raise BadValue(f"names a file that cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_KEY:
        raise BadValue("names a file that is too large for a key")
    # Latin-1 reads any bytes; the check of the key then finds what does not belong there.
    text = content.decode("latin-1").strip()
    if not text:
        raise BadValue("names a file that is empty")
    return _key(text, "names a file")


def require_file(path: Path) -> None:
    """Check that `path` is a file. The path is not repeated: somebody may have put the key itself there."""
    try:
        # Anything but a plain file may block, or never end.
        if path.is_file():
            return
        missing = not path.exists()
    except OSError as error:
        raise BadValue(f"names a file that cannot be read: {error.strerror}") from None
    if not missing:
        raise BadValue("names something that is not a file")
    raise BadValue("names a file that does not exist", "a relative path starts at the current directory")


def _key(text: str, named: str) -> Secret:
    try:
        return secret(text)
    except BadValue as found:
        raise BadValue(f"{named} that {found.reason}", found.hint) from None
