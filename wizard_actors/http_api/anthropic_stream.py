"""One answer as the events of a Messages stream. Pure.

A stream of this format has one block of content open at a time, and none is opened again. Ours may have more: calls of
tools whose arguments come by turns, or text in between. So what comes while a call is open whose arguments are not yet
a whole JSON object waits until they are, or for the end. Models that write one thing after the other, as nearly all do,
are passed on piece by piece.

The arguments are the model's own text: what is no JSON in the end is seen by whoever reads it. But a lone null is none.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import define, field

from wizard_actors.errors import ParseError
from wizard_actors.http_api.anthropic_answer import (
    NULL,
    arguments_in,
    call_block,
    error_body,
    redacted_block,
    stop_reason,
    usage_fields,
)
from wizard_actors.http_api.anthropic_proofs import sealed_signature
from wizard_actors.http_api.format import sse
from wizard_actors.http_api.status import Failure
from wizard_actors.types import (
    End,
    ReasoningDelta,
    Signature,
    StreamEvent,
    TextDelta,
    Thought,
    ThoughtEnded,
    ToolCall,
    ToolCallDelta,
    WizardResponse,
)

__all__ = ["MessageWriter"]

Said: TypeAlias = TextDelta | ReasoningDelta | ThoughtEnded


@define
class _Call:
    """A call of a tool. `waiting`: the pieces of its arguments that are not written yet; `begun`: its block is."""

    id: str = ""
    name: str = ""
    signature: Signature | None = None
    waiting: list[str] = field(factory=list)
    begun: bool = False


class MessageWriter:
    """Writes one answer, a `StreamWriter`. `begin` comes first; the usage is in the end, for it is not known before.

    A call of a tool begins once its id and its name are known, and with the signature that came by then.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._model = ""
        self._out: list[bytes] = []
        self._blocks = 0  # that have begun
        self._open: str | None = None  # the type of the block that is
        self._calling: int | None = None  # our index of the call that is open
        self._arguments: list[str] = []  # of that call, so far
        self._null = ""  # its beginning, as long as it may be nothing but null
        self._whole: bool | None = False  # whether they are a JSON object, None where nobody has looked yet
        self._calls: dict[int, _Call] = {}
        self._held: list[Said] = []
        self._over = False

    def begin(self, model: str) -> bytes:
        """Return the beginning of the message, without a figure in its usage."""
        self._model = model
        message: dict[str, object] = {
            "id": f"msg_{self._request_id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_fields(None),
        }
        self._write("message_start", message=message)
        return self._written()

    def event(self, event: StreamEvent) -> bytes:
        """Return what an event becomes; nothing after the end, and nothing for a usage that is not the last.

        Raises `ParseError` where the arguments of a call go on after their end, and their block.
        """
        if self._over:
            return b""
        match event:
            case TextDelta() | ReasoningDelta() | ThoughtEnded():
                self._held.append(event)
                if self._may_close():
                    self._release()
            case ToolCallDelta():
                self._call(event)
            case End():
                self._end(event.response)
        return self._written()

    def failed(self, failure: Failure) -> bytes:
        """Return an event of the failure; nothing follows it."""
        if not self._over:
            self._out.append(sse(error_body(failure, self._request_id), "error"))
            self._over = True
        return self._written()

    # -- what is said ------------------------------------------------------------------------------------

    def _release(self) -> None:
        for event in self._held:
            self._say(event)
        self._held.clear()

    def _say(self, event: Said) -> None:
        match event:
            case TextDelta(text) if text:
                self._open_for("text", {"type": "text", "text": ""})
                self._delta("text_delta", text=text)
            case ReasoningDelta(text) if text:
                self._open_for("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                self._delta("thinking_delta", thinking=text)
            case ThoughtEnded():
                self._end_thought(event)

    def _end_thought(self, event: ThoughtEnded) -> None:
        if event.redacted and self._open != "thinking":
            self._begin(redacted_block(Thought("", event.signature, redacted=True, id=event.id)))
            self._close()
            return
        if sealed := sealed_signature(event.signature, event.id, redacted=event.redacted):
            self._open_for("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._delta("signature_delta", signature=sealed)
        if self._open == "thinking":
            self._close()

    # -- calls of tools ----------------------------------------------------------------------------------

    def _call(self, delta: ToolCallDelta) -> None:
        call = self._calls.setdefault(delta.index, _Call())
        call.id, call.name = call.id or delta.id or "", call.name or delta.name or ""
        call.signature = call.signature or delta.signature
        if delta.index == self._calling:
            self._argue(delta.arguments)
        elif call.begun:
            if delta.arguments.strip():
                said = f"{self._model} went on with a call's arguments after their end: ask again"
                raise ParseError(said, model=self._model)
        else:
            call.waiting.append(delta.arguments)
            if call.id and call.name and self._may_close():
                self._release()
                self._begin_call(delta.index, call)

    def _begin_call(self, index: int, call: _Call) -> None:
        self._begin(call_block(ToolCall(call.id or f"call_{index}", call.name, "", call.signature)))
        self._calling, call.begun = index, True
        self._argue("".join(call.waiting))
        call.waiting.clear()

    def _argue(self, arguments: str) -> None:
        if not self._arguments:
            # Readers of JSON that is not all there refuse nothing but white space.
            arguments, self._null = (self._null + arguments).lstrip(), ""
            if NULL.startswith(arguments.rstrip()):
                self._null, self._whole = arguments, arguments.rstrip() == NULL
                return
        if arguments:
            self._arguments.append(arguments)
            self._whole = None
            self._delta("input_json_delta", partial_json=arguments)

    def _may_close(self) -> bool:
        """Whether the open block is complete as far as anybody can see."""
        if self._calling is None:
            return True
        if self._whole is None:
            text = "".join(self._arguments)
            self._arguments = [text]
            self._whole = text.rstrip().endswith("}") and arguments_in(text) is not None
        return self._whole

    # -- the end -----------------------------------------------------------------------------------------

    def _end(self, response: WizardResponse) -> None:
        self._release()
        for index, call in sorted(self._calls.items()):
            if not call.begun:
                self._begin_call(index, call)
        self._close()
        delta = {"stop_reason": stop_reason(response), "stop_sequence": None}
        self._write("message_delta", delta=delta, usage=usage_fields(response.usage))
        self._write("message_stop")
        self._over = True

    # -- blocks and events -------------------------------------------------------------------------------

    def _open_for(self, kind: str, block: dict[str, object]) -> None:
        if self._open != kind:
            self._begin(block)

    def _begin(self, block: dict[str, object]) -> None:
        self._close()
        self._write("content_block_start", index=self._blocks, content_block=block)
        self._blocks += 1
        self._open = str(block["type"])

    def _delta(self, kind: str, **fields: str) -> None:
        self._write("content_block_delta", index=self._blocks - 1, delta={"type": kind, **fields})

    def _close(self) -> None:
        if self._null.rstrip() not in {"", NULL}:
            self._delta("input_json_delta", partial_json=self._null)
        if self._open is not None:
            self._write("content_block_stop", index=self._blocks - 1)
        self._open = self._calling = None
        self._arguments.clear()
        self._null, self._whole = "", False

    def _write(self, kind: str, **fields: object) -> None:
        self._out.append(sse({"type": kind, **fields}, kind))

    def _written(self) -> bytes:
        written = b"".join(self._out)
        self._out.clear()
        return written
