"""From a provider's refusal to our error: by its code, then by what its message says, then by the HTTP status. Pure.

Providers that speak OpenAI's protocol share the codes; their error bodies have a dozen shapes, see `error_body`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec
from attrs import field, frozen

from wizard_actors.errors import (
    AuthError,
    ContentFilterError,
    ModelNotFoundError,
    OverloadedError,
    ParseError,
    ProviderError,
    QuotaExhaustedError,
    RateLimitError,
    RequestError,
    TokenLimitError,
    WizardError,
)
from wizard_actors.providers.headers import parse_duration
from wizard_actors.retry import LONGEST_RETRY_AFTER, parse_retry_delay

__all__ = ["ErrorBody", "Head", "error_body", "excerpt", "page", "refusal", "refuses_stream"]

LONGEST_MESSAGE: Final = 400
"""Characters of a provider's own text that an error repeats at most."""

SHORTEST_SECRET: Final = 4
"""Characters: masking anything shorter would only garble the text."""


@frozen
class Head:
    """What is known of a response before its body.

    `model` is the configured name; `request_id` the provider's own id; `retry_after` in seconds, where the headers say
    so; `location` where a redirect leads; `secrets` what no error may repeat, even where the provider echoes it.
    """

    model: str
    status: int = 200
    request_id: str | None = None
    retry_after: float | None = None
    location: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def parse_error(self, what: str) -> ParseError:
        """Return the error for a body that cannot be understood: "<model>: its answer <what>"."""
        return ParseError(
            f"{self.model}: its answer {what}", model=self.model, status=self.status, request_id=self.request_id
        )


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


def excerpt(text: str | bytes, secrets: Iterable[str] = ()) -> str:
    """Return the beginning of a provider's text, fit for an error: one line, no control characters, no secrets."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    for secret in secrets:  # before any cut, which could leave half of one
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = text[: 8 * LONGEST_MESSAGE]
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 3] + "..."


# -- reading the body --------------------------------------------------------------------------------


def error_body(body: object) -> ErrorBody:
    """Return what a decoded error body says, whatever its shape.

    Seen in the wild: `{"error": {...}}` (OpenAI; a number as `code` from OpenRouter, counts from llama.cpp), the same
    in a list of one, with `details` (Google), `{"error": "text", "code": ...}` (xAI, Ollama), `{"detail": "text"}` and
    `{"detail": [{loc, msg}]}` (FastAPI, Mistral), the fields at the top (`{"object": "error", "message": ...}`, vLLM,
    Mistral) and `{"errors": [...]}` (Cloudflare). Anything else has no message and no codes.
    """
    while isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, str):
        return ErrorBody(message=body)
    if not isinstance(body, dict):
        return ErrorBody()
    inner = body.get("error") or body.get("errors") or body.get("detail")
    params = [_param(each) for each in inner if isinstance(each, dict)] if isinstance(inner, list) else []
    while isinstance(inner, list) and inner:
        inner = inner[0]
    fields = {**body, **inner} if isinstance(inner, dict) else body
    return ErrorBody(
        message=_message(fields, inner),
        codes=tuple(_codes(fields)),
        param=" ".join(params) or _param(fields),
        status=_http_status(fields.get("code"), fields.get("status"), fields.get("status_code")),
        requested=_count(fields.get("n_prompt_tokens")),
        max=_count(fields.get("n_ctx")),
        retry_after=_retry_delay(fields),
    )


def page(body: bytes) -> ErrorBody:
    """Return what an error body says that is no JSON: a proxy's page by its title, any other text as it is."""
    title = re.search(rb"<title[^>]{0,200}>(.{1,200}?)</title>", body, re.IGNORECASE | re.DOTALL)
    return ErrorBody(message=(title[1] if title else body).decode(errors="replace"))


def _message(fields: Mapping[str, object], inner: object) -> str:
    for value in (fields.get("message"), fields.get("msg"), inner, fields.get("detail"), fields.get("title")):
        if isinstance(value, str) and value:
            return value
    nested = fields.get("message")  # Mistral puts FastAPI's list below `message`
    return msgspec.json.encode(nested).decode() if isinstance(nested, (dict, list)) else ""


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


# -- what it refuses ---------------------------------------------------------------------------------

REFUSES_STREAM: Final = re.compile(
    r"\bstream(?:ing)?\b.*(?:unsupported|support|unknown|unrecogni[sz]ed|allowed|permitted|forbidden|disabled|available)"
    r"|(?:unsupported|support|unknown|unrecogni[sz]ed|allowed|permitted|extra|invalid).*\bstream(?:ing)?\b",
    re.IGNORECASE | re.DOTALL,
)
"""A message that refuses streams; one that merely speaks of a stream ("unexpected end of stream") does not."""


def refuses_stream(refused: ErrorBody) -> bool:
    """Say whether a refusal is one of streams, rather than of anything else in the request."""
    return refused.param == "stream" or REFUSES_STREAM.search(refused.message) is not None


