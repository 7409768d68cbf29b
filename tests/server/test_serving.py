"""The life of a server: it opens, serves, reloads and stops, without losing anybody's request."""

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from tests.server.live import Files, Live, Refused, Talker, knocked, live, talking
from wizard_actors.config import WizardConfig
from wizard_actors.errors import ConfigError, SupervisorError
from wizard_actors.request import Delivery, Request
from wizard_actors.server import doors, serving
from wizard_actors.server.key_settings import KeyConfig, KeyLimitConfig, KeysConfig
from wizard_actors.server.keys_file import hash_of
from wizard_actors.server.listening import Intake
from wizard_actors.server.service import Service
from wizard_actors.server.serving import GRACE, Server
from wizard_actors.supervisor import TreeNode
from wizard_actors.types import Prompt


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A server of one simulated model that answers at once, without keys."""
    return Files(tmp_path)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> list[Service]:
    """The services that servers have made: what is inside of them."""
    made: list[Service] = []

    def make(*arguments: object) -> Service:
        made.append(Service(*arguments))  # type: ignore[arg-type]  # passed on as they are
        return made[-1]

    monkeypatch.setattr(serving, "Service", make)
    return made


async def until_ended(running: Live, seconds: float = 10) -> None:
    """Wait for the end of a server."""
    with trio.fail_after(seconds):
        await running.ended.wait()


# -- it opens


async def test_it_serves_where_it_says_and_ends_when_it_is_stopped(files: Files) -> None:
    """The port that was picked is told; afterwards nobody listens there."""
    async with live(files) as running:
        async with talking(running.url) as talker:
            assert (await talker.ask("generate", prompt="Why?"))["text"] == "All is well."
        running.server.stop()
        await until_ended(running, 2)
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream("127.0.0.1", int(running.url.rpartition(":")[2]))


async def test_without_keys_a_public_address_is_refused_before_anything_is_opened(
    files: Files, services: list[Service]
) -> None:
    """The error names the setting that is missing."""
    files.write()
    files.config.write_text(files.config.read_text().replace("127.0.0.1:0", "0.0.0.0:0"))
    running = Live(files)
    with pytest.raises(ConfigError, match=r"`server\.api_keys_file` is needed"):
        await running.server.run()
    assert not running.endpoints
    assert not services


async def test_without_an_address_there_is_nothing_to_serve(files: Files) -> None:
    """The error names the setting."""
    files.write()
    files.config.write_text(files.config.read_text().replace("websocket", "#websocket"))
    with pytest.raises(ConfigError, match=r"`server\.http` is not set, nor server\.websocket"):
        await Live(files).server.run()


async def test_a_stop_before_it_serves_ends_it_at_once(files: Files) -> None:
    """A configuration that nobody delivers holds nobody up."""

    async def read() -> WizardConfig:
        await trio.sleep_forever()

    server = Server(read, env={}, reporter=Live(files))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.deadline = trio.current_time() + 1
        server.stop()
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_tree_that_cannot_go_on_ends_the_server_with_its_error(files: Files, services: list[Service]) -> None:
    """Connections are cut: there is nobody to answer."""
    files.write()
    running = Live(files)

    async def serve() -> None:
        with pytest.raises(SupervisorError, match="cannot go on: the disk is gone"):
            await running.server.run()
        running.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await running.is_ready.wait()
        async with talking(running.url) as talker:
            services[0].client.supervisor.give_up(RuntimeError("the disk is gone"))
            await talker.gone.wait()
            await until_ended(running)


# -- it stops


async def test_requests_in_progress_are_finished_and_new_ones_refused(files: Files) -> None:
    """A client is told to connect elsewhere; nothing of what is refused was begun; then the connection is closed."""
    files.models = {"first": {"first_token": 0.3}}
    async with live(files) as running, talking(running.url) as talker, trio.open_nursery() as nursery:
        answers: list[object] = []

        async def ask() -> None:
            answers.append((await talker.ask("generate", prompt="Why?"))["text"])

        nursery.start_soon(ask)
        await under_way(talker)
        running.server.stop()
        await talker.noted("draining")
        with pytest.raises(Refused) as refused:
            await talker.ask("generate", prompt="And now?")
        assert refused.value.data["code"] == "actor_stopped"
        assert refused.value.data["actor"] == "server"
        await until_ended(running, 5)
        assert answers == ["All is well."]
        assert running.told == ["stopping: 1"]
        await talker.gone.wait()
        assert talker.code == 1001


async def test_what_takes_longer_than_the_drain_ends_with_an_error_and_the_stop_in_time(files: Files) -> None:
    """An open stream gets its final answer, which says that it was begun."""
    files.server = "drain_timeout = 0.3"
    files.models = {"first": {"answer": "word " * 1000, "per_chunk": 0.05}}
    async with live(files) as running, talking(running.url) as talker, trio.open_nursery() as nursery:
        failures: list[Refused] = []

        async def ask() -> None:
            with pytest.raises(Refused) as refused:
                await talker.ask("stream", prompt="Why?", credit=1000)
            failures.append(refused.value)

        nursery.start_soon(ask)
        await talker.noted("event")
        began = trio.current_time()
        running.server.stop()
        await until_ended(running)
        assert trio.current_time() - began < 0.3 + GRACE
        await talker.gone.wait()
        assert [failure.data["code"] for failure in failures] == ["stream_interrupted"]
        assert talker.code == 1001


@pytest.fixture
def lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that do not end by themselves."""

    async def handle(_stream: trio.abc.Stream, let_in: Callable[[], object]) -> None:
        let_in()
        await trio.sleep_forever()

    def make(_handle: object, *arguments: object) -> Intake:
        return Intake(handle, *arguments)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(serving, "Intake", make)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("scheme", ["http", "websocket"])
