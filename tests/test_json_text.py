"""The one JSON value in what a model wrote."""

import time

import pytest

from wizard_actors.json_text import NoJsonError, json_in

PERSON = '{"name": "Ada", "tags": ["a", "b"]}'
VALUE = {"name": "Ada", "tags": ["a", "b"]}


@pytest.mark.parametrize(
    "text",
    [
        PERSON,
        f"\n  {PERSON}\n",
        f"```json\n{PERSON}\n```",
        f"```\n{PERSON}\n```",
        f"Here it is:\r\n\r\n```json\r\n{PERSON}\r\n```\r\nAnything else?",
        f"First some code:\n```python\nx = {{1}}\n```\nthen the answer:\n```json\n{PERSON}\n```",
        f"```json {PERSON} ```",
        f"Sure! The object is {PERSON}. Anything else?",
        f"As asked [in your message]: {PERSON}",
        f"```json\n{PERSON}",
    ],
)
def test_json_is_found_alone_in_a_fence_and_among_words(text: str) -> None:
    """Fences are taken away, and words around it."""
    assert json_in(text) == VALUE


@pytest.mark.parametrize(("text", "value"), [("3", 3), ('"yes"', "yes"), ("null", None), ("The list: [1, 2].", [1, 2])])
def test_any_json_value_is_one(text: str, value: object) -> None:
    """A number or a text counts where it stands alone, a list among words too."""
    assert json_in(text) == value


@pytest.mark.parametrize(
    "text",
    [
        f"According to [1], {PERSON}",
        f"Answer[1]:\n{PERSON}",
        f"- [ ] to do {PERSON}",
        f"```json\n[1]\n```\n```json\n{PERSON}\n```",
    ],
)
def test_where_an_object_is_wanted_a_citation_is_none(text: str) -> None:
    """Models that search cite in brackets, wherever they write."""
    assert json_in(text, an_object=True) == VALUE


def test_a_text_of_nothing_but_fences_takes_no_time() -> None:
    """What a model writes that has come into a loop; the work is linear in it, and done on the caller's event loop."""
    began = time.process_time()
    for loop in ("```json\n", "```\n", "```json\n{\n", "{", "[", "```json {"):
        with pytest.raises(NoJsonError):
            json_in(loop * 100_000)
    assert time.process_time() - began < 5


def test_a_fence_inside_of_a_text_is_part_of_it() -> None:
    """A text of JSON writes its line breaks as escapes, so a fence in it ends nothing."""
    inner = '{"code": "```py\\nx = 1\\n```"}'

    assert json_in(f"```json\n{inner}\n```") == {"code": "```py\nx = 1\n```"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("I cannot tell.", "is no JSON: "),
        ('{"name": "Ada"', "is no JSON: "),
        ('{"a": 1} or else {"a": 2}', "is no JSON: "),
        ("```json\n1\n```\nor\n```json\n2\n```", "holds 2 blocks of JSON, and one was asked for"),
        ("[" * 100_000, "is no JSON"),
        ("[" * 100_000 + "]" * 100_000, "nests too deeply"),
        ('{"a": NaN}', "is no JSON: "),
        ('"\ud800"', "not valid Unicode"),
    ],
)
def test_what_is_not_one_value_is_refused(text: str, reason: str) -> None:
    """With the reason, and without guessing."""
    with pytest.raises(NoJsonError, match=reason):
        json_in(text)