# -- judging it --------------------------------------------------------------------------------------

Kind: TypeAlias = "type[ProviderError | TokenLimitError]"

CODES: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        TokenLimitError: """context_length_exceeded context_window_exceeded exceed_context_size_error prompt_too_long
            input_too_long tokens_limit_reached""",
        QuotaExhaustedError: """insufficient_quota insufficient_balance insufficient_credits insufficient_funds
            quota_exhausted billing_hard_limit_reached billing_not_active billing_error payment_required""",
        AuthError: """invalid_api_key incorrect_api_key authentication_error invalid_authentication unauthorized
            unauthenticated account_deactivated permission_error permission_denied api_key_invalid""",
        ModelNotFoundError: """model_not_found model_not_available model_not_exist model_decommissioned invalid_model
            unknown_model deploymentnotfound""",
        ContentFilterError: """content_filter content_policy_violation responsibleaipolicyviolation invalid_prompt
            data_inspection_failed content_moderation moderation_blocked""",
        RateLimitError: """rate_limit_exceeded rate_limit_error rate_limited too_many_requests resource_exhausted
            throttling_error throttled""",
        OverloadedError: """overloaded overloaded_error server_overloaded engine_overloaded model_overloaded
            service_unavailable unavailable""",
    }
)
"""Codes that mean one thing whoever sends them, and whatever the status beside them says."""

KINDS_BY_CODE: Final[Mapping[str, Kind]] = MappingProxyType(
    {code: kind for kind, codes in CODES.items() for code in codes.split()}
)

KINDS_BY_STATUS: Final[Mapping[int, Kind]] = MappingProxyType(
    {
        401: AuthError,
        402: QuotaExhaustedError,
        403: AuthError,
        408: ProviderError,
        409: ProviderError,
        413: TokenLimitError,
        429: RateLimitError,
        503: OverloadedError,
        529: OverloadedError,
    }
)

REFUSED_CODES: Final = frozenset({"invalid_request_error", "invalid_request", "bad_request", "not_found_error"})
"""Codes too general to overrule a status; where an error comes inside a 200 they are all there is."""

TOO_LONG: Final = re.compile(
    r"(?:maximum|max|available) (?:context|prompt) (?:length|size|window)"
    r"|exceeds? the (?:\w+ )?context (?:length|size|window)|(?:prompt|input) (?:is )?too long"
    r"|exceeds the maximum number of tokens|too many tokens|request too large for|`inputs` tokens"
    r"|exceed context limit",
    re.IGNORECASE,
)
MAX_LENGTH: Final = r"maximum (?:context|prompt) length (?:is|of) (?P<max>[\d,]+)"
TOKEN_COUNTS: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"(?P<requested>[\d,]+) tokens > (?P<max>[\d,]+)",
        r"token count \((?P<requested>[\d,]+)\).{0,100}?\((?P<max>[\d,]+)\)",
        r"contains (?P<requested>[\d,]+) tokens.{0,100}?with (?P<max>[\d,]+)",
        r"limit (?P<max>[\d,]+), requested (?P<requested>[\d,]+)",
        r"must be <= (?P<max>[\d,]+)\. given: (?P<requested>[\d,]+)",
        r"exceed context limit: [\d,]+ \+ [\d,]+ > (?P<max>[\d,]+)(?P<requested>)",
        r"cannot exceed (?P<max>[\d,]+).{0,60}?received (?P<requested>[\d,]+)",
        rf"{MAX_LENGTH}.{{0,100}}?(?:resulted in|requested|contains|used|have)(?: about)? (?P<requested>[\d,]+)",
        rf"{MAX_LENGTH}(?P<requested>)",
    )
)
NO_CREDIT: Final = re.compile(
    r"insufficient (?:account )?(?:balance|credit|fund|quota)|exceeded your current quota|credit balance"
    r"|(?:have|has|no|any|of) credits",
    re.IGNORECASE,
)
NO_QUOTA: Final = re.compile(r"\blimit: 0(?![\d.,]*\d)")
"""Google's word for a model that an account may not use at all, beside the code of a limit that passes."""

NO_CREDIT_HERE: Final = re.compile(
    r"credit balance is too low|reached your specified .{0,40}usage limit", re.IGNORECASE
)
"""How Anthropic says it, under a plain 400."""

FILTERED: Final = re.compile(r"blocked by content filtering policy", re.IGNORECASE)
BAD_KEY: Final = re.compile(
    r"(?:incorrect|invalid|missing|no) api.?key|api.?key (?:is )?(?:not valid|invalid|missing)", re.IGNORECASE
)
NO_MODEL: Final = re.compile(
    r"models?\b.{0,120}?(?:does not exist|not found|not exist|decommissioned|is not available)"
    r"|not a valid model|invalid model|unknown model|no such model"
    r"|^model: \S+$",  # Anthropic says no more
    re.IGNORECASE | re.DOTALL,
)
TRY_AGAIN: Final = re.compile(r"(?:try again|retry) (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|s|m|h))+)", re.IGNORECASE)


