"""Keys: made, read from their file or from the environment, and added to the file.

Only hashes are kept. One round of SHA-256 is enough for them: a key is 256 random bits, which nobody guesses however
fast a guess is checked; salts and slow hashes are for passwords, which people choose.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final

import attrs
from cattrs.errors import BaseValidationError
from filelock import FileLock, Timeout

from wizard_actors.config import ServerConfig
from wizard_actors.config.secret import require_file
from wizard_actors.config.source import parse, read
from wizard_actors.config.strict import KeyPath, inner_table, problems_in, settings, structure
from wizard_actors.config.values import BadValue, closest
from wizard_actors.errors import ConfigError, ConfigProblem, StorageError
from wizard_actors.server.key_settings import ONLY_HASHES, KeyConfig, KeysConfig, doubled

__all__ = ["API_KEYS", "add_key", "hash_of", "key_table", "keys_in_env", "load_keys", "new_key"]

log = logging.getLogger("wizard_actors.server")

API_KEYS: Final = "WIZARD_API_KEYS"
"""The variable that may hold the text of a keys file."""

SETTING: Final = "server.api_keys_file"
MAKE_ONE: Final = "`wizard serve --new-key NAME` makes one"
SECRETS: Final = frozenset({"key", "api_key", "apikey", "api-key", "token", "secret", "password", "value"})
FOR_OTHERS: Final = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
LOCK_PATIENCE: Final = 10.0
"""Seconds to wait for somebody else who adds a key."""


# -- keys --------------------------------------------------------------------------------------------------------------


def new_key() -> str:
    """Return a new key: 256 random bits, as text."""
    return f"wz_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """Return the hash of a key, as the keys file has it; of any text, what comes over the wire may be anything."""
    return f"sha256:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


# -- reading -----------------------------------------------------------------------------------------------------------


def load_keys(server: ServerConfig, env: Mapping[str, str], *, starting: bool = True) -> KeysConfig | None:
    """Return the keys in the file that `server.api_keys_file` names, or in the environment variable WIZARD_API_KEYS;
    None where neither is set. A file that others than its owner may read or change is told in the log.

    Raises `ConfigError` with everything that is wrong: both are set, the file cannot be read, is no keys file, or holds
    no key; for a server that is `starting` also where none is enabled. One that runs takes that up: the last key has
    leaked, say.
    """
    path = server.api_keys_file
    if path is not None and API_KEYS in env:
        reason = f"is set, and so is the environment variable {API_KEYS}"
        raise ConfigError([ConfigProblem(SETTING, reason, "keys come from one of them: unset the other")])
    if path is not None:
        try:
            require_file(path)
        except BadValue as bad:
            raise ConfigError([ConfigProblem(SETTING, bad.reason, bad.hint or MAKE_ONE)]) from None
        _warn_if_open(path)
        return _usable(_keys_in(read(path), str(path)), str(path), starting=starting)
    keys = keys_in_env(env)
    return None if keys is None else _usable(keys, API_KEYS, starting=starting)


def keys_in_env(env: Mapping[str, str]) -> KeysConfig | None:
    """Return the keys in the environment variable WIZARD_API_KEYS, perhaps none, or none that is enabled; None where it
    is not set. Raises `ConfigError` with everything that is wrong with them.
    """
    return _keys_in(env[API_KEYS], API_KEYS) if API_KEYS in env else None


def _keys_in(text: str, file: str) -> KeysConfig:
    """Return the keys in a text, perhaps none; raises `ConfigError` with everything that is wrong with them."""
    tables = parse(text, file)
    found: dict[ConfigProblem, None] = {}
    made: KeysConfig | None = None
    try:
        made = structure(tables, KeysConfig)
    except BaseValidationError as error:
        found = dict.fromkeys(problems_in(error, hint=_unknown))
    listed = tables.get("keys")
    found |= dict.fromkeys(doubled(listed if isinstance(listed, list) else ()))
    if made is None or found:
        raise ConfigError(list(found), file=file)
    return made


def _usable(keys: KeysConfig, file: str, *, starting: bool) -> KeysConfig:
    if any(key.enabled or not starting for key in keys.keys):
        return keys
    if keys.keys:
        problem = ConfigProblem("keys", "hold none that is enabled: nobody could use the server", "enable one")
    else:
        hint = MAKE_ONE if starting else "`enabled = false` shuts out the last one"  # a file half written, say
        problem = ConfigProblem("keys", "are none: nobody could use the server", hint)
    raise ConfigError([problem], file=file)


def _unknown(path: KeyPath) -> str:
    """Return what to do about an unknown key."""
    *above, key = path
    if above and isinstance(key, str) and key.casefold() in SECRETS:  # beside the tables it is `[[key]]`
        return ONLY_HASHES
    table: type[attrs.AttrsInstance] = KeysConfig
    for part in above:
        inner = next((inner_table(each.type) for each in settings(table) if each.name == part), None)
        table = table if inner is None else inner
    known = [each.name for each in settings(table)]
    meant = closest(key, known)
    return f"did you mean `{meant}`?" if meant else f"known keys: {', '.join(known)}"


def _warn_if_open(path: Path) -> None:
    with suppress(OSError):  # reading it says what is wrong
        if os.name == "posix" and path.stat().st_mode & FOR_OTHERS:
            log.warning("%s may be read or changed by others than its owner: `chmod 600` it", path)


# -- writing -----------------------------------------------------------------------------------------------------------


def key_table(key: KeyConfig) -> str:
    """Return the table of a new key, as it stands in a keys file: its name, its hash, and whether it is an admin's."""
    return f'[[keys]]\nname = "{key.name}"\nhash = "{key.hash}"\n' + ("admin = true\n" if key.admin else "")


