"""Keys: what holds one without showing it, and where one is read from."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

from wizard_actors.config.values import BadValue

__all__ = [
    "Environment",
    "Secret",
    "key_from_env",
    "key_from_file",
    "require_certificates",
    "require_file",
    "secret",
    "usual_variable",
]

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


def key_from_env(variable: str, env: Mapping[str, str], *, usual: bool = False) -> Secret:
    """Return the key in the environment variable; spaces and line breaks round it do not count. `usual`: nobody named
    the variable, it is the one that counts where none is named.
    """
    if usual:
        named = f"is left out, and the usual variable {variable}"
    else:
        named = f"names the environment variable {variable}, which"
    if variable not in env:
        raise BadValue(f"{named} is not set")
    text = env[variable].strip()
    if not text:
        raise BadValue(f"{named} is empty" + (": set it, or unset it where no key is needed" if usual else ""))
    return _key(text, named)


def usual_variable(names: Iterable[str], env: Mapping[str, str]) -> str | None:
    """Return which of the usual variables counts: the first that holds something, else one that is set and empty, which
    is a mistake; None where none is set.
    """
    there = [name for name in names if name in env]
    return next((name for name in there if env[name].strip()), there[0] if there else None)


def key_from_file(path: Path) -> Secret:
    """Return the key that the file holds; spaces and line breaks round it do not count."""
    require_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_KEY + 1)
    except OSError as error:
        raise BadValue(f"names a file that cannot be read: {error.strerror}{_shown(path)}") from None
    if len(content) > LARGEST_KEY:
        raise BadValue(f"names a file that is too large for a key{_shown(path)}")
    # Latin-1 reads any bytes; the check of the key then finds what does not belong there.
    text = content.decode("latin-1").strip()
    if not text:
        raise BadValue(f"names a file that is empty{_shown(path)}")
    return _key(text, "names a file that", _shown(path))


def require_certificates(path: Path) -> None:
    """Check that the file holds certificates to trust, in PEM."""
    require_file(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise BadValue(f"names a file without a certificate{_shown(path)}", "certificates stand there in PEM") from None
    except OSError as error:
        raise BadValue(f"names a file that cannot be read: {error.strerror}{_shown(path)}") from None


def require_file(path: Path) -> None:
    """Check that `path` is a file."""
    try:
        # Anything but a plain file may block, or never end.
        if path.is_file():
            return
        missing = not path.exists()
    except OSError as error:
        raise BadValue(f"names a file that cannot be read: {error.strerror}{_shown(path)}") from None
    if not missing:
        raise BadValue(f"names something that is not a file{_shown(path)}")
    hint = "" if path.is_absolute() else "a relative path starts at the current directory"
    raise BadValue(f"names a file that does not exist{_shown(path)}", hint)


def _shown(path: Path) -> str:
    """Return the path, to stand behind what is said of it; nothing where it may be the key itself, put into the wrong
    place: what is in a folder that exists is no key.
    """
    try:
        known = path.parent != Path() and path.parent.is_dir()
    except OSError:
        known = False
    return f" ({path})" if known else ""


def _key(text: str, named: str, where: str = "") -> Secret:
    try:
        return secret(text)
    except BadValue as found:
        raise BadValue(f"{named} {found.reason}{where}", found.hint) from None
