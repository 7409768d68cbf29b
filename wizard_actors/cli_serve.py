"""`wizard serve`: puts the configured models behind an endpoint, and makes the keys that its callers need."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs
import trio
from cyclopts import CycloptsError

from wizard_actors import logs
from wizard_actors.cli_config import Found, find_config, named_file, set_up_logs
from wizard_actors.cli_output import Errors, ExitStatus, Output
from wizard_actors.cli_signals import Signals
from wizard_actors.config import WizardConfig
from wizard_actors.errors import ConfigError, ConfigProblem, EnvVarError, WizardError
from wizard_actors.server import systemd
from wizard_actors.server.key_settings import KeyConfig, KeysConfig
from wizard_actors.server.keys_file import API_KEYS, add_key, hash_of, key_table, keys_in_env, new_key
from wizard_actors.server.listening import SPARE
from wizard_actors.server.serving import Server, check_start, load_files

if sys.platform != "win32":
    import resource

__all__ = ["check_server", "make_key", "run_server"]

log = logging.getLogger("wizard_actors.server")

NOTHING_TO_SERVE: Final = (
    "nothing to serve: name an address, as --http 127.0.0.1:8000 does, or --websocket, or those settings of `[server]`"
)
FILES: Final = 128
"""Files beside the connections that a server has open: logs, storages, calls of providers, its listeners."""


# -- serving ---------------------------------------------------------------------------------------------------------


async def run_server(
    path: str | None, addresses: Mapping[str, str | None], errors: Errors, signals: Signals, *, verbose: bool
) -> int:
    """Serve until SIGTERM or SIGINT, read the files again at each SIGHUP, and return the exit status.

    `path` is that of the configuration, None: as `find_config` finds it; `addresses` take the place of the settings
    "http" and "websocket", where they are not None.
    Raises what `Server.run` raises, and `CycloptsError` where no endpoint is named.
    """
    source = _Source(path, addresses, os.environ, errors, verbose=verbose)
    told = _Told(errors, os.environ, partial(_adapt, errors, verbose=verbose), source.named)
    server = Server(source.read, env=os.environ, reporter=told)
    with signals.serving(stop=server.stop, reload=server.reload):
        try:
            await server.run()
        except ConfigError as error:
            raise source.named(error) from error
    return ExitStatus.OK


class _Source:
    """Where a server's configuration comes from: at each reload from where it came at the start."""

    def __init__(
        self,
        path: str | None,
        addresses: Mapping[str, str | None],
        env: Mapping[str, str],
        errors: Errors,
        *,
        verbose: bool,
    ) -> None:
        self._path = path
        self._addresses = {name: address for name, address in addresses.items() if address is not None}
        self._env = env
        self._errors = errors
        self._verbose = verbose
        self._found: Found | None = None

    async def read(self) -> WizardConfig:
        """Return the configuration as it is now."""
        if self._found is None:
            return await self._first()
        if self._path is None:
            self._errors.note("there is no configuration file, and so no setting to read again")
            return self._found.config
        return self._with_flags(await find_config(self._path, self._env))

    def named(self, error: ConfigError) -> ConfigError:
        """Return an error with the names that whoever has started the server knows: of the file, and of flags."""
        return _named(error, self._path, self._addresses)

    async def _first(self) -> WizardConfig:
        self._path = named_file(self._path, self._env)  # settled once
        found = await find_config(self._path, self._env)
        for note in found.notes:
            self._errors.note(note)
        config = self._with_flags(found)
        if config.server.http is None and config.server.websocket is None:
            raise CycloptsError(msg=NOTHING_TO_SERVE, command_chain=["serve"])
        _adapt(self._errors, config, verbose=self._verbose)
        self._found = attrs.evolve(found, config=config)
        return config

    def _with_flags(self, found: Found) -> WizardConfig:
        if not self._addresses:
            return found.config
        return found.config.changed(server=_server_with(found.config, self._addresses))


def _server_with(config: WizardConfig, addresses: Mapping[str, str]) -> object:
    server = config.server
    for name, address in addresses.items():
        try:
            server = attrs.evolve(server, http=address) if name == "http" else attrs.evolve(server, websocket=address)
        except ConfigError as error:
            raise ConfigError([attrs.evolve(problem, key=f"--{name}") for problem in error.problems]) from error
    return server


def _named(error: ConfigError, file: str | None, flags: Iterable[str]) -> ConfigError:
    """Return an error with the names of flags in the place of their settings', and with its `file`, which only who has
    read it knows; as it is where it names a file, or what is wrong stands in none.
    """
    if error.file is not None:
        return error
    problems = list(error.problems)
    for flag in flags:
        setting = f"server.{flag}"
        problems = [
            attrs.evolve(
                each,
                key=f"--{flag}" if each.key == setting else each.key,
                reason=each.reason.replace(f"`{setting}`", f"`--{flag}`"),
            )
            for each in problems
        ]
    if any(each.key.startswith("--") for each in problems):
        file = None
    if isinstance(error, EnvVarError):
        return EnvVarError(error.variable, key=error.problems[0].key, file=file, reason=error.problems[0].reason)
    return ConfigError(problems, file=file)