def refusal(head: Head, body: ErrorBody) -> WizardError:
    """Return the error for a response that refuses: a status of 300 and above, or an error inside a 200.

    The result is a `ProviderError`, or `TokenLimitError` with the counts where they are stated. Its `retry_after` is
    the head's, else the body's; for a rate limit without either, what the message says ("try again in 6ms").
    """
    status = head.status if head.status >= 300 or body.status is None else body.status
    if status < 400 and head.status >= 300:
        return _redirect(head)
    said = excerpt(body.message, head.secrets)
    kind = _kind(status, body, said)
    where = f"HTTP {status}" if head.status >= 300 else "inside its answer"
    text = f"{head.model}: {_MEANING.get(kind, 'the provider failed')} ({where})" + (f": {said}" if said else "")
    if issubclass(kind, TokenLimitError):
        requested, limit = _token_counts(body)
        return kind(text, model=head.model, requested=requested, max=limit)
    retry_after = body.retry_after if head.retry_after is None else head.retry_after
    if kind is RateLimitError and retry_after is None and (stated := TRY_AGAIN.search(said)):
        stated_wait = parse_duration(stated[1])
        retry_after = stated_wait if stated_wait is not None and stated_wait <= LONGEST_RETRY_AFTER else None
    return kind(
        text + (NO_SUCH_PATH if kind is RequestError and status in {404, 405} else _ADVICE.get(kind, "")),
        model=head.model,
        status=status,
        request_id=head.request_id,
        retry_after=retry_after,
    )


def _redirect(head: Head) -> RequestError:
    """A redirect is not followed: it would carry the key to an address that nobody configured."""
    target = excerpt(head.location.partition("?")[0], head.secrets) or "an address that it does not name"
    return RequestError(
        f"{head.model}: the provider redirects (HTTP {head.status}) to {target}; set the model's base_url accordingly",
        model=head.model,
        status=head.status,
        request_id=head.request_id,
    )


NO_SUCH_PATH: Final = " (check base_url: that of OpenAI and its compatibles ends in /v1)"

_MEANING: Final[Mapping[type[WizardError], str]] = MappingProxyType(
    {
        AuthError: "the provider refused the key",
        ContentFilterError: "the provider refuses this content",
        ModelNotFoundError: "the provider does not know the model",
        OverloadedError: "the provider is overloaded",
        QuotaExhaustedError: "the account has no credit left",
        RateLimitError: "the provider's rate limit is reached",
        RequestError: "the provider refused the request",
        TokenLimitError: "the prompt is too long for the model",
    }
)
_ADVICE: Final[Mapping[type[WizardError], str]] = MappingProxyType(
    {
        AuthError: " (check the model's api_key_env or api_key_file)",
        ModelNotFoundError: " (check the model's `model` and base_url)",
    }
)


def _kind(status: int, body: ErrorBody, said: str) -> Kind:
    if status < 500 and status not in {401, 403} and TOO_LONG.search(said):
        return TokenLimitError  # before the codes: a single request over the limit a minute is no matter of waiting
    if "resource_exhausted" in body.codes and NO_QUOTA.search(body.message[: 8 * LONGEST_MESSAGE]):
        return QuotaExhaustedError
    for code in body.codes:
        if code in KINDS_BY_CODE:
            return KINDS_BY_CODE[code]
    return _kind_by_message(status, said) or _kind_by_status(status, body)


def _kind_by_message(status: int, said: str) -> Kind | None:
    if status in {402, 403, 429} and NO_CREDIT.search(said):
        return QuotaExhaustedError
    if status == 400 and NO_CREDIT_HERE.search(said):
        return QuotaExhaustedError
    if status == 400 and FILTERED.search(said):
        return ContentFilterError
    if status == 400 and BAD_KEY.search(said):
        return AuthError  # xAI, Google
    if status in {400, 404, 422} and NO_MODEL.search(said):
        return ModelNotFoundError
    return None


def _kind_by_status(status: int, body: ErrorBody) -> Kind:
    if status in KINDS_BY_STATUS:
        return KINDS_BY_STATUS[status]
    if status < 300:
        return RequestError if REFUSED_CODES.intersection(body.codes) else ProviderError
    return RequestError if status < 500 else ProviderError


def _token_counts(body: ErrorBody) -> tuple[int | None, int | None]:
    """Return the tokens requested and the tokens allowed, None where not stated."""
    if body.requested is not None or body.max is not None:
        return body.requested, body.max
    for pattern in TOKEN_COUNTS:
        found = pattern.search(body.message[: 8 * LONGEST_MESSAGE])
        if found:
            return _as_count(found["requested"]), _as_count(found["max"])
    return None, None


def _as_count(digits: str | None) -> int | None:
    plain = (digits or "").replace(",", "")
    return int(plain) if plain else None
