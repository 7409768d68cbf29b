"""From error bodies of every shape to our errors: by code, then by message, then by status."""

import json

import pytest

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
from wizard_actors.providers.refusals import Advice, ErrorBody, Head, error_body, excerpt, page, refusal


def refused(status: int, body: object, **head: object) -> WizardError:
    """Return the error for a status and a decoded body."""
    return refusal(Head("primary", status, **head), error_body(body))  # type: ignore[arg-type]  # fields by name


def openai(message: str = "", code: object = None, kind: str | None = None, param: str | None = None) -> object:
    """Return an error body as OpenAI sends it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# -- shapes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        openai("no such thing", "model_not_found", "invalid_request_error"),
        [openai("no such thing", "model_not_found")],
        {"error": "no such thing", "code": "model_not_found"},
        {"object": "error", "message": "no such thing", "type": "model_not_found", "code": 404},
        {"message": "no such thing", "code": "Model-Not-Found"},
        {"errors": [{"message": "no such thing", "code": "model_not_found"}]},
        {"error": {"message": "no such thing", "innererror": {"code": "model_not_found"}}},
    ],
)
def test_every_shape_is_read(body: object) -> None:
    """The message and the code are found wherever they stand."""
    error = refused(404, body)
    assert type(error) is ModelNotFoundError
    assert "no such thing" in str(error)


def test_what_fastapi_finds_wrong_is_read() -> None:
    """Its list of problems names the field; Mistral puts the list below another name."""
    detail = [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]
    found = error_body({"detail": [*detail, {"loc": ["body", "seed"], "msg": "No"}, "odd"]})
    assert found.message == "Extra inputs are not permitted (stream_options); No (seed)"
    assert found.param == "stream_options seed"
    assert error_body({"detail": [{"loc": ["body"], "msg": "Empty"}]}).message == "Empty"
    assert error_body({"detail": "Not authenticated"}).message == "Not authenticated"
    assert "stream_options" in error_body({"object": "error", "message": {"detail": detail}}).message


@pytest.mark.parametrize("body", [None, 3, [], {}, {"error": None}, {"error": []}, {"error": 5}, [[[]]], "text"])
def test_a_body_that_says_nothing_leaves_it_to_the_status(body: object) -> None:
    """Whatever JSON it is."""
    assert type(refused(429, body)) is RateLimitError
    assert type(refused(418, body)) is RequestError


@pytest.mark.parametrize("body", [[], {}, None, 3, {"error": {}}])
def test_a_200_that_says_nothing_cannot_be_understood(body: object) -> None:
    """It is no failure that the provider tells of."""
    error = refused(200, body)
    assert type(error) is ParseError
    assert "neither an answer nor an error" in str(error)


# -- judging -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestError),
        (401, AuthError),
        (402, QuotaExhaustedError),
        (403, AuthError),
        (404, RequestError),
        (405, RequestError),
        (408, ProviderError),
        (409, ProviderError),
        (413, TokenLimitError),
        (422, RequestError),
        (429, RateLimitError),
        (500, ProviderError),
        (502, ProviderError),
        (503, OverloadedError),
        (504, ProviderError),
        (520, ProviderError),
        (529, OverloadedError),
    ],
)
def test_without_a_code_the_status_decides(status: int, kind: type[WizardError]) -> None:
    """And the error names the model, and the status."""
    error = refused(status, openai("something"))
    assert type(error) is kind
    assert str(error).startswith("primary: ")
    assert f"HTTP {status}" in str(error)
    if isinstance(error, ProviderError):
        assert (error.model, error.status) == ("primary", status)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, openai("x", "invalid_api_key", "invalid_request_error"), AuthError),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa"}, AuthError),
        (400, [openai("API key not valid. Please pass a valid API key.", 400)], AuthError),
        (404, openai("The model `x` does not exist", None, "invalid_request_error", "model"), ModelNotFoundError),
        (404, openai('model "x" not found, try pulling it first', None, "api_error"), ModelNotFoundError),
        (400, openai("The model `x` has been decommissioned", "model_decommissioned"), ModelNotFoundError),
        (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model"}, ModelNotFoundError),
        (400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}, ModelNotFoundError),
        (404, openai("Unknown request URL", None, "invalid_request_error"), RequestError),
        (400, openai("model x does not support tools"), RequestError),
        (429, openai("Rate limit reached", "rate_limit_exceeded", "requests"), RateLimitError),
        (
            429,
            openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
            QuotaExhaustedError,
        ),
        (429, openai("Insufficient balance or no resource package", "1113"), QuotaExhaustedError),
        (403, {"code": "x", "error": "Your newly created team doesn't have any credits yet."}, QuotaExhaustedError),
        (402, {"error": {"message": "Insufficient credits", "code": 402}}, QuotaExhaustedError),
        (400, openai("filtered", "content_filter"), ContentFilterError),
        (400, openai("x", "invalid_prompt", "invalid_request_error"), ContentFilterError),
        (400, {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, ContentFilterError),
        (403, {"error": {"message": "flagged", "code": 403, "metadata": {"reasons": ["x"]}}}, ContentFilterError),
        (500, openai("busy", "overloaded_error"), OverloadedError),
        (429, openai("busy", None, "engine_overloaded"), OverloadedError),
        (500, openai("x", None, "server_error"), ProviderError),
        (400, openai("x", None, "server_error"), RequestError),
        (424, openai("x"), RequestError),
    ],
)
def test_codes_and_messages_come_before_the_status(status: int, body: object, kind: type[WizardError]) -> None:
    """What providers send under statuses that say something else, or too little."""
    assert type(refused(status, body)) is kind


@pytest.mark.parametrize(
    ("status", "message", "requested", "most"),
    [
        (
            400,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 10,000 tokens.",
            10_000,
            8192,
        ),
        (
            400,
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the",
            5000,
            4096,
        ),
        (400, "This endpoint's maximum context length is 4096 tokens. However, you requested about 5001", 5001, 4096),
        (400, "This model's maximum prompt length is 131072 but the request contains 200000 tokens.", 200_000, 131_072),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", 210_000, 200_000),
        (400, "The input token count (1500) exceeds the maximum number of tokens allowed (1000).", 1500, 1000),
        (
            400,
            "Prompt contains 65673 tokens and is too large for model with 32768 maximum context length",
            65_673,
            32_768,
        ),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1500 `inputs` tokens and 1000", 1500, 2048),
        (413, "Request too large for model x on tokens per minute (TPM): Limit 6000, Requested 9000", 9000, 6000),
        (429, "Request too large for gpt-4 on tokens per min (TPM): Limit 10000, Requested 15000.", 15_000, 10_000),
        (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000", 5000, 4081),
        (400, "Your input exceeds the context window of this model", None, None),
        (400, "prompt too long; exceeded max context length by 12 tokens", None, None),
        (400, "Input is too long for requested model.", None, None),
        (400, "This model's maximum context length is 4096 tokens.", None, 4096),
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_what_is_said(
    status: int, message: str, requested: int | None, most: int | None
) -> None:
    """With the counts where they are stated, whatever the code and the status say."""
    error = refused(status, openai(message, "rate_limit_exceeded", "tokens"))
    assert isinstance(error, TokenLimitError)
    assert (error.model, error.requested, error.max) == ("primary", requested, most)


def test_counts_in_the_body_are_taken() -> None:
    """llama.cpp states them as fields."""
    fields = {"type": "exceed_context_size_error", "message": "too much", "n_prompt_tokens": 300, "n_ctx": 256}
    error = refused(400, {"error": {"code": 400, **fields}})
    assert isinstance(error, TokenLimitError)
    assert (error.requested, error.max) == (300, 256)


def test_a_completion_limit_is_no_context_limit() -> None:
    """Another model with a larger window would not help."""
    message = "max_tokens is too large: 100000. This model supports at most 4096 completion tokens"
    assert type(refused(400, openai(message, "invalid_value"))) is RequestError


def test_a_status_inside_a_200_counts() -> None:
    """An error inside an answer may bring its own status, as a number or digits; without one it is transient."""
    assert type(refused(200, openai("slow", 429))) is RateLimitError
    assert type(refused(200, openai("slow", "503"))) is OverloadedError
    assert type(refused(200, openai("x", None, "invalid_request_error"))) is RequestError
    assert type(refused(200, openai("x", None, "server_error"))) is ProviderError
    error = refused(200, openai("bad gateway", 502))
    assert isinstance(error, ProviderError)
    assert error.status == 502
    assert "inside its answer" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (429, "rate_limit_exceeded", "Too many tokens per day, please wait before trying again.", RateLimitError),
        (429, None, "Too many tokens, please wait before trying again.", RateLimitError),
        (200, "rate_limit_exceeded", "Too many tokens per minute", RateLimitError),
        (429, None, "Request too large for x: Limit 6000, Requested 500, used 5600", RateLimitError),
        (429, "context_length_exceeded", "too much", TokenLimitError),
        (429, None, "This model's maximum context length is 8192 tokens. You requested 9000 tokens", TokenLimitError),
        (200, "rate_limit_exceeded", "Request too large for x: Limit 6000, Requested 9000", TokenLimitError),
        (200, None, "Input is too long for requested model.", TokenLimitError),
        (400, "invalid_api_key", "prompt is too long", AuthError),
        (400, "content_filter", "prompt is too long", ContentFilterError),
        (401, None, "too many tokens for this key", AuthError),
        (403, None, "Your prompt is too long for this plan", AuthError),
        (500, None, "prompt is too long: 3 tokens > 2", ProviderError),
    ],
)
def test_a_limit_that_passes_is_told_from_a_prompt_that_never_fits(
    status: int, code: str | None, message: str, kind: type[WizardError]
) -> None:
    """Codes come first; of a rate limit only a single request that asks for more than the limit is too long."""
    assert type(refused(status, openai(message, code))) is kind


@pytest.mark.parametrize("code", ["tool_use_failed", "json_validate_failed"])
def test_what_the_model_wrote_wrong_is_worth_another_try(code: str) -> None:
    """The 400 is about the answer, not about the request."""
    error = refused(400, openai("Failed to generate", code, "invalid_request_error"))
    assert type(error) is ParseError
    assert "the model wrote what its provider cannot read" in str(error)


def wrapped(raw: object, **fields: object) -> object:
    """Return an error of another provider as OpenRouter passes it on."""
    metadata = {"raw": raw, "provider_name": "Up"}
    return {"error": {"message": "Provider returned error", "code": 400, "metadata": metadata, **fields}}


def test_what_openrouter_repeats_of_another_error_counts() -> None:
    """Its message, its codes, its counts and its parameter, rather than the words round it."""
    long = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens"
    error = refused(400, wrapped(json.dumps(openai(long, "context_length_exceeded"))))
    assert isinstance(error, TokenLimitError)
    assert (error.requested, error.max) == (9000, 8192)
    assert type(refused(400, wrapped(json.dumps(openai("no", "invalid_api_key"))))) is AuthError

    fields = {"type": "exceed_context_size_error", "message": "too much", "n_prompt_tokens": 300, "n_ctx": 256}
    counted = error_body(wrapped(json.dumps({"error": {"code": 500, **fields}})))
    assert (counted.message, counted.requested, counted.max, counted.status) == ("too much", 300, 256, 400)

    named = error_body(wrapped(json.dumps(openai("Unsupported parameter", "unsupported_parameter", param="seed"))))
    assert (named.message, named.param) == ("Unsupported parameter", "seed")

    delayed = {"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "48s"}]}}
    assert error_body(wrapped(json.dumps(delayed), code=429)).retry_after == 48.0


@pytest.mark.parametrize("raw", ["upstream is busy", "{bro", '"busy"', "5", "[]", "{}", "[" * 60_000])
def test_what_openrouter_repeats_may_be_anything(raw: str) -> None:
    """Words are words; what says nothing leaves it to the words round it."""
    error = refused(429, wrapped(raw, code=429))
    assert type(error) is RateLimitError
    assert "busy" not in raw or "busy" in str(error)
    assert raw == '"busy"' or "Provider returned error" in str(error)


@pytest.mark.parametrize("raw", [None, 5, {"message": "x"}, "", " "])
def test_nothing_repeated_is_nothing_more(raw: object) -> None:
    """Then the error is OpenRouter's own."""
    assert error_body(wrapped(raw)).message == "Provider returned error"