def add_key(
    path: Path, name: str, key_hash: str, *, admin: bool = False, tell: Callable[[], object] | None = None
) -> Path:
    """Add a key to the file at `path`, and return where that really is. What stands there stays as it is; whole or not
    at all, and safe when this returns. Several may do this at once, in any process.

    The file stays its owner's, with its permissions, as far as we may see to that; one that is made belongs to the
    owner of its folder, for them alone. `tell` is called last, but for putting the file into its place: what it
    raises leaves everything as it was, and is raised.

    Raises `ConfigError` for a name that is taken or is none, for what is no hash, and for a file that is no keys file;
    `StorageError` where it cannot be written.
    """
    key = KeyConfig(name=name, hash=key_hash, admin=admin)
    path = path.expanduser().resolve()  # a link stays one
    with _locked(path):
        text = read(path) if path.exists() else ""
        there = _keys_in(text, str(path))
        _check_new(key, there, path)
        with_it = _appended(text, key)
        try:
            _keys_in(with_it, str(path))
        except ConfigError:  # the keys there are a list in brackets, which TOML cannot add to
            problem = ConfigProblem("keys", "stand in one list", "write each under a header of its own: `[[keys]]`")
            raise ConfigError([problem], file=str(path)) from None
        _replace(path, with_it.encode(), tell)
    return path


def _check_new(key: KeyConfig, there: KeysConfig, path: Path) -> None:
    for setting in ("name", "hash"):
        if getattr(key, setting) in {getattr(other, setting) for other in there.keys}:
            shown = f"a key named {key.name!r}" if setting == "name" else "this very key"
            raise ConfigError([ConfigProblem("keys", f"hold {shown} already", "take another one")], file=str(path))


def _appended(text: str, key: KeyConfig) -> str:
    if not text:
        return key_table(key)
    return text + ("\n" if text.endswith("\n") else "\n\n") + key_table(key)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    place = path.with_name(f".{path.name}.lock")
    lock = FileLock(place, timeout=LOCK_PATIENCE, mode=0o600)
    try:
        with _written(path):
            path.parent.stat()  # where there is no folder, taking the lock would make one
        with _written(place):
            lock.acquire()
        _give_lock(place, path)
    except Timeout:
        said = f"{path}: somebody else has been adding a key for {LOCK_PATIENCE:g} s: try again"
        raise StorageError(said, path=str(path)) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error


def _replace(path: Path, data: bytes, tell: Callable[[], object] | None) -> None:
    """Write a file beside its place, and put it there when all have been told."""
    with _written(path):
        handle, name = mkstemp(prefix=f".{path.name[:64]}-", dir=path.parent)
    unfinished = Path(name)
    try:
        with _written(path), os.fdopen(handle, "wb") as file:
            file.write(data)
            _give_to_owner(file.fileno(), path)
            file.flush()
            os.fsync(file.fileno())
        if tell is not None:
            tell()
        with _written(path):
            unfinished.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            unfinished.unlink(missing_ok=True)
        raise
    with _written(path):
        _sync(path.parent)


def _give_lock(place: Path, path: Path) -> None:
    """Let those who may change the file at `path` take its lock after us."""
    if sys.platform == "win32":
        return
    with suppress(OSError):  # somebody else's lock is theirs to give
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if os.fstat(handle).st_uid == os.geteuid():
                _give_to_owner(handle, path)
        finally:
            os.close(handle)


def _give_to_owner(handle: int, path: Path) -> None:
    """Give an open file the owner and the permissions of the one at `path`; where there is none, it is for the owner of
    the folder alone. Somebody else, root say, may be adding a key.
    """
    if sys.platform == "win32":
        return
    there = path.exists()
    like = (path if there else path.parent).stat()
    mode = stat.S_IMODE(like.st_mode) & 0o666 if there else 0o600
    try:
        os.fchown(handle, like.st_uid, like.st_gid)
    except OSError:
        if os.fstat(handle).st_gid != like.st_gid:
            mode &= ~stat.S_IRWXG  # what its group might do, ours is not to
    os.fchmod(handle, mode)


def _sync(folder: Path) -> None:
    """Make the names in a folder safe, where the system can."""
    directory = getattr(os, "O_DIRECTORY", None)
    if directory is None:  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY | directory)
    try:
        with suppress(OSError):  # some file systems have it for files alone
            os.fsync(handle)
    finally:
        os.close(handle)
