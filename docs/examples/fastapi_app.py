"""A FastAPI app: a whole answer, a streamed one, errors as HTTP statuses, and how everything stands.

    pip install fastapi uvicorn
    python docs/examples/fastapi_app.py         or, from docs/examples: uvicorn fastapi_app:app
    curl -d '{"prompt": "Why actors?"}' -H 'Content-Type: application/json' http://127.0.0.1:8080/ask

Its models are simulated, and the first one fails; WIZARD_CONFIG=wizard.toml names real ones. A client that hangs up
stops the call to the model, from either endpoint.
"""

import asyncio
import json
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from wizard_actors import ResilientClient, WizardConfig, WizardError, errors

SIMULATED = WizardConfig.from_toml("""models = [
    { name = "first", provider = "simulated", simulated = { script = [{ fault = "error", times = 9 }] } },
    { name = "second", provider = "simulated" }]""")

DEADLINE = 60.0  # seconds for one request, the time in the models' queues included

STATUSES: dict[int, tuple[type[WizardError], ...]] = {
    400: (errors.InvalidPromptError, errors.ContentFilterError),
    429: (errors.RateLimitError, errors.MailboxFullError),
    503: (errors.CircuitOpenError, errors.ActorError),  # the latter: the app is stopping, or restarts a part of itself
    504: (errors.DeadlineExceededError, errors.ProviderTimeoutError),
}

T = TypeVar("T")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one client for the whole app. It must not be opened at import: a server that forks would share it."""
    async with ResilientClient.open(os.environ.get("WIZARD_CONFIG") or SIMULATED) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


def the_client(request: Request) -> ResilientClient:
    """Return the app's client."""
    client: ResilientClient = request.app.state.client
    return client


Client = Annotated[ResilientClient, Depends(the_client)]


class Question(BaseModel):
    """The body of both endpoints."""

    prompt: str


@app.post("/ask")
async def ask(question: Question, request: Request, client: Client) -> dict[str, object]:
    """Return a whole answer."""
    response = await unless_gone(request, client.generate(question.prompt, deadline=DEADLINE))
    return {"text": response.text, "model": response.model, "served_by": response.served_by}


@app.post("/stream")
async def stream(question: Question, request: Request, client: Client) -> StreamingResponse:
    """Return the answer as server-sent events: its text piece by piece, then `done`, or `error`."""
    events = server_sent(client, question.prompt)
    first = await unless_gone(request, anext(events))  # what fails before the first text is a status, as in /ask
    return Streamed(first, events)


@app.get("/health")
async def health(client: Client) -> JSONResponse:
    """Say what does not run, and whose circuit is not closed: 200 while any model can be asked, else 503."""
    actors = {node.path: node.state for node in client.tree().walk() if node.state != "running"}
    gauges = client.metrics().gauges
    circuits = {name: model.circuit for name, model in gauges.models.items()} if gauges else {}
    up = "wizard" not in actors and any(circuit != "open" for circuit in circuits.values())
    return JSONResponse({"up": up, "not_running": actors, "circuits": circuits}, status_code=200 if up else 503)


@app.exception_handler(WizardError)
async def refused(_request: Request, error: WizardError) -> JSONResponse:
    """Answer with what went wrong: its code, never a prompt, and never the provider's own words."""
    status = status_of(error)
    headers = {"Retry-After": str(seconds_until(error))} if status in {429, 503} else {}
    return JSONResponse({"error": error.code}, status_code=status, headers=headers)


def status_of(error: WizardError) -> int:
    """Return the HTTP status of an error; where all models failed, the one on which their errors agree, else 502."""
    if isinstance(error, errors.FallbackError | errors.RetryError):
        statuses = {status_of(attempt.error) for attempt in error.attempts if attempt.error is not None}
        return statuses.pop() if len(statuses) == 1 else 502
    return next((status for status, kinds in STATUSES.items() if isinstance(error, kinds)), 502)


def seconds_until(error: WizardError) -> int:
    """Return after how many seconds it is worth asking again: whole ones, the soonest of what was said."""
    # Never from `retry_at`, which is an instant on another clock.
    told = [getattr(each, "retry_after", None) for each in (error, *(attempt.error for attempt in error.attempts))]
    return max(1, math.ceil(min((seconds for seconds in told if seconds is not None), default=1.0)))


async def server_sent(client: ResilientClient, prompt: str) -> AsyncGenerator[str, None]:
    """Yield the answer in the format of server-sent events. Raises what fails before the first text."""
    begun = False
    try:
        async with client.stream(prompt, deadline=DEADLINE) as answer:
            async for text in answer.text():
                yield f"data: {json.dumps({'text': text})}\n\n"
                begun = True
            yield f"event: done\ndata: {json.dumps({'model': answer.response.model})}\n\n"
    except WizardError as error:
        if not begun:
            raise
        yield f"event: error\ndata: {json.dumps({'error': error.code})}\n\n"  # the 200 has been sent long ago


class Streamed(StreamingResponse):
    """Sends `first` and the rest of `events`, and closes them whatever happens: at once, not when memory is cleared."""

    def __init__(self, first: str, events: AsyncGenerator[str, None]) -> None:
        super().__init__(self._all(first, events), media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)

    async def _all(self, first: str, events: AsyncGenerator[str, None]) -> AsyncIterator[str]:
        yield first
        async for event in events:
            yield event


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it where the client hangs up meanwhile, which nobody else would notice."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499)  # nobody is there to read it
        return working.result()
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.wait({working, gone})  # the call upstream has ended when this returns


async def hung_up(request: Request) -> None:
    """Return when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
