"""llmock as an upstream: its server in a process of its own, scripted faults, and its verdict on the client.

The fixture `llmock_server` (in this folder's conftest) is one server for the whole run, reset before each test:

    async def test_a_500_is_retried(llmock_server: LlmockServer) -> None:
        await llmock_server.script(fail(500, model="primary"))
        ... a client whose base_url is llmock_server.base_url ...
        assert await llmock_server.findings() == []

`llmock_running("--rpm", "60")` starts another one, with options of `llmock serve`.

The scenario format, read from the source of llmock 0.2.2 (`scenarios.py`, `middleware.py`, `verdict.py`):

- `POST /_llmock/scenario` takes `{"behaviors": [...]}`; each is `{"type": ..., <fields>, "times": 1, "match": {...}}`.
  An unknown type or field is a 400. `times` is a count, or null for ever. `match` has any of `provider` ("openai", by
  the path), `path` and `model` (both with shell wildcards), `stream` and `tools` (bools); none of them may stand beside
  `match` instead. Types and fields:
  - `fail`: `status` (400 to 599), `retry_after` (seconds), `message`, `code`. Both `retry-after` (in whole seconds,
    rounded up) and `retry-after-ms` are sent; 429, 503, 504 and 529 say one second where no `retry_after` is given.
  - `delay`: `seconds` before the response's head, an error's too.
  - `slow_first_token`: `seconds` between the head and the first event. Streams only.
  - `stream_fault`: `kind` "disconnect" (the connection drops inside the body), "truncate" (the body ends in good order,
    without finish reason and `[DONE]`), "stall" (`stall_seconds`, 30 by default, then it goes on), "malformed" (half of
    the JSON of one event, then it goes on); each before the event number `after_chunks`, counted from 0 and 1 by
    default: after the role, before any text. Streams only.
  - `reply`: `text`, `tool_calls` ([{name, arguments: object}]), `finish_reason`.
  - `tool_fault`: `kind` "malformed_arguments" or "unknown_tool". Only where tools are offered.
- The queue is searched once for each type, oldest first; a request takes the first behaviour of each type that matches,
  so a reply and a stream fault can meet one request. A `fail` ends the search; the rest waits for the next request.
- A text is streamed word by word: the role, one event a word, the finish reason, the usage if asked for, `[DONE]`.
- Where tools are offered one is called, until the last message is a tool's result.
- `GET /_llmock/requests`: every attempt, oldest first, with `seq, model, stream, status, fault, retry_after, completed,
  chunks_sent, started_at, ended_at, body`. It and the verdict wait up to 2 s for requests still being served.
- `GET /_llmock/verdict` groups attempts into calls by method, path and *body*, model included: a retry has to send the
  same body to count as one, and two calls with the same prompt may be taken for one, so prompts should differ. A
  fallback to another model of the same server is a call of its own, so a first model that failed and was not tried
  again is a finding. An attempt counts as failed where its status was an error, or where llmock could not send its
  whole body; so a client that leaves a stream is seen only while that stream goes on (`--stream-chunk-delay-ms`):
  - errors: `retry_after_ignored`, `retried_non_retryable` (400, 401, 403, 404, 422), `retry_storm` (over 10 attempts),
    `truncated_stream_accepted` (a call whose last attempt was truncated);
  - warnings: `gave_up` (one attempt, which met 408, 409, 429, 5xx or a disconnect), `malformed_chunk_ignored` (a call
    whose last attempt got a malformed event), `no_backoff` (two or more pauses without Retry-After, all below 50 ms or
    each at most 1.1 times the one before), `no_read_timeout` (a stall of 1 s or more sat out to its end).
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Literal

import httpx
from attrs import frozen

__all__ = ["Behavior", "LlmockServer", "delay", "fail", "llmock_running", "reply", "slow_first_token", "stream_fault"]

Behavior = Mapping[str, object]
StreamFaultKind = Literal["disconnect", "truncate", "stall", "malformed"]

START_TIMEOUT = 30.0
STOP_TIMEOUT = 1.0  # it waits for the streams that it stalls, and has nothing to lose
CONTROL_TIMEOUT = 10.0

# -- what to script ----------------------------------------------------------------------------------


def fail(
    status: int,
    *,
    retry_after: float | None = None,
    message: str | None = None,
    code: str | None = None,
    times: int | None = 1,
    model: str | None = None,
) -> Behavior:
    """Answer with an HTTP error."""
    fields = {"status": status, "retry_after": retry_after, "message": message, "code": code}
    return _behavior("fail", {name: value for name, value in fields.items() if value is not None}, times, model)


def delay(seconds: float, *, times: int | None = 1, model: str | None = None) -> Behavior:
    """Hold the whole response, its head too."""
    return _behavior("delay", {"seconds": seconds}, times, model)


def slow_first_token(seconds: float, *, times: int | None = 1, model: str | None = None) -> Behavior:
    """Hold the first event of a stream; the response's head comes at once."""
    return _behavior("slow_first_token", {"seconds": seconds}, times, model, stream=True)


