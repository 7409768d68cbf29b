"""Processes that are forked off, or spawned, beside an open client."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.embed.programs import Ended, run

QUIET = ("-W", "default", "-W", "ignore:This process:DeprecationWarning")
"""Newer Pythons warn of every fork beside a thread."""

HELPERS = """
def forked(child):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        start = time.monotonic()
        child()
        print("child took", "long" if time.monotonic() - start > 1.0 else "no time", flush=True)
        os._exit(0) if CHILD_EXIT == "at once" else sys.exit(0)
    until = time.monotonic() + 8
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return True
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("the child hung")

CHILD_EXIT = "at once"

def refused(function, *args):
    try:
        function(*args)
    except UnsupportedError as error:
        print("refused" if __file__ + ":" in str(error) else str(error), error.feature)
    else:
        print("not refused")
"""


def after(folder: Path, text: str) -> Ended:
    """Run a program that has the helpers."""
    return run(folder, HELPERS + text, options=QUIET)


def test_a_forked_child_is_refused_at_once_and_the_parent_goes_on(tmp_path: Path) -> None:
    """Every method that needs the thread, which the child has not; the refusal names the line that opened."""
    ended = after(
        tmp_path,
        """
with BlockingClient.open(CONFIG, providers=quick()) as client:
    client.generate("Why?")
    def child():
        refused(client.generate, "Why?")
        refused(lambda: next(client.stream("Why?").__enter__()))
        refused(client.generate_batch, ["Why?"])
        refused(client.warm, ["Why?"])
        refused(client.invalidate)
        refused(client.run, asyncio.sleep, 0)
        refused(client.tree)
        refused(client.metrics)
        client.close()
    forked(child)
    print(len(client.generate("Why?").text), client.tree().state)
last()
""",
    )

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ["refused fork"] * 8 + ["child took no time", "500 running"]
    assert ended.seconds < 1.0


def test_a_stream_that_is_open_at_the_fork_ends_in_the_child(tmp_path: Path) -> None:
    """Reading on is refused, leaving is quick; in the parent it goes on."""
    ended = after(
        tmp_path,
        """
with BlockingClient.open(CONFIG, providers=quick()) as client:
    with client.stream("Why?") as stream:
        next(stream)
        def child():
            refused(lambda: list(stream))
            stream.__exit__(None, None, None)
        forked(child)
        print(len("".join(stream.text())))
last()
""",
    )

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ["refused fork", "child took no time", "495"]


@pytest.mark.parametrize("ending", ["at once", "in order"])
def test_a_child_that_ends_says_nothing_of_its_parents_client(ending: str, tmp_path: Path) -> None:
    """Not where it leaves the block, drops the client, or ends: the client is not its own."""
    ended = after(
        tmp_path,
        f"""
CHILD_EXIT = {ending!r}
pid = os.getpid()
client = BlockingClient.open(CONFIG, providers=quick())
def child():
    global client
    del client
    gc.collect()
forked(child)
client.close()
last()
""",
    )

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ["child took no time"]
    assert ended.seconds < 1.0


def test_a_child_opens_a_client_of_its_own(tmp_path: Path) -> None:
    """Beside its parent's, which it forgets; one that it forgets itself is told of where the child ends in order."""
    ended = after(
        tmp_path,
        """
CHILD_EXIT = "in order"
outer = BlockingClient.open(CONFIG, providers=quick())
def child():
    with BlockingClient.open(CONFIG, providers=quick()) as client:
        print(len(client.generate("Why?").text))
    global mine
    mine = BlockingClient.open(CONFIG, providers=quick())  # here
    mine.generate("Why?")
forked(child)
print(len(outer.generate("Why?").text))
outer.close()
last()
""",
    )

    assert (ended.code, ended.err) == (0, ended.warned())
    assert ended.out == ["500", "child took no time", "500"]


def test_an_asyncio_client_is_refused_in_a_child_too(tmp_path: Path) -> None:
    """A loop of the child's own does not help: the thread is the parent's."""
    ended = after(
        tmp_path,
        """
async def opened():
    block = ResilientClient.open(CONFIG, providers=quick())
    return block, await block.__aenter__()

async def read(client):
    async with client.stream("Why?") as stream:
        await anext(stream)

loop = asyncio.new_event_loop()
block, client = loop.run_until_complete(opened())
def child():
    refused(asyncio.run, client.generate("Why?"))
    refused(asyncio.run, client.generate_batch(["Why?"]))
    refused(asyncio.run, read(client))
    refused(client.tree)
    asyncio.run(block.__aexit__(None, None, None))
forked(child)
print(len(loop.run_until_complete(client.generate("Why?")).text))
loop.run_until_complete(block.__aexit__(None, None, None))
loop.close()
last()
""",
    )

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ["refused fork"] * 4 + ["child took no time", "500"]


def test_a_fork_in_a_busy_moment_does_not_hang_the_child(tmp_path: Path) -> None:
    """Other threads are in the middle of everything; the child is refused, leaves, and ends."""
    ended = after(
        tmp_path,
        """
client = BlockingClient.open(CONFIG, providers=quick())
stop = threading.Event()
def work():
    while not stop.is_set():
        client.generate("Why?", cache="bypass")
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
devnull = os.open(os.devnull, os.O_WRONLY)
def child():
    os.dup2(devnull, 1)
    refused(client.generate, "Why?")
    client.close()
any(not forked(child) for _ in range(40))
stop.set()
for thread in threads:
    thread.join()
client.close()
last()
""",
    )

    assert (ended.code, ended.err, ended.out) == (0, "", [])


WORKERS = """
def setup():
    global client
    client = BlockingClient.open(CONFIG, providers=quick())  # here

def work(prompt):
    return len(client.generate(prompt).text)

def refuse(where):
    try:
        outer.generate("Why?")
    except UnsupportedError:
        where.put("refused")

if __name__ == "__main__":
    how = multiprocessing.get_context({method!r})
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_opens_a_client_in_each(method: str, tmp_path: Path) -> None:
    """Opened by the initializer and never closed; the pool ends all the same, and soon."""
    ended = run(
        tmp_path,
        WORKERS.format(method=method)
        + """
    with ProcessPoolExecutor(2, mp_context=how, initializer=setup) as pool:
        print(list(pool.map(work, ["Why?"] * 6)))
        last()
""",
        options=QUIET,
    )

    assert ended.code == 0
    assert set(ended.err.splitlines()) <= set(ended.warned().splitlines())
    assert ended.out == ["[500, 500, 500, 500, 500, 500]"]
    assert ended.seconds < 2.5


def test_a_forked_worker_is_refused_its_parents_client(tmp_path: Path) -> None:
    """As `multiprocessing` forks it."""
    ended = run(
        tmp_path,
        WORKERS.format(method="fork")
        + """
    with BlockingClient.open(CONFIG, providers=quick()) as outer:
        answers = how.SimpleQueue()
        child = how.Process(target=refuse, args=(answers,))
        child.start()
        print(answers.get())
        child.join(5)
        print(child.exitcode, len(outer.generate("Why?").text))
    last()
""",
        options=QUIET,
    )

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == ["refused", "0 500"]
