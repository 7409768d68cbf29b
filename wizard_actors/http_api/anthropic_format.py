"""The format of Anthropic's Messages API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from wizard_actors.http_api.anthropic_answer import error_body, message
from wizard_actors.http_api.anthropic_request import asked, meant
from wizard_actors.http_api.anthropic_stream import MessageWriter
from wizard_actors.http_api.asked import Asked
from wizard_actors.http_api.format import Format, StreamWriter
from wizard_actors.http_api.status import Failure
from wizard_actors.types import WizardResponse

__all__ = ["ANTHROPIC"]


class _AnthropicFormat:
    """What `POST /v1/messages` and `GET /v1/models` speak to Anthropic's clients."""

    def read(self, body: object) -> Asked:
        """Return what a body asks for; see `anthropic_request`."""
        return asked(body)

    def meant(self, name: str) -> str | None:
        """Return the field that somebody meant who wrote `name`: that of another format, or a near one."""
        return meant(name)

    def answer(self, response: WizardResponse, name: str, *, created: int) -> dict[str, object]:
        """Return a whole message."""
        return message(response, name)

    def stream(self, asked: Asked, request_id: str, *, created: int) -> StreamWriter:
        """Return what writes a message in pieces."""
        return MessageWriter(request_id)

    def error(self, failure: Failure, request_id: str) -> dict[str, object]:
        """Return the body that tells of a failure; see `error_body`."""
        return error_body(failure, request_id)

    def models(self, names: Sequence[str], *, created: int) -> dict[str, object]:
        """Return the list of what may be asked by name, all of it on one page."""
        return {
            "data": [self.model(name, created=created) for name in names],
            "has_more": False,
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
        }

    def model(self, name: str, *, created: int) -> dict[str, object]:
        """Return one of them."""
        created_at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"type": "model", "id": name, "display_name": name, "created_at": created_at, "lifecycle": "active"}


ANTHROPIC: Final[Format] = _AnthropicFormat()
