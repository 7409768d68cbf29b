"""The events in what OpenAI's Responses API answers: in the events of its streams, and in whole responses. Pure.

A response is a list of items: messages, tool calls, pieces of reasoning, and whatever the provider's own tools did,
which is nobody's here. A stream tells of each item three times: that it begins, its text in pieces, and the whole of
it. What the pieces left out is taken from the whole, and nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from attrs import define, evolve, field

from wizard_actors.errors import WizardError
from wizard_actors.providers.json_parts import count_of, table_of, text_of
from wizard_actors.providers.refusals import ErrorBody, Head, error_body, refusal
from wizard_actors.types import (
    Finished,
    FinishReason,
    ModelEvent,
    ReasoningDelta,
    Signature,
    TextDelta,
    ThoughtEnded,
    TokenUsage,
    ToolCallDelta,
    UsageUpdate,
)

__all__ = ["PROTOCOL", "EventReader"]

PROTOCOL: Final = "responses"
"""What the signatures of this protocol are marked with."""

FINISH_REASONS: Final[Mapping[str, FinishReason]] = MappingProxyType(
    {"max_output_tokens": FinishReason.LENGTH, "content_filter": FinishReason.CONTENT_FILTER}
)
"""Why a response is incomplete; any other word is OTHER."""

DELTAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "response.output_text.delta": "text",
        "response.refusal.delta": "refusal",
        "response.reasoning_text.delta": "reasoning_text",
        "response.reasoning_summary_text.delta": "summary_text",
        "response.function_call_arguments.delta": "arguments",
    }
)
"""The events that carry more of an item, and of which of its texts."""

WHOLES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "response.output_text.done": ("text", "text"),
        "response.refusal.done": ("refusal", "refusal"),
        "response.reasoning_text.done": ("reasoning_text", "text"),
        "response.reasoning_summary_text.done": ("summary_text", "text"),
        "response.function_call_arguments.done": ("arguments", "arguments"),
    }
)
"""The events that repeat one of an item's texts as a whole, which of them, and in which field."""

ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})

CONTENT_POLICIES: Final = frozenset({"bio_policy", "image_content_policy_violation"})
"""Codes of responses that failed for what they were about."""

FAULTY_REQUESTS: Final = frozenset(
    {
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "unsupported_image_media_type",
    }
)
"""Codes of responses that failed for what they were given: asking again changes nothing."""


@define
class _Item:
    """What has been told of one item: how much of each of its texts, and which of our calls it is.

    `done`: upstream has stated the whole of it.
    """

    kind: str | None = None
    done: bool = False
    told: Counter[tuple[str, int]] = field(factory=Counter)
    call: int | None = None
    call_id: str | None = None
    name: str | None = None