def stream_fault(
    kind: StreamFaultKind,
    *,
    after_chunks: int = 1,
    stall_seconds: float = 30.0,
    times: int | None = 1,
    model: str | None = None,
) -> Behavior:
    """Break a stream before its event number `after_chunks`: 1 is before any text, 0 before the role."""
    fields = {"kind": kind, "after_chunks": after_chunks, "stall_seconds": stall_seconds}
    return _behavior("stream_fault", fields, times, model, stream=True)


def reply(
    text: str | None = None,
    *,
    tool_calls: Sequence[Mapping[str, object]] = (),
    finish_reason: str | None = None,
    times: int | None = 1,
    model: str | None = None,
) -> Behavior:
    """Say this; a tool call is `{"name": ..., "arguments": {...}}`."""
    fields: dict[str, object] = {"tool_calls": list(tool_calls)}
    if text is not None:
        fields["text"] = text
    if finish_reason is not None:
        fields["finish_reason"] = finish_reason
    return _behavior("reply", fields, times, model)


def _behavior(
    kind: str, fields: Mapping[str, object], times: int | None, model: str | None, *, stream: bool | None = None
) -> Behavior:
    match = {name: value for name, value in (("model", model), ("stream", stream)) if value is not None}
    return {"type": kind, **fields, "times": times, "match": match}


# -- the server --------------------------------------------------------------------------------------


@frozen
class LlmockServer:
    """A running server. Its methods talk to its control API, which no fault touches."""

    url: str

    @property
    def base_url(self) -> str:
        """What an OpenAI client needs as its base URL."""
        return f"{self.url}/v1"

    async def script(self, *behaviors: Behavior) -> None:
        """Queue behaviours for the requests to come."""
        await self._control("POST", "/scenario", {"behaviors": list(behaviors)})

    async def pending(self) -> list[dict[str, object]]:
        """Return the behaviours that no request has met yet."""
        return _objects((await self._control("GET", "/scenario"))["pending"])

    async def requests(self) -> list[dict[str, object]]:
        """Return every attempt since the last reset, oldest first; waits up to 2 s for those still being served."""
        return _objects((await self._control("GET", "/requests"))["requests"])

    async def verdict(self) -> dict[str, object]:
        """Return the whole verdict on the client; `findings` are its errors and warnings."""
        return await self._control("GET", "/verdict")

    async def findings(self) -> list[str]:
        """Return what the client did wrong, warnings too: "error retry_after_ignored: Retried 0.1s after ..."."""
        found = _objects((await self.verdict())["findings"])
        return [f"{finding['severity']} {finding['code']}: {finding['title']}" for finding in found]

    def reset(self) -> None:
        """Forget all requests and behaviours. Blocks: for fixtures, outside of Trio."""
        httpx.post(f"{self.url}/_llmock/reset", trust_env=False, timeout=CONTROL_TIMEOUT).raise_for_status()

    async def _control(self, method: str, path: str, body: object = None) -> dict[str, object]:
        async with httpx.AsyncClient(trust_env=False, timeout=CONTROL_TIMEOUT) as http:
            response = await http.request(method, f"{self.url}/_llmock{path}", json=body)
        assert response.is_success, f"llmock refused {method} {path}: {response.text}"
        shown: dict[str, object] = response.json()
        return shown


def _objects(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return value


@contextmanager
def llmock_running(*options: str) -> Iterator[LlmockServer]:
    """Run `llmock serve` on a free port of the loopback for the block, with more of its options.

    Blocks while it starts and stops. Raises `RuntimeError` with what it printed where it does not start.
    """
    with tempfile.TemporaryFile() as output:
        process, url = _start(options, output)
        try:
            yield LlmockServer(url)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(options: Sequence[str], output: IO[bytes]) -> tuple["subprocess.Popen[bytes]", str]:
    """Start the server and wait until it is healthy; on another port where somebody took the free one meanwhile."""
    for _ in range(3):
        port = _free_port()
        # Its entry point rather than its script, which need not be on the path.
        command = [sys.executable, "-c", "from llmock.cli import app; app()", "serve", "--port", str(port)]
        process = subprocess.Popen(
            [*command, "--log-level", "warning", *options], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        url = f"http://127.0.0.1:{port}"
        if _healthy(process, url):
            return process, url
    output.seek(0)
    raise RuntimeError(f"llmock did not start:\n{output.read().decode(errors='replace')}")


def _healthy(process: "subprocess.Popen[bytes]", url: str) -> bool:
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", trust_env=False, timeout=1).is_success:
                return process.poll() is None
        except httpx.TransportError:
            time.sleep(0.02)  # a refused connection says nothing of when to ask again
    process.kill()
    process.wait()
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