# -- what errors say ---------------------------------------------------------------------------------


def test_facts_of_the_head_are_kept() -> None:
    """The provider's id and its Retry-After, whatever the kind."""
    error = refused(500, openai("x"), request_id="req_1", retry_after=3.0)
    assert isinstance(error, ProviderError)
    assert (error.request_id, error.retry_after) == ("req_1", 3.0)


def test_a_rate_limit_without_header_is_taken_from_the_message() -> None:
    """OpenAI says it in words too; the header comes first."""
    body = openai("Rate limit reached. Please try again in 1m2.5s. Visit ...", "rate_limit_exceeded")
    said, stated = refused(429, body), refused(429, body, retry_after=4.0)
    assert isinstance(said, RateLimitError)
    assert isinstance(stated, RateLimitError)
    assert (said.retry_after, stated.retry_after) == (62.5, 4.0)


def test_a_404_without_a_code_points_to_the_address() -> None:
    """The classic mistake is an address that lacks its version."""
    error = refused(404, b'{"detail": "Not Found"}')
    assert isinstance(error, RequestError)
    assert "base_url" in str(error)


def test_a_key_that_was_not_sent_was_not_refused() -> None:
    """Whoever forgot it is told that, and what to do."""
    advice = Advice(key="no key was sent", path="p", keyless=True)
    without, with_one = refused(401, None, advice=advice), refused(401, None)
    assert str(without) == "primary: the provider wants a key (HTTP 401) (no key was sent)"
    assert "refused the key" in str(with_one)
    assert "api_key_env" in str(with_one)


