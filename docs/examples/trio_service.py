"""A Trio service: jobs come over TCP, one JSON object a line, and each is answered by one line.

    python docs/examples/trio_service.py
    {"id": 1, "prompt": "Why actors?"}                                     the client sends
    {"id": 1, "text": "...", "model": "second", "served_by": "fallback"}   and reads

Its models are simulated, and the first one fails; WIZARD_CONFIG=wizard.toml names real ones. SIGTERM and Ctrl-C stop
it in order: no more jobs are read, those under way are answered, for DRAIN seconds at most. A second signal ends it at
once.
"""

import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from functools import partial

import trio

from wizard_actors import ResilientClient, WizardConfig, WizardError

SIMULATED = WizardConfig.from_toml("""models = [
    { name = "first", provider = "simulated", simulated = { script = [{ fault = "error", times = 9 }] } },
    { name = "second", provider = "simulated" }]""")

AT_ONCE = 64  # jobs, of all connections together; beyond that nobody's socket is read, and senders have to wait
LONGEST = 64 * 1024  # bytes of one job
DEADLINE = 60.0  # seconds for one job, the time in the models' queues included
DRAIN = 20.0  # seconds that jobs under way may take after a signal

log = logging.getLogger("service")


class Service:
    """Answers the jobs of any number of connections."""

    def __init__(self, client: ResilientClient) -> None:
        self._client = client
        self._places = trio.Semaphore(AT_ONCE)
        self._reading: set[trio.CancelScope] = set()
        self._closed = False

    def close(self) -> None:
        """Read no more jobs; those that have been read are answered."""
        self._closed = True
        for scope in self._reading:
            scope.cancel()

    async def connection(self, stream: trio.SocketStream) -> None:
        """Answer the jobs of one client. What goes wrong here is the end of this connection, not of the service."""
        try:
            async with trio.open_nursery() as jobs:  # waits for the answers that are due
                with trio.CancelScope() as reading:
                    self._reading.add(reading)
                    try:
                        if not self._closed:
                            await self._read(stream, jobs)
                    finally:
                        self._reading.discard(reading)
        except* trio.BrokenResourceError:
            log.info("a client went away")
        except* Exception:
            log.exception("a connection was given up")

    async def _read(self, stream: trio.SocketStream, jobs: trio.Nursery) -> None:
        one_at_a_time = trio.Lock()  # two answers must not mix in the socket
        async for line in lines(stream):
            await self._places.acquire()
            jobs.start_soon(self._work, line, stream, one_at_a_time)
        jobs.cancel_scope.cancel()  # the client has hung up: its calls are stopped, which stops the models too

    async def _work(self, line: bytes, stream: trio.SocketStream, one_at_a_time: trio.Lock) -> None:
        try:
            answer = await self._answer(line)
            async with one_at_a_time:
                await stream.send_all(json.dumps(answer).encode() + b"\n")
        finally:
            self._places.release()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            job = json.loads(line)
            number, prompt = job["id"], job["prompt"]
        except (ValueError, TypeError, KeyError):
            return {"error": "bad_job", "message": 'a job is a line of JSON: {"id": 1, "prompt": "..."}'}
        try:
            response = await self._client.generate(prompt, deadline=DEADLINE)
        except WizardError as error:
            return {"id": number, "error": error.code, "message": str(error)}
        return {"id": number, "text": response.text, "model": response.model, "served_by": response.served_by}


async def lines(stream: trio.SocketStream) -> AsyncIterator[bytes]:
    """Yield the lines of a stream. Raises `ValueError` for one that does not end."""
    rest = bytearray()
    async for data in stream:
        rest += data
        *whole, rest = rest.split(b"\n")
        for line in whole:
            yield bytes(line)
        if len(rest) > LONGEST:
            raise ValueError(f"a job is longer than {LONGEST} bytes")


async def main(config: WizardConfig | str, port: int) -> None:
    """Serve until a signal comes."""
    async with ResilientClient.open(config) as client:
        service = Service(client)
        # The client's block is the outer one: it closes when the last connection has gone.
        async with trio.open_nursery() as connections:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async with trio.open_nursery() as accepting:
                    serve = partial(trio.serve_tcp, service.connection, host="127.0.0.1", handler_nursery=connections)
                    [listener] = await accepting.start(serve, port)
                    print(f"listening on 127.0.0.1:{listener.socket.getsockname()[1]}", flush=True)
                    await anext(signals)
                    accepting.cancel_scope.cancel()
            service.close()
            connections.cancel_scope.deadline = trio.current_time() + DRAIN
        counted = client.metrics().requests
        print(f"stopped: {sum(counted.answered.values())} answered, {counted.cancelled} cancelled", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    trio.run(main, os.environ.get("WIZARD_CONFIG") or SIMULATED, int(os.environ.get("PORT", "8700")))
