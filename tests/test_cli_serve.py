"""`wizard serve`: what it opens, what it says, how it ends; and the keys that it makes."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.server.live import talking
from tests.wizard_cli import PROGRAM, SIMULATED, Wizard, clean_environment, start
from wizard_actors import cli_serve, logs
from wizard_actors.cli_output import Errors
from wizard_actors.config import WizardConfig
from wizard_actors.server import systemd
from wizard_actors.server.keys_file import hash_of, load_keys
from wizard_actors.server.listening import SPARE

SERVED = f'[sessions]\nstorage = "memory:"\n[server]\nwebsocket = "127.0.0.1:0"\n{SIMULATED}'
COUNTED = """
import atexit, gc, sys
atexit.register(lambda: print("passed over", gc.get_freeze_count(), file=sys.stderr))
"""
WITH_KEYS = SERVED.replace("[server]\n", '[server]\napi_keys_file = "keys.toml"\n')


@pytest.fixture
def wizard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wizard:
    """The program, in an empty folder."""
    return Wizard(tmp_path, monkeypatch)


class Serving:
    """A server in a process of its own, and what it has said."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stderr is not None
        self.process = process
        self.said = ""
        self._errors = process.stderr

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something."""
        with trio.fail_after(20):
            while not (found := re.search(pattern, self.said)):
                more = await self._errors.receive_some()
                assert more, self.said
                self.said += more.decode()
        return found

    async def ends(self) -> int:
        """Wait for its exit status."""
        with trio.fail_after(20):
            return await self.process.wait()


@asynccontextmanager
async def serving(folder: Path, *flags: str, env: dict[str, str] | None = None) -> AsyncIterator[Serving]:
    """Run `wizard serve` for the length of a block."""
    process = await start("serve", *flags, cwd=folder, env=env)
    try:
        yield Serving(process)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.aclose()


# -- serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_serves_and_ends_in_order(tmp_path: Path, number: int) -> None:
    """One line when it is ready, one for each request, one when it stops; the status is 0."""
    (tmp_path / "wizard.toml").write_text(SERVED)
    async with serving(tmp_path) as server:
        ready = await server.says(r"wizard: serving (ws://127\.0\.0\.1:\d+) \((.*)\)\n")
        assert ready[2] == "1 model, no keys: everybody on this machine may use it"
        async with talking(ready[1]) as talker:
            assert (await talker.ask("generate", prompt="Why?"))["text"] == "All is well."
            await server.says(r"event=\S*.*model=pretender")
        server.process.send_signal(number)
        await server.says("wizard: stopping\n")
        assert await server.ends() == 0


async def test_a_full_garbage_collection_passes_over_what_a_server_has_loaded(tmp_path: Path) -> None:
    """Else every few seconds all requests would wait for one that goes through every module there is."""
    (tmp_path / "wizard.toml").write_text(SERVED)
    (tmp_path / "sitecustomize.py").write_text(COUNTED)
    async with serving(tmp_path, env={"PYTHONPATH": str(tmp_path)}) as server:
        await server.says("wizard: serving ")
        server.process.send_signal(signal.SIGTERM)
        found = await server.says(r"passed over (\d+)")
        assert int(found[1]) > 10_000


async def test_a_hangup_has_the_files_read_again_and_ends_nothing(tmp_path: Path) -> None:
    """Valid ones are taken up, and wrong ones told with file and key."""
    config, keys = tmp_path / "wizard.toml", tmp_path / "keys.toml"
    config.write_text(WITH_KEYS)
    keys.write_text(f'[[keys]]\nname = "alice"\nhash = "{hash_of("wz_a")}"\n')
    keys.chmod(0o600)
    async with serving(tmp_path) as server:
        ready = await server.says(r"wizard: serving (ws://\S+) \(1 model, 1 key\)\n")
        keys.write_text(keys.read_text() + f'[[keys]]\nname = "bob"\nhash = "{hash_of("wz_b")}"\n')
        server.process.send_signal(signal.SIGHUP)
        await server.says("wizard: reloaded: key bob added\n")
        config.write_text(WITH_KEYS.replace("simulated", "imagined"))
        server.process.send_signal(signal.SIGHUP)
        await server.says(r"wizard: wizard\.toml: `models\[0\]\.provider` .*\nwizard: .*\n?")
        await server.says("wizard: not reloaded: all stays as it was\n")
        async with talking(ready[1], "wz_b") as talker:
            assert (await talker.ask("generate", prompt="Why?"))["text"] == "All is well."
        server.process.send_signal(signal.SIGTERM)
        assert await server.ends() == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whatever is in progress: the status is the signal's."""
    slow = SERVED.replace("first_token = 0\n", "first_token = 60\n")
    (tmp_path / "wizard.toml").write_text(slow)
    async with serving(tmp_path) as server, trio.open_nursery() as nursery:
        ready = await server.says(r"wizard: serving (ws://\S+) ")
        async with talking(ready[1]) as talker:

            async def ask() -> None:
                with pytest.raises(ConnectionClosed):
                    await talker.ask("generate", prompt="Why?")

            nursery.start_soon(ask)
            await talker.ask("cancel", id=0)  # whose answer shows that the question has been read
            server.process.send_signal(signal.SIGTERM)
            await server.says("wizard: stopping")
            server.process.send_signal(signal.SIGTERM)
            assert await server.ends() == 143


