"""Pictures: what addresses, bytes and kinds they take."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from wizard_actors.errors import InvalidPromptError
from wizard_actors.types import Image

BYTES = bytes(range(256))
PNG = Image(data=BYTES, media_type="image/png")
WRITTEN = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{WRITTEN}",
        f"DATA:Image/PNG;name=a;BASE64,{WRITTEN}",
        f"data:image/png;base64,{WRITTEN.replace('+', '%2B').replace('/', '%2f').replace('=', '%3D')}",
        "data:image/png;base64," + base64.encodebytes(BYTES).decode(),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in BYTES),
    ],
    ids=["base64", "in capitals", "escaped", "in lines", "not base64"],
)
def test_a_data_url_is_the_picture_that_it_holds(url: str) -> None:
    """Whoever sends it finds bytes and a kind, however they were written."""
    assert Image(url=url) == PNG
    assert Image(url=url).url is None


def test_a_kind_beside_a_data_url_counts() -> None:
    """Some are without one, or have the wrong one."""
    assert Image("data:;base64,AP8=", media_type="image/png") == Image(data=b"\x00\xff", media_type="image/png")
    assert Image("data:text/plain;base64,AP8=", media_type="image/png").media_type == "image/png"


@pytest.mark.parametrize("url", ["https://x.test/a.png?b=c", "HTTP://x.test", "gs://bucket/a.png"])
def test_an_address_that_a_provider_can_fetch_is_kept(url: str) -> None:
    """As it was written."""
    assert Image(url).url == url


def test_kinds_are_written_as_providers_know_them() -> None:
    """Whatever their case; and image/jpg, a name that many use, is image/jpeg."""
    assert Image(data=b"x", media_type=" Image/PNG").media_type == "image/png"
    assert Image(data=b"x", media_type="image/jpg").media_type == "image/jpeg"
    assert Image("data:image/jpg;base64,AP8=").media_type == "image/jpeg"
    assert Image("gs://bucket/a", media_type="image/svg+xml").media_type == "image/svg+xml"


def test_bytes_of_any_kind_are_bytes() -> None:
    """What reads files may return either."""
    assert Image(data=bytearray(BYTES), media_type="image/png") == PNG
    assert Image(data=memoryview(BYTES), media_type="image/png") == PNG


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Image, "either a url or data"),
        (lambda: Image(url="https://host/x.png", data=b"x", media_type="image/png"), "either a url or data"),
        (lambda: Image(data=b"x"), "needs its media_type, such as 'image/png'"),
        (lambda: Image("cat.png"), r"begins with https://, .* 'cat.png'; of a file take the bytes: Image\(data="),
        (lambda: Image("file:///tmp/cat.png"), "begins with https://"),
        (lambda: Image("ftp://x.test/cat.png"), "begins with https://"),
        (lambda: Image("https://"), "begins with https://"),
        (lambda: Image(""), "begins with https://"),
        (lambda: Image("https://x.test/\ud83d"), "the url of an Image is not valid Unicode"),
        (lambda: Image(5), "`Image.url` is a text or None, not 5"),  # type: ignore[arg-type]
        (lambda: Image("data:image/png;base64"), "needs a comma before its data"),
        (lambda: Image("data:image/png;base64,A?"), "is not valid base64"),
        (lambda: Image("data:image/png;base64,AAA"), "is not valid base64: Incorrect padding"),
        (lambda: Image("data:image/png;base64,"), "the data of an Image are empty"),
        (lambda: Image("data:image/png,\ud83d"), "is not valid Unicode"),
        (lambda: Image("data:application/pdf;base64,AP8="), "the media_type of an Image is 'image/png', .*/pdf'"),
        (lambda: Image("data:;base64,AP8="), "the media_type of an Image is 'image/png'"),
        (lambda: Image(data=b"", media_type="image/png"), "the data of an Image are empty"),
        (lambda: Image(data="AP8=", media_type="image/png"), "the data of an Image are its bytes, .* base64"),  # type: ignore[arg-type]
        (lambda: Image(data=b"x", media_type="PNG"), "the media_type of an Image is 'image/png', .*, not 'PNG'"),
        (lambda: Image(data=b"x", media_type="image/"), "the media_type of an Image is 'image/png'"),
        (lambda: Image(data=b"x", media_type=5), "the media_type of an Image is 'image/png', .*, not 5"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_picture_is_refused_at_once(make: Callable[[], object], reason: str) -> None:
    """`InvalidPromptError` where the mistake is made, and in words that say what to do."""
    with pytest.raises(InvalidPromptError, match=reason):
        make()


def test_a_long_address_does_not_fill_an_error() -> None:
    """Nor does a picture that somebody took for one."""
    with pytest.raises(InvalidPromptError) as caught:
        Image(WRITTEN * 1000)
    assert len(str(caught.value)) < 300
