"""OpenAI's Chat Completions as a format of the HTTP endpoint. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from wizard_actors.http_api import openai_answer, openai_request
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.format import Format, StreamWriter
from wizard_actors.http_api.status import Failure
from wizard_actors.types import WizardResponse

__all__ = ["OPENAI"]


@frozen
class _OpenAI:
    """Chat Completions, and the list of models."""

    def read(self, body: object) -> Asked:
        """Return what a body asks for. Raises `BadRequestError` and `InvalidPromptError`."""
        return openai_request.read(body)

    def meant(self, name: str) -> str | None:
        """Return the field that somebody meant who wrote `name`: that of another format, or a near one."""
        return openai_request.meant(name)

    def answer(self, response: WizardResponse, name: str, *, created: int) -> dict[str, object]:
        """Return a whole answer, a `chat.completion`."""
        return openai_answer.answer(response, name, created=created)

    def stream(self, asked: Asked, request_id: str, *, created: int) -> StreamWriter:
        """Return what writes an answer as `chat.completion.chunk` objects."""
        return openai_answer.ChunkWriter(asked, request_id, created=created)

    def error(self, failure: Failure, request_id: str) -> dict[str, object]:
        """Return `{"error": {message, type, param, code, wizard}}`."""
        return openai_answer.error(failure, request_id)

    def models(self, names: Sequence[str], *, created: int) -> dict[str, object]:
        """Return `{"object": "list", "data": [...]}`."""
        return {"object": "list", "data": [self.model(name, created=created) for name in names]}

    def model(self, name: str, *, created: int) -> dict[str, object]:
        """Return `{"id", "object": "model", "created", "owned_by"}`."""
        return {"id": name, "object": "model", "created": created, "owned_by": "wizard"}


OPENAI: Final[Format] = _OpenAI()
"""Chat Completions, for the official SDK and whatever else speaks it."""
