"""A FastAPI app in which every user has conversations that are kept: answers as a stream, and their history as JSON.

    pip install fastapi uvicorn
    python docs/examples/fastapi_sessions.py
    curl -H 'X-User: ann' --json '{"prompt": "Why actors?"}' http://127.0.0.1:8080/chats/first
    curl -H 'X-User: ann' http://127.0.0.1:8080/chats/first

Its model is simulated; WIZARD_CONFIG=wizard.toml names real ones. Conversations are kept in wizard.db. Who
a user is, is for your authentication to say: this app believes a header. fastapi_app.py has more that apps need.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Path, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from wizard_actors import PersistentSession, ResilientClient, WizardConfig, WizardError, errors

SIMULATED = WizardConfig.from_toml('models = [{ name = "only", provider = "simulated" }]')
NAME = r"^[\w.-]+$"
DEADLINE = 60.0  # seconds for one turn, the wait for the turn before it included

STATUSES: dict[int, tuple[type[WizardError], ...]] = {
    400: (errors.InvalidPromptError,),
    409: (
        errors.SessionConflictError,
        errors.InvalidStateTransitionError,
    ),  # somebody else goes on with it; it is closed
    429: (errors.RateLimitError, errors.MailboxFullError),
    503: (errors.CircuitOpenError, errors.ActorError, errors.StorageError),
    504: (errors.DeadlineExceededError, errors.ProviderTimeoutError),
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one client for the whole app: the turns of a session wait for each other in it."""
    async with ResilientClient.open(os.environ.get("WIZARD_CONFIG") or SIMULATED) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


def the_client(request: Request) -> ResilientClient:
    """Return the app's client."""
    client: ResilientClient = request.app.state.client
    return client


def the_name(
    user: Annotated[str, Header(alias="X-User", pattern=NAME, max_length=64)],
    chat: Annotated[str, Path(pattern=NAME, max_length=64)],
) -> str:
    """Return the session's name. The user's own id stands in front: nobody reaches another's conversation by its name.

    FastAPI answers with a 422 where a part of it is no name.
    """
    return f"{user}:{chat}"


Client = Annotated[ResilientClient, Depends(the_client)]
Name = Annotated[str, Depends(the_name)]


class Question(BaseModel):
    """What a user says."""

    prompt: str


@app.post("/chats/{chat}")
async def say(question: Question, name: Name, client: Client) -> StreamingResponse:
    """Take a turn: server-sent events with its text piece by piece, then `done` once it is stored, or `error`."""
    events = server_sent(client.session(name, system="Be brief."), question.prompt)
    first = await anext(events)  # what fails before the first text is a status
    return Streamed(first, events)


@app.get("/chats/{chat}")
async def history(name: Name, client: Client) -> dict[str, object]:
    """Return what was said."""
    record = await client.sessions.load(name)
    if record is None:
        raise HTTPException(404)
    said = [{"role": message.role, "text": message.text} for message in record.messages]
    return {"state": record.state, "messages": said}


@app.delete("/chats/{chat}")
async def forget(name: Name, client: Client) -> dict[str, bool]:
    """Delete a conversation, once the turn in progress has ended."""
    return {"deleted": await client.sessions.delete(name)}


@app.exception_handler(WizardError)
async def refused(_request: Request, error: WizardError) -> JSONResponse:
    """Answer with what went wrong: its code, and never what anybody said."""
    status = next((status for status, kinds in STATUSES.items() if isinstance(error, kinds)), 502)
    return JSONResponse({"error": error.code}, status_code=status)


async def server_sent(opened: PersistentSession, prompt: str) -> AsyncGenerator[str, None]:
    """Yield a turn in the format of server-sent events. Raises what fails before the first text.

    Whoever closes this half-way, because the user has hung up, breaks the turn off: nothing of it is stored.
    """
    begun = False
    try:
        async with opened as session, session.stream(prompt, deadline=DEADLINE) as answer:
            async for text in answer.text():
                yield f"data: {json.dumps({'text': text})}\n\n"
                begun = True
            yield f"event: done\ndata: {json.dumps({'turns': len(session.record.turns)})}\n\n"
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


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