async def test_a_peer_that_says_nothing_does_not_hold_up_the_end(files: Files, scheme: str, tls: bool) -> None:
    """Not for as long as a handshake may take: it is closed at once."""
    files.server = 'http = "127.0.0.1:0"' if scheme == "http" else ""
    if tls:
        files.server += f"\n{certified(files.folder, trustme.CA())}"
    async with live(files) as running:
        [url] = [each for each in running.endpoints if each.startswith("http" if scheme == "http" else "ws")]
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])):
            await trio.testing.wait_all_tasks_blocked(0.05)
            running.server.stop()
            await until_ended(running, 1)


@pytest.mark.usefixtures("lasting")
async def test_a_connection_that_does_not_end_does_not_hold_up_the_end(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has as long as everybody else, and some seconds more."""
    monkeypatch.setattr(serving, "GRACE", 0.2)
    files.server = "drain_timeout = 0.2"
    async with live(files) as running:
        port = int(running.url.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port):
            await trio.testing.wait_all_tasks_blocked(0.05)
            running.server.stop()
            await until_ended(running, 2)


@pytest.mark.usefixtures("lasting")
async def test_the_time_to_drain_counts_once(
    files: Files, services: list[Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the connections have left of it is what the actors have, to have their grants back."""
    monkeypatch.setattr(serving, "GRACE", 0.1)
    files.server = "drain_timeout = 1"
    async with live(files) as running:
        service = services[0]
        limit = KeyLimitConfig(requests_per_minute=60)
        await service.limits.prepare(KeysConfig(keys=[KeyConfig(name="alice", hash=hash_of("a"), rate_limit=limit)]))
        request = Request(Prompt("Why?"), service.client.config.fallback, "kept", Delivery.WHOLE)
        await service.limits.reserve("alice", request, service.client.events)
        async with await trio.open_tcp_stream("127.0.0.1", int(running.url.rpartition(":")[2])):
            await trio.testing.wait_all_tasks_blocked(0.05)
            began = trio.current_time()
            running.server.stop()
            await until_ended(running)
        assert trio.current_time() - began < 1.9


async def test_a_connection_that_waits_to_be_accepted_is_told_to_go(files: Files) -> None:
    """What comes while the server stops is refused politely."""
    files.models = {"first": {"first_token": 0.3}}
    async with live(files) as running, talking(running.url) as talker, trio.open_nursery() as nursery:
        nursery.start_soon(partial(talker.ask, "generate", prompt="Why?"))
        await under_way(talker)
        running.server.stop()
        assert await knocked(running.url) == 503


# -- it reloads


async def test_models_and_keys_come_and_go_without_a_restart(files: Files) -> None:
    """A line says what has changed; connections of a key that is gone are closed."""
    files.keys = {"alice": "wz_a", "bob": "wz_b"}
    async with live(files) as running:
        async with talking(running.url, "wz_a") as alice, talking(running.url, "wz_b") as bob:
            assert await knocked(running.url, "wz_c") == 401
            files.models = {"first": {}, "second": {"answer": "Indeed."}}
            files.keys = {"alice": "wz_a", "carol": "wz_c"}
            said = await running.reload()
            assert said == "model second added; table fallback changed; key carol added; key bob removed"
            assert (await alice.ask("generate", prompt="Why?", model="second"))["text"] == "Indeed."
            await bob.gone.wait()
            assert bob.code == 1008
        assert await knocked(running.url, "wz_c") == 101
        assert await knocked(running.url, "wz_b") == 401


async def test_what_needs_a_restart_is_said(files: Files) -> None:
    """It is not taken up, and not forgotten."""
    async with live(files) as running:
        files.server = "drain_timeout = 3"
        assert await running.reload() == "for a restart of the server: server.drain_timeout"
        assert await running.reload() == "for a restart of the server: server.drain_timeout"


@pytest.mark.parametrize("broken", ["wizard.toml", "keys.toml"])
async def test_an_invalid_file_is_refused_and_everything_stays(files: Files, broken: str) -> None:
    """The other file, valid as it is, is not taken up either; the error names the file and the key."""
    files.keys = {"alice": "wz_a"}
    async with live(files) as running, talking(running.url, "wz_a") as talker:
        files.models = {"other": {}}
        files.keys = {"alice": "wz_a", "carol": "wz_c"}
        files.write()
        text = (files.folder / broken).read_text()
        (files.folder / broken).write_text(text.replace("name =", "nam ="))
        said = await running.read_again()
        assert said.startswith("refused: ")
        assert broken in said
        assert "nam` is unknown" in said
        assert (await talker.ask("generate", prompt="Why?", model="first"))["text"] == "All is well."
        assert await knocked(running.url, "wz_c") == 401


async def test_no_reload_makes_everybody_an_admin(files: Files) -> None:
    """Keys that are gone from the configuration stay in force, on this machine too: a proxy may stand before it."""
    files.keys = {"alice": "wz_a"}
    async with live(files) as running:
        files.keys, files.models = None, {"other": {}}
        said = await running.reload()
        assert "`server.api_keys_file` is not set any more" in said
        assert await knocked(running.url) == 401
        files.keys, files.models = {"alice": "wz_a"}, {"first": {}}
        assert await running.reload() == ""


async def test_keys_may_come_by_a_reload(files: Files) -> None:
    """Whoever was let in without one is not any more."""
    async with live(files) as running, talking(running.url) as talker:
        files.keys = {"alice": "wz_a"}
        assert await running.reload() == "table server changed; key alice added"
        await talker.gone.wait()
        assert await knocked(running.url, "wz_a") == 101


async def test_the_last_key_can_be_shut_out(files: Files) -> None:
    """It may have leaked: from then on nobody is let in. A server does not start like that, and no list is empty."""
    files.keys = {"alice": "wz_a"}
    async with live(files) as running, talking(running.url, "wz_a") as talker:
        keys = files.folder / "keys.toml"
        enabled = keys.read_text()
        keys.write_text(f"{enabled}enabled = false\n")
        assert await running.read_again() == "key alice disabled; no key is enabled: nobody can use the server"
        await talker.gone.wait()
        assert await knocked(running.url, "wz_a") == 401
        keys.write_text("")
        assert "`keys` are none: nobody could use the server; `enabled = false` shuts" in await running.read_again()
        keys.write_text(enabled)
        assert await running.read_again() == "key alice enabled"
        assert await knocked(running.url, "wz_a") == 101
    keys.write_text(f"{enabled}enabled = false\n")
    with pytest.raises(ConfigError, match="hold none that is enabled"), trio.fail_after(5):
        await Live(files).server.run()


async def test_a_key_that_names_what_there_is_not_is_refused(files: Files) -> None:
    """At the start, and by a reload: also where it is the model that has gone."""
    files.keys = {"alice": "wz_a"}
    files.models = {"first": {}, "second": {}}
    async with live(files) as running:
        keys = files.folder / "keys.toml"
        keys.write_text(f"{keys.read_text()}models = ['second']\n")
        assert await running.read_again() == "key alice changed"
        whole = files.config.read_text()
        files.config.write_text(whole.replace('name = "second"', 'name = "third"'))
        assert "names no model: 'second'" in await running.read_again()
    with pytest.raises(ConfigError, match="names no model: 'second'"), trio.fail_after(5):
        await Live(files).server.run()


async def test_no_key_is_in_force_without_its_limits_or_its_models(files: Files, services: list[Service]) -> None:
    """The limits of a new key come before it, those of one that is gone go after it; models come before both."""
    files.keys = {"alice": "wz_a", "bob": "wz_b"}
    seen: list[tuple[str, list[str], list[str]]] = []

    def watched(step: str, service: Service) -> Callable[[KeysConfig | None], Awaitable[None]]:
        take = getattr(service.limits, step)

        async def watch(keys: KeysConfig | None) -> None:
            assert service.access.keys is not None
            models = [model.name for model in service.client.config.models]
            seen.append((step, [key.name for key in service.access.keys.keys], models))
            await take(keys)

        return watch

    async with live(files) as running:
        for step in ("prepare", "drop"):
            setattr(services[0].limits, step, watched(step, services[0]))
        files.keys, files.models = {"alice": "wz_a", "carol": "wz_c"}, {"first": {}, "second": {}}
        await running.reload()
    models = ["first", "second"]
    assert seen == [("prepare", ["alice", "bob"], models), ("drop", ["alice", "carol"], models)]


async def test_bounds_of_connections_are_those_of_the_last_reload(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For connections to come."""
    intakes: list[Intake] = []

    def make(*arguments: object) -> Intake:
        intakes.append(Intake(*arguments))  # type: ignore[arg-type]  # passed on as they are
        return intakes[-1]

    monkeypatch.setattr(serving, "Intake", make)
    async with live(files) as running:
        files.server = "handshake_timeout = 7\nmax_connections = 9"
        await running.reload()
        assert [(intake.handshake_timeout, intake.max_connections) for intake in intakes] == [(7, 9)]


async def test_an_address_counts_by_what_it_stands_for(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name for this machine may be that of a public address: without keys nothing is served there."""
    monkeypatch.setattr(doors, "shown_address", lambda _host, _port: "192.0.2.1:80")
    files.write()
    running = Live(files)
    needed = r"`server\.api_keys_file` is needed to listen on 192\.0\.2\.1:80"
    with pytest.raises(ConfigError, match=needed), trio.fail_after(5):
        await running.server.run()
    assert not running.endpoints


async def test_reloads_that_come_during_one_are_one_more(files: Files) -> None:
    """None is lost: what was written last is read. None is at the same time as another."""
    async with live(files) as running:
        free = trio.Event()
        reads: list[str] = []

        async def read() -> WizardConfig:
            reads.append("begins")
            await free.wait()
            reads.append("ends")
            return WizardConfig.load(files.config, {})

        running.server._read = read
        running.server.reload()
        await trio.testing.wait_all_tasks_blocked(0.01)
        for _ in range(5):
            running.server.reload()
        free.set()
        await running.changes.until(lambda: running.reloads == 2)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert reads == ["begins", "ends"] * 2


async def test_a_bug_in_a_reload_ends_nothing(files: Files) -> None:
    """It is told, and the server serves on, and reloads again."""
    async with live(files) as running, talking(running.url) as talker:
        right = running.server._read
        running.server._read = trio.lowlevel.checkpoint  # type: ignore[assignment]  # the bug
        assert "refused: " in await running.reload()
        running.server._read = right
        assert (await talker.ask("generate", prompt="Why?"))["text"] == "All is well."
        assert await running.reload() == ""


async def test_a_new_certificate_is_for_new_connections(files: Files) -> None:
    """Those that are open go on with the old one."""
    authority = trustme.CA()
    files.server = certified(files.folder, authority)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def serial(port: int) -> object:
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(plain, trusting, server_hostname="localhost", https_compatible=True) as stream:
            await stream.do_handshake()
            found = stream.getpeercert()
            assert found is not None
            return found["serialNumber"]

    def issue() -> None:
        certified(files.folder, authority)

    issue()
    async with live(files) as running:
        assert running.url.startswith("wss://127.0.0.1:")
        port = int(running.url.rpartition(":")[2])
        first = await serial(port)
        assert await serial(port) == first
        issue()
        assert await running.reload() == "certificate changed"
        second = await serial(port)
        assert second != first
        assert await running.reload() == ""
        (files.folder / "key.pem").write_text("damaged")
        assert "`server.tls_key` names a file" in await running.reload()
        assert await serial(port) == second
        issue()
        files.server = ""
        assert "`server.tls_cert` is not set any more, but it speaks TLS" in await running.reload()
        assert await serial(port) == second


async def test_a_server_without_tls_begins_none_by_a_reload(files: Files) -> None:
    """Its callers have an address that begins with ws."""
    async with live(files) as running:
        files.server = certified(files.folder, trustme.CA())
        assert "`server.tls_cert` is set now, but the server speaks no TLS" in await running.reload()
        assert await knocked(running.url) == 101


async def test_a_hundred_reloads_under_load_lose_no_request_and_leave_nothing_behind(
    files: Files, services: list[Service]
) -> None:
    """Models and keys change with each of them; afterwards the tree and the open files are as they were."""
    keys = {"alice": "wz_a"}
    files.keys = dict(keys)
    files.models = {"first": {"per_chunk": 0.002}}
    async with live(files) as running, talking(running.url, "wz_a") as talker:
        await talker.ask("generate", prompt="Why?")
        tree, files_open = names(services[0].client.supervisor.tree()), open_files()
        answered: list[object] = []
        over, enough = trio.Event(), trio.Event()

        async def load() -> None:
            while not over.is_set():
                answered.append((await talker.ask("generate", prompt=f"Why {len(answered)}?"))["text"])
                if len(answered) > 100:
                    enough.set()

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(load)
            for number in range(100):
                odd = number % 2 == 0
                files.models = {"second": {}, "first": {}} if odd else {"first": {"per_chunk": 0.002}}
                files.keys = {**keys, "bob": f"wz_{number}"} if odd else dict(keys)
                said = await running.reload()
                assert ("model second added" in said) == odd, said
            with trio.fail_after(30):  # the reloads may be quicker than the answers
                await enough.wait()
            over.set()
        assert set(answered) == {"All is well."}
        assert not running.errors
        await trio.testing.wait_all_tasks_blocked(0.05)  # what nobody uses any more has stopped
        assert names(services[0].client.supervisor.tree()) == tree
        assert open_files() <= files_open


def certified(folder: Path, authority: trustme.CA) -> str:
    """Write a certificate and its key, and return the settings that name them."""
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    return f"tls_cert = '{folder / 'cert.pem'}'\ntls_key = '{folder / 'key.pem'}'"


def open_files() -> int:
    """Count this process's."""
    return len(list(Path("/dev/fd").iterdir()))


def names(node: TreeNode) -> list[str]:
    """Return the paths in a tree."""
    return [node.path, *(path for child in node.children for path in names(child))]


async def under_way(talker: Talker) -> None:
    """Wait until the server has read what was sent: its answer to a later request shows it."""
    await talker.ask("cancel", id=0)