def _adapt(errors: Errors, config: WizardConfig, *, verbose: bool) -> None:
    """Have this process log what `[logging]` says, whether or not somebody has set it up, with `verbose` everything;
    and open as many files as `config` may need.
    """
    logs.configure(attrs.evolve(config.logging, level="DEBUG") if verbose else config.logging)
    endpoints = sum(address is not None for address in (config.server.http, config.server.websocket))
    _allow_open_files(endpoints * (config.server.max_connections + SPARE) + FILES, errors)


def _allow_open_files(wanted: int, errors: Errors) -> None:
    """Have the system let this process open as many files as it may need, as far as it may ask for that itself."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        errors.note(
            f"this process may open {most} files, too few for `server.max_connections`: raise the system's limit "
            "(LimitNOFILE of systemd, `ulimit -n`), or lower the setting"
        )


class _Told:
    """What becomes of a server, as its operator is told: a line each on standard error, and a word to systemd. Where
    the log is JSON, so are these lines: they go into it.
    """

    def __init__(
        self,
        errors: Errors,
        env: Mapping[str, str],
        adapt: Callable[[WizardConfig], None],
        named: Callable[[ConfigError], ConfigError],
    ) -> None:
        self._errors = errors
        self._env = env
        self._adapt = adapt
        self._named = named
        self._as_log = False

    def ready(self, endpoints: Sequence[str], config: WizardConfig, keys: KeysConfig | None) -> None:
        """Say where, what, and for whom."""
        self._as_log = config.logging.format == "json"
        models = _counted(sum(model.enabled for model in config.models), "model")
        who = "no keys: everybody on this machine may use it" if keys is None else _counted(_in_force(keys), "key")
        _spare_collections()
        for endpoint in endpoints:
            self._say(f"serving {endpoint} ({models}, {who})")
        systemd.ready(self._env)

    def reloading(self) -> None:
        """Tell systemd alone."""
        systemd.reloading(self._env)

    def reloaded(self, changes: Sequence[str], config: WizardConfig) -> None:
        """Say what has changed, and have what it needs of this process."""
        self._adapt(config)
        self._as_log = config.logging.format == "json"
        self._say(f"reloaded: {'; '.join(changes) or 'nothing has changed'}")
        systemd.ready(self._env)

    def refused(self, error: Exception) -> None:
        """Say what is wrong, a line for each problem."""
        error = self._named(error) if isinstance(error, ConfigError) else error
        if self._as_log:
            log.error("%s", error)
        elif isinstance(error, WizardError):
            self._errors.failure(error)
        else:
            self._errors.bug(error)
        self._say("not reloaded: all stays as it was")
        systemd.ready(self._env)

    def stopping(self, in_progress: int) -> None:
        """Say what it waits for."""
        waiting = f": {_counted(in_progress, 'request')} in progress" if in_progress else ""
        self._say(f"stopping{waiting}")
        systemd.stopping(self._env)

    def _say(self, message: str) -> None:
        if self._as_log:
            log.warning("%s", message)
        else:
            self._errors.note(message)


def _spare_collections() -> None:
    """Have the garbage collector pass over what this process has loaded, which stays until the end: a full collection
    would go through all of it, and hold every request meanwhile (`docs/decisions.md`).
    """
    gc.collect()
    gc.freeze()


def _in_force(keys: KeysConfig) -> int:
    return sum(key.enabled for key in keys.keys)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


async def check_server(config: WizardConfig, path: str | None) -> None:
    """Check all that `run_server` checks of `config` before it listens, and raise as it does. `path` is that of the
    configuration, as `find_config` takes it.
    """
    try:
        check_start(await trio.to_thread.run_sync(load_files, config, os.environ), os.environ)
    except ConfigError as error:
        raise _named(error, named_file(path, os.environ), ()) from error


# -- keys ------------------------------------------------------------------------------------------------------------


async def make_key(path: str | None, name: str, output: Output, errors: Errors, *, admin: bool) -> int:
    """Make a key, print it, once, and keep its hash in the file that `server.api_keys_file` names; where it names none,
    say what to write into one.

    Raises `ConfigError` for a name that is taken or cannot be one; `StorageError` where the file cannot be written, or
    the key not be printed: then it is not in the file.
    """
    found = await find_config(path, os.environ)
    set_up_logs(found.config, verbose=False)
    key, file = new_key(), found.config.server.api_keys_file
    if file is None:
        entry = KeyConfig(name=name, hash=hash_of(key), admin=admin)
        there = keys_in_env(os.environ)
        if there is not None and any(other.name == name for other in there.keys):
            raise ConfigError([ConfigProblem("keys", f"hold a key named {name!r} already", "take another name")])
        await output.text(f"{key}\n")
        errors.note("this is the key: it is kept nowhere. This goes into the file that `server.api_keys_file` names:")
        errors.text(f"\n{key_table(entry)}")
        return ExitStatus.OK
    tell = partial(output.write_now, f"{key}\n".encode())  # a key that nobody has seen takes no name
    written = await trio.to_thread.run_sync(lambda: add_key(file, name, hash_of(key), admin=admin, tell=tell))
    said = "this is the key: it is kept nowhere"
    errors.note(f"{said}; {written} holds its hash. A running server takes it up with SIGHUP")
    if API_KEYS in os.environ:
        errors.note(f"{API_KEYS} is set as well, and `wizard serve` refuses to choose: unset it, or `api_keys_file`")
    return ExitStatus.OK
