"""What a provider's error body says, whatever its shape: message, codes, parameters. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec
from attrs import evolve, frozen

from wizard_actors.retry import parse_retry_delay

__all__ = ["ErrorBody", "error_body", "page"]

_decoder = msgspec.json.Decoder()


@frozen
class ErrorBody:
    """What an error body says: its message, its codes (lower case, words joined by `_`), the parameters it blames.

    `status` is the HTTP status that some state inside the body, `requested` and `max` the tokens that some count,
    `retry_after` the seconds for which Google asks to be left alone.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    param: str = ""
    status: int | None = None
    requested: int | None = None
    max: int | None = None
    retry_after: float | None = None


def error_body(body: object) -> ErrorBody:
    """Return what a decoded error body says, whatever its shape.

    Seen in the wild: `{"error": {...}}` (OpenAI; a number as `code` from OpenRouter, counts from llama.cpp), the same
    in a list of one, with `details` (Google), `{"error": "text", "code": ...}` (xAI, Ollama), `{"detail": "text"}` and
    `{"detail": [{loc, msg}]}` (FastAPI, Mistral), the fields at the top (`{"object": "error", "message": ...}`, vLLM,
    Mistral) and `{"errors": [...]}` (Cloudflare). Anything else has no message and no codes. What OpenRouter repeats of
    another provider's error, as text in `metadata.raw`, comes before its own.
    """
    fields, inner = _fields(body)
    own = _read(fields, inner)
    raw = _raw(fields)
    if raw is None:
        return own
    try:
        repeated = _read(*_fields(_decoder.decode(raw)))
    except (msgspec.DecodeError, ValueError, RecursionError):  # no JSON, but words
        return evolve(own, message=f"{own.message}: {raw}" if own.message else raw)
    return ErrorBody(
        message=repeated.message or own.message,
        codes=(*repeated.codes, *own.codes),
        param=repeated.param or own.param,
        status=repeated.status if own.status is None else own.status,
        requested=repeated.requested,
        max=repeated.max,
        retry_after=own.retry_after if repeated.retry_after is None else repeated.retry_after,
    )


def _raw(fields: Mapping[str, object]) -> str | None:
    metadata = fields.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return raw if isinstance(raw, str) and raw.strip() else None


def _fields(body: object) -> tuple[Mapping[str, object], object]:
    """Return an error's fields, and what stands below "error" or its like: a text, a list, more of the fields."""
    body = _first(body)
    if not isinstance(body, dict):
        return {}, body
    inner = body.get("error") or body.get("errors") or body.get("detail")
    first = _first(inner)
    return ({**body, **first} if isinstance(first, dict) else body), inner


def _first(value: object) -> object:
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _read(fields: Mapping[str, object], inner: object) -> ErrorBody:
    params = [_param(each) for each in inner if isinstance(each, dict)] if isinstance(inner, list) else []
    problems = [_located(each) for each in inner if isinstance(each, dict)] if isinstance(inner, list) else []
    return ErrorBody(
        message="; ".join(filter(None, problems)) or _message(fields, _first(inner)),
        codes=tuple(_codes(fields)),
        param=" ".join(params) or _param(fields),
        status=_http_status(fields.get("code"), fields.get("status"), fields.get("status_code")),
        requested=_count(fields.get("n_prompt_tokens")),
        max=_count(fields.get("n_ctx")),
        retry_after=_retry_delay(fields),
    )


def page(body: bytes) -> ErrorBody:
    """Return what an error body says that is no JSON: a proxy's page by its title, any other text as it is."""
    title = re.search(rb"<title[^>]{0,80}>(.{1,200}?)</title>", body, re.IGNORECASE | re.DOTALL)
    return ErrorBody(message=(title[1] if title else body).decode(errors="replace"))


def _message(fields: Mapping[str, object], inner: object) -> str:
    for value in (fields.get("message"), fields.get("msg"), inner, fields.get("detail"), fields.get("title")):
        if isinstance(value, str) and value:
            return value
    nested = fields.get("message")  # Mistral puts FastAPI's list below `message`
    return msgspec.json.encode(nested).decode() if isinstance(nested, (dict, list)) else ""


def _located(problem: Mapping[str, object]) -> str:
    """Return one of FastAPI's problems with its place, nothing for anything else."""
    said, where = problem.get("msg"), _param(problem) if isinstance(problem.get("loc"), list) else ""
    return f"{said} ({where})" if isinstance(said, str) and said and where else ""


def _codes(fields: Mapping[str, object]) -> Iterable[str]:
    """Yield what may be a code, the most specific first."""
    below = fields.get("innererror")  # Azure
    inner_code = below.get("code") if isinstance(below, dict) else None
    reasons = (detail.get("reason") for detail in _details(fields))
    for value in (inner_code, *reasons, *(fields.get(name) for name in ("code", "type", "status", "error_type"))):
        if isinstance(value, str) and value:
            yield value.strip().lower().replace(" ", "_").replace("-", "_")
    metadata = fields.get("metadata")
    if isinstance(metadata, dict) and ("flagged_input" in metadata or "reasons" in metadata):
        yield "content_filter"  # how OpenRouter's moderation shows itself, under a bare 403


def _details(fields: Mapping[str, object]) -> Iterable[Mapping[str, object]]:
    """Yield what Google tells of an error beside its message: an `ErrorInfo` has a reason, a `RetryInfo` a delay."""
    details = fields.get("details")
    return (detail for detail in (details if isinstance(details, list) else ()) if isinstance(detail, dict))


def _retry_delay(fields: Mapping[str, object]) -> float | None:
    stated = (detail.get("retryDelay") for detail in _details(fields))
    return next((parse_retry_delay(delay) for delay in stated if isinstance(delay, str)), None)


def _param(fields: Mapping[str, object]) -> str:
    param, loc = fields.get("param"), fields.get("loc")
    if isinstance(param, str):
        return param
    return ".".join(str(part) for part in loc if part != "body") if isinstance(loc, list) else ""


def _http_status(*values: object) -> int | None:
    for value in values:
        if isinstance(value, (int, str)) and re.fullmatch("[45][0-9][0-9]", str(value)):
            return int(value)
    return None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
