"""From a provider's refusal to our error: by its code, then by what its message says, then by the HTTP status. Pure.

Providers that speak OpenAI's protocol share the codes; their error bodies have a dozen shapes, see `error_body`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

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
from wizard_actors.providers.error_body import ErrorBody, error_body, page
from wizard_actors.providers.masking import SEARCHED, excerpt
from wizard_actors.providers.refused_fields import refuses_stream
from wizard_actors.providers.stated import stated_tokens, stated_wait

__all__ = [
    "Advice",
    "ErrorBody",
    "Head",
    "error_body",
    "excerpt",
    "page",
    "refusal",
    "refuses_stream",
]


@frozen
class Advice:
    """What to do about a refusal: of the `key`, or of the `path` that was asked. `keyless`: no key was sent."""

    key: str = "check the model's api_key_env or api_key_file"
    path: str = "check base_url"
    keyless: bool = False


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
    advice: Advice = Advice()

    def parse_error(self, what: str) -> ParseError:
        """Return the error for a body that cannot be understood: "<model>: its answer <what>"."""
        return ParseError(
            f"{self.model}: its answer {what}", model=self.model, status=self.status, request_id=self.request_id
        )


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
        # What the model wrote is no call of a tool, or not the JSON that was asked for (Groq): the next try often is.
        ParseError: "tool_use_failed json_validate_failed",
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


def refusal(head: Head, body: ErrorBody) -> WizardError:
    """Return the error for a response that refuses: a status of 300 and above, or an error inside a 200.

    The result is a `ProviderError`; `TokenLimitError`, with the counts where they are stated; or `ParseError` for what
    says nothing at all inside a 200. Its `retry_after` is the head's, else the body's; for a rate limit without either,
    what the message says ("try again in 6ms").
    """
    status = head.status if head.status >= 300 or body.status is None else body.status
    if status < 400 and head.status >= 300:
        return _redirect(head)
    if head.status < 300 and body == ErrorBody():
        return head.parse_error("cannot be understood: it holds neither an answer nor an error")
    said = excerpt(body.message, head.secrets)
    kind = _kind(status, body, excerpt(body.message))  # unmasked: a secret may be a plain word
    where = f"HTTP {status}" if head.status >= 300 else "inside its answer"
    text = f"{head.model}: {_meaning(kind, head)} ({where})" + (f": {said}" if said else "")
    if issubclass(kind, TokenLimitError):
        requested, limit = _tokens(body)
        return kind(text, model=head.model, requested=requested, max=limit)
    retry_after = body.retry_after if head.retry_after is None else head.retry_after
    if kind is RateLimitError and retry_after is None:
        retry_after = stated_wait(body.message)
    return kind(
        text + _advice(kind, status, head.advice),
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


_MEANING: Final[Mapping[type[WizardError], str]] = MappingProxyType(
    {
        AuthError: "the provider refused the key",
        ContentFilterError: "the provider refuses this content",
        ModelNotFoundError: "the provider does not know the model",
        OverloadedError: "the provider is overloaded",
        ParseError: "the model wrote what its provider cannot read",
        QuotaExhaustedError: "the account has no credit left",
        RateLimitError: "the provider's rate limit is reached",
        RequestError: "the provider refused the request",
        TokenLimitError: "the prompt is too long for the model",
    }
)


def _meaning(kind: Kind, head: Head) -> str:
    if kind is AuthError and head.advice.keyless:
        return "the provider wants a key"
    return _MEANING.get(kind, "the provider failed")


def _advice(kind: Kind, status: int, advice: Advice) -> str:
    if kind is AuthError:
        return f" ({advice.key})"
    if kind is ModelNotFoundError:
        return " (check the model's `model` and base_url)"
    if status == 407:
        return " (the model's proxy wants a user name and a password: put them into its URL)"
    return f" ({advice.path})" if kind is RequestError and status in {404, 405} else ""


def _kind(status: int, body: ErrorBody, said: str) -> Kind:
    kind = next((KINDS_BY_CODE[code] for code in body.codes if code in KINDS_BY_CODE), None)
    if kind in {None, RateLimitError} and _is_too_long(status, body, said, limited=kind is not None):
        return TokenLimitError
    if "resource_exhausted" in body.codes and NO_QUOTA.search(body.message[:SEARCHED]):
        return QuotaExhaustedError
    return kind or _kind_by_message(status, said) or _kind_by_status(status, body)


def _is_too_long(status: int, body: ErrorBody, said: str, *, limited: bool) -> bool:
    """Say whether the message is one of a prompt that never fits. Of a rate limit (`limited`, by its code, or a 429) it
    is only where one request asks for more than the limit: "too many tokens per day" passes, and can be waited for.
    """
    if status >= 500 or status in {401, 403} or not TOO_LONG.search(said):
        return False
    if status != 429 and not (limited and status < 400):
        return True
    requested, limit = _tokens(body)
    return limit is not None and (requested is None or requested > limit)


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


def _tokens(body: ErrorBody) -> tuple[int | None, int | None]:
    """Return the tokens requested and the tokens allowed, None where not stated."""
    if body.requested is not None or body.max is not None:
        return body.requested, body.max
    return stated_tokens(body.message)