def test_a_proxy_that_wants_a_password_is_told_apart() -> None:
    """It is not the provider's answer."""
    assert "the model's proxy wants a user name" in str(refused(407, None))


def test_a_secret_that_is_a_plain_word_does_not_change_what_is_meant() -> None:
    """It is masked in what is shown, not in what is judged."""
    error = refused(404, openai("The model `x` does not exist"), secrets=("model",))
    assert type(error) is ModelNotFoundError
    assert "The *** `x` does not exist" in str(error)


@pytest.mark.parametrize("text", ["9000h", "9" * 320 + "s"])
def test_a_wait_beyond_a_day_is_no_advice(text: str) -> None:
    """Nobody stays away from a model for a year because a text says so."""
    error = refused(429, openai(f"Please try again in {text}.", "rate_limit_exceeded"))
    assert isinstance(error, RateLimitError)
    assert error.retry_after is None


def test_a_redirect_names_the_setting_to_change() -> None:
    """It is not followed, and its query, where a key might stand, is not shown."""
    error = refused(307, None, location="https://new.example/v1/chat/completions?key=secret-key")
    assert type(error) is RequestError
    assert "https://new.example/v1" in str(error)
    assert "base_url" in str(error)
    assert "secret-key" not in str(error)
    assert "base_url" in str(refused(302, None))


