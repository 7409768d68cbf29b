"""From a file to plain tables: reading, decoding and parsing, each failure a `ConfigError` that names the file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from wizard_actors.errors import ConfigError, ConfigProblem

__all__ = ["parse", "read"]

LARGEST_FILE: Final = 4 * 1024 * 1024
DEEPEST: Final = 50
BOM: Final = "\ufeff"


def read(path: Path) -> str:
    """Return the text of the file at `path`; raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise _unusable(path, "there is no such file", "`wizard init` writes one") from error
    except IsADirectoryError as error:
        raise _unusable(path, "this is a directory, not a file") from error
    except OSError as error:
        raise _unusable(path, f"the file cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null character in the path
        raise _unusable(path, "this cannot be the path of a file") from error
    if len(content) > LARGEST_FILE:
        raise _unusable(path, f"the file is larger than {LARGEST_FILE} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    # Outside the handler: the decoder's error carries the whole file, and with it any secret there.
    raise _unusable(path, f"the file is not UTF-8 text (line {line})", "save it as UTF-8, without a byte order mark")


def parse(text: str, file: str | None = None) -> dict[str, object]:
    """Return the tables in `text`, which is TOML; raises ConfigError with the line and the column."""
    if text.startswith(BOM):
        raise _unusable(file, "the file begins with a byte order mark", "save it as UTF-8, without that mark")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unusable(file, f"not valid TOML: {error}", _toml_hint(str(error))) from error
    except ValueError as error:
        raise _unusable(file, "not valid TOML: a number has too many digits") from error
    except RecursionError as error:
        raise _unusable(file, "not usable: its values are nested too deeply") from error
    if _is_deep(tables):
        raise _unusable(file, "not usable: its values are nested too deeply")
    return tables


def _unusable(file: Path | str | None, reason: str, hint: str = "") -> ConfigError:
    return ConfigError([ConfigProblem("", reason, hint)], file=None if file is None else str(file))


def _toml_hint(message: str) -> str:
    if message.startswith("Invalid value"):
        return "a text stands in quotes; true and false are written small"
    return "each table has one header" if message.startswith("Cannot declare") else ""


def _is_deep(tables: Mapping[str, object]) -> bool:
    # Dotted keys nest without recursion in the parser, so that the tables may be deeper than Python's stack.
    level: list[object] = [tables]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return False
    return True


def _inner(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
