"""Refusals of streams, told apart from messages that merely speak of a stream."""

import pytest

from wizard_actors.providers.refusals import ErrorBody, refuses_stream
from wizard_actors.providers.refused_fields import refuses_stream_beside


@pytest.mark.parametrize(
    "message",
    [
        "Streaming is not supported for this model.",
        "Streaming for up-4.1 is not available yet",
        "Streaming responses are not yet supported",
        "streaming is disabled",
        "This model does not support streaming",
        "The model doesn't support the 'stream' parameter",
        "Unsupported value: 'stream' does not support true with this model. Supported values are: false.",
        "Unrecognized request argument supplied: stream",
        "Unknown parameter: 'stream'.",
        "got an unexpected keyword argument 'stream'",
        "extra fields not permitted: stream",
        "stream: Extra inputs are not permitted",
        "stream=true is not supported",
        "stream must be false",
        "This endpoint only supports non-streaming requests",
        "no streaming",
    ],
)
def test_a_refusal_of_streams_is_known_by_what_is_said(message: str) -> None:
    """The field or the feature is refused, and nothing else is named."""
    assert refuses_stream(ErrorBody(message))
    assert not refuses_stream_beside(ErrorBody(message))


@pytest.mark.parametrize(
    "message",
    [
        "`stream` is not supported with response_format `json_schema`",
        "streaming is not supported when using tools",
        "stream is not supported in beta with n > 1",
        "Streaming is not supported for this request",
        "'stream' is not allowed together with caching",
        "stream is not supported with 'guided_regex'",
    ],
)
def test_streams_may_be_refused_beside_something_else(message: str) -> None:
    """A call that does not ask for the other thing may have one."""
    assert refuses_stream(ErrorBody(message))
    assert refuses_stream_beside(ErrorBody(message))


@pytest.mark.parametrize(
    "message",
    [
        "Invalid image. Please contact support or read a stream of docs",
        "could not decode the image: unexpected end of stream",
        "Error in the input stream: image format not supported",
        "no stream found in the uploaded video",
        "Unknown parameter: stream_options",
        "stream must be true",
        "This model only supports stream mode, please enable the stream parameter",
        "Streaming is required for long operations. Non-streaming is not supported",
        "",
    ],
)
def test_a_word_about_streams_is_no_refusal_of_them(message: str) -> None:
    """The request stays refused."""
    assert not refuses_stream(ErrorBody(message))
    assert not refuses_stream_beside(ErrorBody(message))


def test_the_parameter_says_it_whatever_the_message() -> None:
    """Alone, or among others that are refused too."""
    message = "Your organization must be verified"
    assert refuses_stream(ErrorBody(message, param="stream"))
    assert not refuses_stream_beside(ErrorBody(message, param="stream"))
    assert refuses_stream(ErrorBody("Extra inputs are not permitted", param="max_completion_tokens stream"))
    assert not refuses_stream_beside(ErrorBody("Extra inputs are not permitted", param="seed stream"))
    assert not refuses_stream(ErrorBody(message, param="stream_options"))
