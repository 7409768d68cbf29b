"""What messages are made of: texts, pictures, reasoning, calls of tools. All frozen values."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
from attrs import field, frozen

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types.given import check_unicode, instance_of, shown

__all__ = ["Content", "Image", "Signature", "Text", "Thought", "ToolCall"]

a_text: Final = instance_of("a text", str)
a_text_or_none: Final = instance_of("a text or None", str, None)

URL: Final = re.compile(r"(?:https?|gs)://[^\s/]", re.IGNORECASE)
MEDIA_TYPE: Final = re.compile(r"image/[a-z0-9][a-z0-9.+-]*")


@frozen
class Text:
    """A piece of text in a message of several parts. Raises `InvalidPromptError` for what is no text."""

    text: str = field(validator=a_text)


def _as_media_type(value: str | None) -> str | None:
    if value is None:
        return None
    given: object = value
    plain = given.strip().lower() if isinstance(given, str) else ""
    if not MEDIA_TYPE.fullmatch(plain):
        raise InvalidPromptError(f"the media_type of an Image is 'image/png', 'image/jpeg' or so, not {shown(value)}")
    return "image/jpeg" if plain == "image/jpg" else plain  # a name that many use, and some providers refuse


def _as_data(value: bytes | bytearray | memoryview | None) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidPromptError(
            f"the data of an Image are its bytes, not {shown(value)}; base64 text goes into a url, "
            "'data:image/png;base64,...'"
        )
    if not value:
        raise InvalidPromptError("the data of an Image are empty")
    return bytes(value)


@frozen
class Image:
    """A picture: either a `url`, or `data` with its `media_type` ("image/png").

    `url` begins with `https://`, `http://`, or `gs://` (which Gemini alone reads): the provider fetches it. A `data:`
    URL is read at once: the picture has `data` and `media_type` then, and no `url`. `media_type` beside any other url
    is for Gemini; "image/jpg" becomes "image/jpeg".

    Raises `InvalidPromptError` for any other url, a `data:` URL that cannot be read, data that are no bytes or none,
    and a media type that is none of a picture.
    """

    url: str | None = field(default=None, validator=a_text_or_none)
    data: bytes | None = field(default=None, repr=False, converter=_as_data)
    media_type: str | None = field(default=None, converter=_as_media_type)

    def __attrs_post_init__(self) -> None:
        if (self.url is None) == (self.data is None):
            raise InvalidPromptError("an Image takes either a url or data, and just one of them")
        if self.url is not None:
            self._look_at(self.url)
        elif self.media_type is None:
            raise InvalidPromptError("an Image made of data needs its media_type, such as 'image/png'")

    def _look_at(self, url: str) -> None:
        if url[:5].lower() == "data:":
            data, media_type = _read(url)
            object.__setattr__(self, "url", None)
            object.__setattr__(self, "data", _as_data(data))
            object.__setattr__(self, "media_type", self.media_type or _as_media_type(media_type))
        elif not URL.match(url):
            raise InvalidPromptError(
                "the url of an Image begins with https://, http://, data: or gs://, and this one does not: "
                f"{shown(url)}; of a file take the bytes: Image(data=..., media_type='image/png')"
            )
        else:
            check_unicode(url, "the url of an Image")


def _read(url: str) -> tuple[bytes, str]:
    """Return the bytes and the media type of a data: URL, white space in its base64 left out."""
    head, comma, written = url[5:].partition(",")
    if not comma:
        raise InvalidPromptError("the data: URL of an Image needs a comma before its data")
    check_unicode(written, "the data: URL of an Image")
    media_type, *parameters = head.split(";")
    data = unquote_to_bytes(written)
    if "base64" not in {parameter.strip().lower() for parameter in parameters}:
        return data, media_type
    try:
        return base64.b64decode(data.translate(None, b" \t\r\n\f"), validate=True), media_type
    except binascii.Error as error:
        raise InvalidPromptError(f"the data: URL of an Image is not valid base64: {error}") from error


Content: TypeAlias = "str | tuple[Text | Image, ...]"
"""A message's content: plain text, or parts."""


@frozen
class Signature:
    """An opaque proof that a model's provider wants back, unchanged, with what it belongs to.

    `protocol` names the wire protocol it came over ("anthropic", "gemini", "responses", "chat"): to models behind any
    other it means nothing, and is not sent.
    """

    protocol: str = field(validator=a_text)
    value: str = field(repr=False, validator=a_text)


a_signature: Final = instance_of("a Signature or None", Signature, None)


@frozen
class Thought:
    """A piece of a model's reasoning, to be sent back with the rest of its message.

    `redacted`: the provider shows none of it, the `signature` is all there is. `id` is the provider's own.
    """

    text: str = field(default="", validator=a_text)
    signature: Signature | None = field(default=None, validator=a_signature)
    redacted: bool = field(default=False, validator=instance_of("True or False", bool))
    id: str | None = field(default=None, validator=a_text_or_none)


def _as_arguments(value: str | Mapping[str, object]) -> str:
    if not isinstance(value, Mapping):
        return value
    try:
        return msgspec.json.encode(dict(value)).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidPromptError(f"the arguments of a ToolCall cannot be written as JSON: {error}") from error


@frozen
class ToolCall:
    """A model's request to call a tool; `arguments` is JSON text as the model wrote it. A mapping is made such a text.

    Raises `InvalidPromptError` for what is of another type, or cannot be written as JSON.
    """

    id: str = field(validator=a_text)
    name: str = field(validator=a_text)
    arguments: str = field(converter=_as_arguments, validator=instance_of("JSON text, or a mapping", str))
    signature: Signature | None = field(default=None, validator=a_signature)