async def test_systemd_is_told_how_it_stands(tmp_path: Path) -> None:
    """Ready, reloading and ready again, whether or not that was refused, stopping: as `Type=notify` has it."""
    (tmp_path / "wizard.toml").write_text(SERVED)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(20)

        async def next_word() -> str:
            return (await trio.to_thread.run_sync(told.recv, 1000)).decode()

        async with serving(tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
            assert await next_word() == "READY=1"
            server.process.send_signal(signal.SIGHUP)
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", await next_word())
            assert await next_word() == "READY=1"
            (tmp_path / "wizard.toml").write_text("wrong")
            server.process.send_signal(signal.SIGHUP)
            assert (await next_word()).startswith("RELOADING=1")
            assert await next_word() == "READY=1"
            server.process.send_signal(signal.SIGTERM)
            assert await next_word() == "STOPPING=1"
            assert await server.ends() == 0


def test_a_socket_of_systemd_that_is_gone_is_no_reason_to_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged. Where there is none, nothing is."""
    systemd.ready({})
    systemd.ready({"NOTIFY_SOCKET": "vsock:2:1234"})
    assert not caplog.text
    systemd.ready({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    systemd.stopping({"NOTIFY_SOCKET": f"@wizard-gone-{os.getpid()}"})
    assert caplog.text.count("systemd cannot be told") == 2


# -- what is wrong


def test_a_public_address_without_keys_names_the_setting_that_is_missing(wizard: Wizard) -> None:
    """Nothing is opened."""
    wizard.config(SIMULATED)
    ran = wizard("serve", "--websocket", "0.0.0.0:8000")
    assert ran.status == 2
    assert "`server.api_keys_file` is needed to listen on 0.0.0.0:8000" in ran.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "nothing to serve: name an address, as --http 127.0.0.1:8000 does, or --websocket, or those settings"),
        (["--http", "8000"], "`--http` must be HOST:PORT"),
        (["--websocket", "8000"], "`--websocket` must be HOST:PORT"),
        (["--port", "8000"], "Unknown option: --port: `--http HOST:PORT` says where to serve HTTP"),
        (["127.0.0.1:8000"], "one word too many: `--http 127.0.0.1:8000` serves HTTP there"),
        (["--admin"], "--admin goes with --new-key NAME"),
        (["--new-key", "a", "--websocket", "127.0.0.1:0"], "serves nothing: leave --http and --websocket out"),
        (["--new-key", "a b"], "must be 1 to 64 letters"),
    ],
)
def test_what_cannot_be_understood_is_told(wizard: Wizard, flags: list[str], said: str) -> None:
    """With what to write instead, and status 2."""
    wizard.config(SIMULATED)
    ran = wizard("serve", *flags)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err


def test_an_address_in_use_is_told(wizard: Wizard) -> None:
    """With what was typed: the flag, or the file and its setting."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        wizard.config(SIMULATED)
        by_flag = wizard("serve", "--http", taken)
        wizard.config(f'[server]\nhttp = "{taken}"\n{SIMULATED}')
        by_setting = wizard("serve")
    said = f"cannot listen on {taken}: the address is in use"
    assert (by_flag.status, by_setting.status) == (2, 2)
    assert f"wizard: `--http` {said}" in by_flag.err
    assert f"wizard.toml: `server.http` {said}" in by_setting.err


@pytest.mark.parametrize(
    ("http", "websocket"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("localhost:8000", "[::1]:8000"),
        ("127.0.0.2:8000", "0.0.0.0:8000"),
        ("Host.example:8000", "host.example:8000"),
    ],
)
def test_two_endpoints_at_one_address_are_told(
    wizard: Wizard, monkeypatch: pytest.MonkeyPatch, http: str, websocket: str
) -> None:
    """Before anything is opened, and by what was typed: flags, settings, or one of each."""
    monkeypatch.setenv("WIZARD_API_KEYS", f'[[keys]]\nname = "alice"\nhash = "{hash_of("wz_a")}"\n')
    wizard.config(SIMULATED)
    flags = wizard("serve", "--http", http, "--websocket", websocket)
    wizard.config(f'[server]\nwebsocket = "{websocket}"\n{SIMULATED}')
    one_flag = wizard("serve", "--http", http)
    wizard.config(f'[server]\nhttp = "{http}"\nwebsocket = "{websocket}"\n{SIMULATED}')
    settings = wizard("serve")
    assert [each.status for each in (flags, one_flag, settings)] == [2, 2, 2]
    assert f"wizard: `--websocket` asks for the same address as `--http`: {websocket}" in flags.err
    assert "wizard.toml: `server.websocket` asks for the same address as `--http`: " in one_flag.err
    assert "wizard.toml: `server.websocket` asks for the same address as `server.http`: " in settings.err


# -- keys


def test_a_new_key_goes_into_the_file_as_a_hash_and_is_printed_once(wizard: Wizard) -> None:
    """The key alone on standard output, where it went on standard error."""
    wizard.config(WITH_KEYS)
    first, second = wizard("serve", "--new-key", "alice"), wizard("serve", "--new-key", "bob", "--admin")
    assert (first.status, second.status) == (0, 0)
    key = first.out.strip()
    assert re.fullmatch(r"wz_[\w-]{43}", key)
    assert key not in first.err
    assert key not in (wizard.path / "keys.toml").read_text()
    assert f"{wizard.path.resolve() / 'keys.toml'} holds its hash" in first.err
    assert "SIGHUP" in first.err
    keys = load_keys(WizardConfig.load(wizard.path / "wizard.toml", {}).server, {})
    assert keys is not None
    assert [(each.name, each.hash, each.admin) for each in keys.keys] == [
        ("alice", hash_of(key), False),
        ("bob", hash_of(second.out.strip()), True),
    ]


def test_without_a_file_the_table_is_shown(wizard: Wizard) -> None:
    """It works where it is pasted."""
    wizard.config(SIMULATED)
    ran = wizard("serve", "--new-key", "alice", "--admin")
    table = ran.err.partition("\n\n")[2]
    (wizard.path / "keys.toml").write_text(table)
    wizard.config(WITH_KEYS)
    keys = load_keys(WizardConfig.load(wizard.path / "wizard.toml", {}).server, {})
    assert keys is not None
    assert (keys.keys[0].name, keys.keys[0].admin, keys.keys[0].hash) == ("alice", True, hash_of(ran.out.strip()))


@pytest.mark.parametrize("held", ["file", "environment"])
def test_a_name_that_is_taken_is_refused(wizard: Wizard, monkeypatch: pytest.MonkeyPatch, held: str) -> None:
    """No key is printed: it would be of no use."""
    table = f'[[keys]]\nname = "alice"\nhash = "{hash_of("wz_a")}"\n'
    if held == "file":
        wizard.config(WITH_KEYS)
        (wizard.path / "keys.toml").write_text(table)
    else:
        wizard.config(SERVED)
        monkeypatch.setenv("WIZARD_API_KEYS", table)
    ran = wizard("serve", "--new-key", "alice")
    assert (ran.status, ran.out) == (2, "")
    assert "a key named 'alice' already" in ran.err


@pytest.mark.parametrize("held", ["", f'[[keys]]\nname = "bob"\nhash = "{hash_of("wz_b")}"\nenabled = false\n'])
def test_a_key_is_made_where_there_is_none_in_force_yet(
    wizard: Wizard, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """No server could start with those, which is why somebody makes one."""
    wizard.config(SERVED)
    monkeypatch.setenv("WIZARD_API_KEYS", held)
    ran = wizard("serve", "--new-key", "alice")
    assert (ran.status, ran.out.startswith("wz_")) == (0, True)
    assert f'name = "alice"\nhash = "{hash_of(ran.out.strip())}"' in ran.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no such device")
def test_a_key_that_cannot_be_printed_takes_no_name(tmp_path: Path) -> None:
    """Nobody would have it, and nobody else could have that name."""
    (tmp_path / "wizard.toml").write_text(WITH_KEYS)
    with Path("/dev/full").open("wb") as full:
        command = [*PROGRAM, "serve", "--new-key", "alice"]
        failed = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, check=False, cwd=tmp_path, env=clean_environment()
        )
    assert failed.returncode == 1
    assert b"standard output" in failed.stderr
    assert not (tmp_path / "keys.toml").exists()


def test_keys_in_two_places_are_told_when_one_is_made(wizard: Wizard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would not start."""
    wizard.config(WITH_KEYS)
    monkeypatch.setenv("WIZARD_API_KEYS", "")
    ran = wizard("serve", "--new-key", "alice")
    assert ran.status == 0
    assert "WIZARD_API_KEYS is set as well, and `wizard serve` refuses to choose" in ran.err


# -- what a reload has this process do


async def test_a_reload_changes_how_it_logs(tmp_path: Path) -> None:
    """At night nobody restarts a server for that."""
    config = tmp_path / "wizard.toml"
    config.write_text(SERVED)
    async with serving(tmp_path) as server:
        ready = await server.says(r"wizard: serving (ws://\S+) ")
        config.write_text(f'[logging]\nlevel = "DEBUG"\nformat = "json"\n{SERVED}')
        server.process.send_signal(signal.SIGHUP)
        await server.says('"event": "reloaded: table logging changed"')
        async with talking(ready[1]):
            await server.says(r'"level": ?"debug"')


async def test_a_reload_that_is_refused_names_the_file(tmp_path: Path) -> None:
    """Also where it is another file, which that one names, that will not do."""
    config = tmp_path / "wizard.toml"
    config.write_text(SERVED)
    async with serving(tmp_path) as server:
        await server.says("wizard: serving ")
        config.write_text(SERVED.replace("[server]", '[server]\ntls_cert = "none.pem"\ntls_key = "none.pem"'))
        server.process.send_signal(signal.SIGHUP)
        await server.says(r"wizard\.toml: `server\.tls_cert` names a file, .*none\.pem, that cannot be read")


async def test_what_a_server_says_of_itself_is_json_where_its_log_is(tmp_path: Path) -> None:
    """Whoever collects the log reads every line of it the same way; what is wrong with a reload too."""
    config = tmp_path / "wizard.toml"
    config.write_text(f'[logging]\nformat = "json"\n{SERVED}')
    async with serving(tmp_path) as server:
        await server.says(r'"event": "serving ws://\S+ ')
        config.write_text("models = []")
        server.process.send_signal(signal.SIGHUP)
        await server.says('"event": "not reloaded: all stays as it was"')
        server.process.send_signal(signal.SIGTERM)
        assert await server.ends() == 0

    assert all(line.startswith("{") for line in server.said.splitlines())


async def test_a_signal_before_anything_is_loaded_ends_it_as_later(tmp_path: Path) -> None:
    """Its handlers stand before the commands are imported, which takes most of the time: as the first process of a
    container nothing would end it otherwise.
    """
    code = (
        "import os, signal, sys\n"
        "from wizard_actors.__main__ import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'wizard_actors.cli':\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "main()\n"
    )
    ran = await trio.run_process([sys.executable, "-c", code], check=False, cwd=tmp_path)
    assert ran.returncode == 143


# -- open files


@pytest.mark.parametrize(("hard", "allowed"), [(10_000, 4224), (2000, 2000)])
def test_as_many_files_as_connections_may_need_are_asked_for(
    wizard: Wizard, monkeypatch: pytest.MonkeyPatch, hard: int, allowed: int
) -> None:
    """Where the system allows fewer, a note says so."""
    resource = pytest.importorskip("resource")
    limits = [(1024, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limit: limits.append(limit))
    told = wizard.path / "told"
    with told.open("w") as stream:
        cli_serve._allow_open_files(4096 + cli_serve.FILES, Errors(stream))
    assert limits[-1] == (allowed, hard)
    assert ("too few for `server.max_connections`" in told.read_text()) == (allowed < 4224)


def test_a_reload_that_raises_the_bound_of_connections_asks_for_more_files(
    wizard: Wizard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the start does."""
    wanted: list[int] = []
    monkeypatch.setattr(cli_serve, "_allow_open_files", lambda files, _errors: wanted.append(files))
    monkeypatch.setattr(logs, "configure", lambda _settings: None)
    with (wizard.path / "told").open("w") as stream:
        errors = Errors(stream)
        adapt = partial(cli_serve._adapt, errors, verbose=False)
        told = cli_serve._Told(errors, {}, adapt, lambda error: error)
        told.reloaded([], WizardConfig.from_toml(SERVED, env={}))
        told.reloaded(
            [], WizardConfig.from_toml(SERVED.replace("[server]", "[server]\nmax_connections = 9000"), env={})
        )
    assert wanted[1] - wanted[0] == 9000 - 4096
    assert wanted[0] > 4096 + SPARE
