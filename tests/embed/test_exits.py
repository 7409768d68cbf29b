"""Programs that end without closing their clients, are interrupted, or lose hold of a client: each as a process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.embed.programs import run, start

FORGETFUL = {
    "plain": """
        client = BlockingClient.open(CONFIG, providers=quick())  # here
        client.generate("Why?")
        last()
    """,
    "through the builder": """
        client = BlockingClient.builder().with_config(CONFIG).with_providers(quick()).build()  # here
        last()
    """,
    "through wrappers": """
        def logged(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper

        @logged
        @functools.lru_cache
        def client():
            return functools.partial(BlockingClient.open, CONFIG)(providers=quick())  # here

        client().generate("Why?")
        last()
    """,
    "through a bound method": """
        class App:
            def __init__(self, opener):
                self.opener = opener

            client = functools.cached_property(lambda self: self.opener(CONFIG, providers=quick()))  # here
            ask = functools.partialmethod(lambda self, prompt: self.client.generate(prompt))

        app = App(BlockingClient.open)
        app.ask("Why?")
        last()
    """,
    "two of them": """
        one = BlockingClient.open(CONFIG, providers=quick())  # here
        two = BlockingClient.open(CONFIG, providers=quick())  # here
        last()
    """,
    "with a stream half read": """
        client = BlockingClient.open(CONFIG, providers=slow())  # here
        stream = client.stream("Why?").__enter__()
        next(stream)
        last()
    """,
    "with threads that have used it": """
        client = BlockingClient.open(CONFIG, providers=quick())  # here
        pool = ThreadPoolExecutor(3)
        for answer in pool.map(client.generate, ["Why?"] * 9):
            pass
        last()
    """,
    "with a call pending in a daemon thread": """
        client = BlockingClient.open(CONFIG, providers=slow())  # here
        threading.Thread(target=client.generate, args=["Why?"], daemon=True).start()
        time.sleep(0.2)
        last()
    """,
    "under asyncio": """
        async def main():
            global client
            client = await ResilientClient.open(CONFIG, providers=quick()).__aenter__()  # here
            await client.generate("Why?")

        asyncio.run(main())
        last()
    """,
    "under asyncio, through the builder": """
        async def main():
            global block
            block = ResilientClient.builder().with_config(CONFIG).with_providers(quick()).build()  # here
            await block.__aenter__()

        asyncio.run(main())
        last()
    """,
    "under asyncio, with a stream half read": """
        async def main():
            global client, stream
            client = await ResilientClient.open(CONFIG, providers=slow()).__aenter__()  # here
            stream = await client.stream("Why?").__aenter__()
            await anext(stream)

        asyncio.run(main())
        last()
    """,
    "under uvloop": """
        import uvloop

        async def main():
            global client, stream
            client = await ResilientClient.open(CONFIG, providers=slow()).__aenter__()  # here
            stream = await client.stream("Why?").__aenter__()
            await anext(stream)

        uvloop.run(main())
        last()
    """,
    "in a loop that is closed with a call pending": """
        async def main():
            global client, task
            client = await ResilientClient.open(CONFIG, providers=slow()).__aenter__()  # here
            task = asyncio.create_task(client.generate("Why?"))
            task._log_destroy_pending = False  # what asyncio would say of it
            await asyncio.sleep(0.1)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        last()
    """,
}


@pytest.mark.parametrize("program", FORGETFUL.values(), ids=FORGETFUL.keys())
def test_a_program_that_forgets_to_close_ends_soon_and_is_told_where(
    program: str, tmp_path: Path, report_line: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    """Within a second of its last line, with status 0; all it says is which line opened the client."""
    ended = run(tmp_path, program)

    report_line(f"forgotten, {request.node.callspec.id}: over {ended.seconds:.2f} s after the last line")
    assert (ended.code, sorted(ended.err.splitlines())) == (0, sorted(ended.warned().splitlines()))
    assert ended.here
    assert ended.seconds < 1.0


def test_warnings_that_are_errors_do_not_keep_a_program(tmp_path: Path) -> None:
    """Nobody can catch an error at the end; it is shown, and the program ends as it would have."""
    ended = run(tmp_path, FORGETFUL["two of them"], options=["-W", "error"])

    assert ended.code == 0
    assert ended.seconds < 1.0
    assert "RuntimeWarning: the client that was opened here was never closed" in ended.err


def test_a_program_that_closes_says_nothing(tmp_path: Path) -> None:
    """Also where it closes twice, and leaves streams half read."""
    ended = run(
        tmp_path,
        """
        with BlockingClient.open(CONFIG, providers=slow()) as client:
            with client.stream("Why?") as stream:
                next(stream)
        client.close()

        async def main():
            async with ResilientClient.open(CONFIG, providers=slow()) as client:
                async with client.stream("Why?") as stream:
                    await anext(stream)

        asyncio.run(main(), debug=True)
        last()
        """,
        options=["-X", "dev", "-W", "error"],
    )

    assert (ended.code, ended.err, ended.out) == (0, "", ["asked", "asked"])
    assert ended.seconds < 1.0


@pytest.mark.parametrize(
    ("leaving", "code", "said"),
    [("sys.exit(3)", 3, ""), ("raise KeyError('mine')", 1, "KeyError: 'mine'"), ("os._exit(4)", 4, "")],
)
def test_leaving_in_the_middle_of_the_block_closes_the_client(
    leaving: str, code: int, said: str, tmp_path: Path
) -> None:
    """What ends the program is the program's own: its status, or its error, and no other."""
    ended = run(
        tmp_path,
        f"""
        with BlockingClient.open(CONFIG, providers=slow()) as client:
            with client.stream("Why?") as stream:
                next(stream)
                last()
                {leaving}
        """,
    )

    assert ended.code == code
    assert ended.err.strip().endswith(said)
    assert ended.err.count("Traceback") == bool(said)
    assert "Warning" not in ended.err
    assert ended.seconds < 1.0


def test_an_exit_in_the_middle_of_asyncio_leaves_nothing_behind(tmp_path: Path) -> None:
    """`SystemExit` in a task, while another one asks."""
    ended = run(
        tmp_path,
        """
        models = slow()
        atexit.register(lambda: print(upstream(models)))

        async def main():
            async with ResilientClient.open(CONFIG, providers=models) as client:
                task = asyncio.create_task(client.generate("Why?"))
                await asyncio.sleep(0.1)
                last()
                sys.exit(3)

        asyncio.run(main())
        """,
    )

    assert (ended.code, ended.out) == (3, ["asked", "Cancelled"])
    assert ended.seconds < 2.5  # the block waits for the call, for as long as its drain_timeout says


# -- Ctrl-C and other signals ------------------------------------------------------------------------------------------


def test_a_ctrl_c_stops_the_call_upstream_first(tmp_path: Path) -> None:
    """`KeyboardInterrupt` comes when everything has been given back, and the client goes on."""
    with start(
        tmp_path,
        """
        models = slow(closing=0.2)
        with BlockingClient.open(CONFIG, providers=models) as client:
            try:
                client.generate("Why?")
            except KeyboardInterrupt:
                print("interrupted", upstream(models), client.supervisor.outstanding)
            models["a"].turns[:] = quick()["a"].turns
            print(client.generate("Why?", cache="bypass").text[:5])
            last()
        """,
    ) as program:
        assert program.line() == "asked"
        program.signal(signal.SIGINT)
        ended = program.ended()

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ["interrupted Cancelled {}", "asked", "word "]


def test_a_second_ctrl_c_waits_for_nothing(tmp_path: Path) -> None:
    """Not even for a model's connection that does not close."""
    with start(
        tmp_path,
        """
        models = slow(closing=60.0)
        client = BlockingClient.open(CONFIG, providers=models)  # here
        try:
            client.generate("Why?")
        except KeyboardInterrupt:
            print("interrupted", upstream(models))
        last()
        """,
    ) as program:
        assert program.line() == "asked"
        time.sleep(0.2)  # until it waits for the answer's second word
        program.signal(signal.SIGINT)
        time.sleep(0.3)
        assert program.process.poll() is None
        at = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.line() == "interrupted open"
        assert time.monotonic() - at < 0.5
        ended = program.ended()

    assert (ended.code, ended.err) == (0, ended.warned())
    assert ended.seconds < 1.2


def test_a_ctrl_c_between_the_reads_of_a_stream_ends_its_call(tmp_path: Path) -> None:
    """Leaving the blocks closes the stream and the client; the program dies of the interrupt as any other."""
    with start(
        tmp_path,
        """
        models = slow()
        atexit.register(lambda: print(upstream(models)))
        with BlockingClient.open(CONFIG, providers=models) as client:
            with client.stream("Why?") as stream:
                for event in stream:
                    pass
        """,
    ) as program:
        assert program.line() == "asked"
        time.sleep(0.1)
        at = time.monotonic()
        program.signal(signal.SIGINT)
        ended = program.ended()

    assert ended.code == -signal.SIGINT
    assert ended.out == ["Cancelled"]
    assert ended.err.count("Traceback") == 1
    assert ended.err.strip().endswith("KeyboardInterrupt")
    assert time.monotonic() - at < 1.0


@pytest.mark.parametrize("run", ["asyncio.run(main())", "import uvloop; uvloop.run(main())"])
def test_a_ctrl_c_under_asyncio_ends_in_order(run: str, tmp_path: Path) -> None:
    """Asyncio cancels its main task; the call is stopped, and the client closed."""
    with start(
        tmp_path,
        f"""
        models = slow()

        async def main():
            async with ResilientClient.open(CONFIG, providers=models) as client:
                try:
                    await client.generate("Why?")
                except asyncio.CancelledError:
                    print("cancelled", upstream(models))
                    raise

        try:
            {run}
        except KeyboardInterrupt:
            print("interrupted", upstream(models))
        last()
        """,
    ) as program:
        assert program.line() == "asked"
        program.signal(signal.SIGINT)
        ended = program.ended()

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ["cancelled Cancelled", "interrupted Cancelled"]
    assert ended.seconds < 1.0


def test_a_sigterm_ends_a_program_at_once(tmp_path: Path) -> None:
    """As it ends any program that does not handle it."""
    with start(tmp_path, "BlockingClient.open(CONFIG, providers=slow()).generate('Why?')") as program:
        assert program.line() == "asked"
        at = time.monotonic()
        program.signal(signal.SIGTERM)
        ended = program.ended()

    assert (ended.code, ended.err) == (-signal.SIGTERM, "")
    assert time.monotonic() - at < 0.5