class EventReader:
    """The events in the events of one stream, or in one whole response."""

    def __init__(self, head: Head) -> None:
        self.model: str | None = None
        self.id: str | None = None
        self.finished = False
        self._head = head
        self._items: dict[int | str | None, _Item] = {}  # the last of each place
        self._named: dict[str, _Item] = {}  # all that were announced, by their ids and by those of their calls
        self._begun = 0
        self._calls = 0

    @property
    def ended(self) -> bool:
        """Whether the protocol's last word has come: the same as the answer's end."""
        return self.finished

    def read(self, value: object, events: list[ModelEvent], *, whole: bool = False, name: str = "message") -> None:
        """Append the events in `value`. Raises the error in it, after the events before it."""
        if not isinstance(value, dict):
            if name == "error" or isinstance(value, list):
                raise refusal(self._head, error_body(value))
            raise self._head.parse_error("is not a JSON object")
        kind = text_of(value.get("type")) or name
        response = value if whole else value.get("response")
        if isinstance(response, dict) and self.model is None:
            self.model, self.id = text_of(response.get("model")), text_of(response.get("id"))
        if whole and isinstance(value.get("output"), list):
            self._finish(value, events)
        elif kind == "error" or value.get("error"):
            raise self._refused(value)
        elif whole:
            raise self._not_a_response(value)
        elif kind in ENDS:
            stated = response if isinstance(response, dict) else {}
            self._finish({**stated, "status": kind.removeprefix("response.")}, events)
        else:
            self._read_event(kind, value, events)

    def end(self, events: list[ModelEvent]) -> None:
        """Append nothing: a response without its last event was cut, whatever ends the stream."""

    # -- one event of a stream -----------------------------------------------------------------------

    def _read_event(self, kind: str, event: Mapping[str, object], events: list[ModelEvent]) -> None:
        if kind in DELTAS:
            channel, delta = DELTAS[kind], event.get("delta")
            if isinstance(delta, str):
                self._tell(self._item(event), channel, _part(event), delta, events)
            elif delta is not None:
                raise self._head.parse_error(f"has a {type(delta).__name__} for its {channel}")
        elif kind in WHOLES:
            channel, place = WHOLES[kind]
            self._tell_rest(self._item(event), channel, _part(event), event.get(place), events)
        elif kind in {"response.output_item.added", "response.output_item.done"}:
            self._read_item(event, events, done=kind.endswith("done"))

    def _read_item(self, event: Mapping[str, object], events: list[ModelEvent], *, done: bool) -> None:
        item = event.get("item")
        if not isinstance(item, dict):
            return
        known = self._items.get(_key(event, item))
        call_id = text_of(item.get("call_id"))
        if known is None or not done or (call_id and known.call_id and known.call_id != call_id):
            known = self._begin(event, item)  # some give all their items one index
        known.kind = text_of(item.get("type"))
        for name in filter(None, (text_of(item.get("id")), call_id)):
            self._named[name] = known
        self._tell_item(known, item, events, done=done)

    def _item(self, event: Mapping[str, object]) -> _Item:
        """Return what has been told of the item that the event is about."""
        known = self._items.get(_key(event))
        return self._begin(event) if known is None else known

    def _begin(self, event: Mapping[str, object], item: Mapping[str, object] | None = None) -> _Item:
        known = self._items[_key(event, item)] = _Item()
        self._begun += 1
        return known

    # -- items ---------------------------------------------------------------------------------------

    def _tell_item(self, known: _Item, item: Mapping[str, object], events: list[ModelEvent], *, done: bool) -> None:
        """Append what has not been told of an item yet: its name, and once it is `done` the rest."""
        kind = item.get("type")
        if kind == "function_call":
            self._name_call(known, item, events)
        if not done:
            return
        known.done = True
        match kind:
            case "message":
                for place, part in _parts(item.get("content")):
                    self._tell_rest(known, "text", place, part.get("text"), events)
                    self._tell_rest(known, "refusal", place, part.get("refusal"), events)
            case "function_call":
                self._tell_rest(known, "arguments", 0, item.get("arguments"), events)
            case "reasoning":
                for place, part in _parts(item.get("summary")):
                    self._tell_rest(known, "summary_text", place, part.get("text"), events)
                for place, part in _parts(item.get("content")):
                    self._tell_rest(known, "reasoning_text", place, part.get("text"), events)
                self._end_thought(known, item, events)

    def _tell_rest(self, known: _Item, channel: str, part: int, whole: object, events: list[ModelEvent]) -> None:
        """Append what follows in a text after as much of it as has been told."""
        if isinstance(whole, str):
            self._tell(known, channel, part, whole[known.told[channel, part] :], events)

    def _tell(self, known: _Item, channel: str, part: int, text: str, events: list[ModelEvent]) -> None:
        if not text:
            return
        known.told[channel, part] += len(text)
        if channel == "arguments":
            events.append(ToolCallDelta(self._call(known), arguments=text))
        elif channel in {"text", "refusal"}:  # a refusal is what the model has to say
            events.append(TextDelta(text))
        else:
            events.append(ReasoningDelta(text))

    def _name_call(self, known: _Item, item: Mapping[str, object], events: list[ModelEvent]) -> None:
        call_id, name = text_of(item.get("call_id")), text_of(item.get("name"))
        new_id, new_name = known.call_id is None and call_id, known.name is None and name
        known.call_id, known.name = known.call_id or call_id, known.name or name
        index = self._call(known)
        if new_id or new_name:
            events.append(ToolCallDelta(index, new_id or None, new_name or None))

    def _call(self, known: _Item) -> int:
        if known.call is None:
            known.call, self._calls = self._calls, self._calls + 1
        return known.call

    def _end_thought(self, known: _Item, item: Mapping[str, object], events: list[ModelEvent]) -> None:
        proof = text_of(item.get("encrypted_content"))
        if proof or known.told:  # a model that neither shows nor proves its reasoning has said nothing
            signature = Signature(PROTOCOL, proof) if proof else None
            events.append(ThoughtEnded(signature, id=text_of(item.get("id"))))

    # -- the end -------------------------------------------------------------------------------------

    def _finish(self, response: Mapping[str, object], events: list[ModelEvent]) -> None:
        """Append what has not been told of a response that has ended, or raise what it failed with."""
        status = text_of(response.get("status")) or "completed"
        if status in {"queued", "in_progress"}:
            raise self._head.parse_error(f"is not complete: its status is {status!r}")
        self._tell_output(response.get("output"), events)
        usage = _usage(response.get("usage"))
        if usage is not None:
            events.append(UsageUpdate(usage))
        if status in {"failed", "cancelled"} or response.get("error"):
            raise self._refused({"error": response.get("error") or f"the response is {status}"})
        self.finished = True
        events.append(self._finished(response, status))

    def _tell_output(self, output: object, events: list[ModelEvent]) -> None:
        """Append what the stream has left out of the items. Who numbers them badly must not make us tell one twice."""
        items = [*_parts(output)]
        all_begun = self._begun >= len(items) or None in self._items
        for place, item in items:
            known = self._known(place, item) or (None if all_begun else _Item())
            if known is not None and not known.done:
                self._tell_item(known, item, events, done=True)

    def _known(self, place: int, item: Mapping[str, object]) -> _Item | None:
        """Return what has been told of an item of the final output, None where it is new."""
        for name in (text_of(item.get("id")), text_of(item.get("call_id"))):
            known = None if name is None else self._named.get(name) or self._items.get(name)
            if known is not None:
                return known
        known = self._items.get(place)
        return known if known is not None and known.kind in {None, item.get("type")} else None

    def _finished(self, response: Mapping[str, object], status: str) -> Finished:
        if status == "completed":
            return Finished(FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP, status)
        details = response.get("incomplete_details")
        raw = (text_of(details.get("reason")) if isinstance(details, dict) else None) or status
        return Finished(FINISH_REASONS.get(raw, FinishReason.OTHER), raw)

    # -- errors --------------------------------------------------------------------------------------

    def _refused(self, value: Mapping[str, object]) -> WizardError:
        body = error_body(value)
        head = self._head if self._head.request_id else evolve(self._head, request_id=self.id)
        return refusal(head, _judged(body))

    def _not_a_response(self, value: Mapping[str, object]) -> WizardError:
        if any(value.get(name) for name in ("message", "detail", "errors")):
            return self._refused(value)
        hint = '; it looks like Chat Completions: set `api = "chat"`' if "choices" in value else ""
        return self._head.parse_error(f"has no output{hint}")