def test_an_excerpt_is_one_short_clean_line() -> None:
    """No line breaks, no escape sequences for the terminal, no secrets, no thousands of characters."""
    assert excerpt("a\n\tb\x1b[31m\u202ec\x00") == "a b [31m c"
    assert excerpt(b"\xff\xfeok") == "\ufffd\ufffdok"
    assert excerpt("key sk-12345 and sk-123456", ("sk-123456", "sk-12345")) == "key *** and ***"
    assert excerpt("abc", ("abc",)) == "abc"
    assert len(excerpt("x" * 10_000)) == 400
    assert len(excerpt("x " * 10_000_00)) <= 400


def test_a_secret_at_the_cut_is_not_shown_in_part() -> None:
    """Masking comes before cutting."""
    key = "sk-" + "k" * 100
    assert "kkk" not in excerpt("x" * 350 + key + "y" * 10_000, (key,))
    assert "kkk" not in excerpt(("x" * 350 + key).encode(), (key,))


def test_a_page_is_known_by_its_title() -> None:
    """A proxy's page says in its title what matters."""
    html = b"<html><head><title>\n  504 Gateway  Time-out </title></head><body>" + b"<p>x</p>" * 1000
    assert excerpt(page(html).message) == "504 Gateway Time-out"
    assert page(b"upstream connect error") == ErrorBody(message="upstream connect error")


def test_a_long_message_makes_a_short_error() -> None:
    """A megabyte of near matches is judged by its beginning."""
    error = refused(400, openai("maximum context length is 1 " + "resulted in " * 100_000))
    assert isinstance(error, TokenLimitError)
    assert len(str(error)) < 600