def _judged(body: ErrorBody) -> ErrorBody:
    """Return the error with what its code means said in words that all providers share."""
    if CONTENT_POLICIES.intersection(body.codes):
        return evolve(body, codes=("content_policy_violation", *body.codes))
    if FAULTY_REQUESTS.intersection(body.codes):
        return evolve(body, status=400)
    return body


# -- the parts of an event ---------------------------------------------------------------------------


def _key(event: Mapping[str, object], item: Mapping[str, object] | None = None) -> int | str | None:
    """Return which item an event is about: by its place, which stays, else by its id, which some change."""
    index = event.get("output_index")
    if isinstance(index, int):
        return index
    return text_of(event.get("item_id")) or (None if item is None else text_of(item.get("id")))


def _part(event: Mapping[str, object]) -> int:
    """Return which part of its item an event is about."""
    for name in ("content_index", "summary_index"):
        place = event.get(name)
        if isinstance(place, int):
            return place
    return 0


def _parts(value: object) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the objects in a list, with their places."""
    for place, part in enumerate(value if isinstance(value, list) else ()):
        if isinstance(part, dict):
            yield place, part


def _usage(stated: object) -> TokenUsage | None:
    """Return the usage, None where nothing is counted."""
    if not isinstance(stated, dict):
        return None
    inputs, outputs = count_of(table_of(stated).get("input_tokens")), count_of(table_of(stated).get("output_tokens"))
    if not inputs and not outputs:
        return None
    read, written = stated.get("input_tokens_details"), stated.get("output_tokens_details")
    return TokenUsage(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=count_of(table_of(read).get("cached_tokens")),
        cache_write_tokens=count_of(table_of(read).get("cache_write_tokens")),
        reasoning_tokens=count_of(table_of(written).get("reasoning_tokens")),
    )
