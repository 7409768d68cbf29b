"""Sessions as texts: how they look, what may be edited, what is read of transcripts, and which line is wrong."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from wizard_actors import session_text
from wizard_actors.errors import SerializationError
from wizard_actors.session_record import SessionRecord, SessionState, TurnRecord
from wizard_actors.session_text import from_json, from_markdown, to_json, to_markdown
from wizard_actors.testing.storage_bench import born, everything, later
from wizard_actors.types import Image, Message, Role, Text

ALICE = evolve(later(born("alice"), "Why?"), system="Be brief.")
WRITTEN = """\
# alice

<!-- wizard session {"schema":1,"id":"alice","created_at":1750000000.25,"version":2,"state":"active",\
"updated_at":1750000001.25} -->

- Created: 2025-06-15 15:06:40 UTC
- Last used: 2025-06-15 15:06:41 UTC
- State: active
- Turns: 1

## System

<!-- wizard system -->

> Be brief.

<!-- wizard turn {"at":1750000001.25,"model":"primary","usage":{"input_tokens":9,"output_tokens":2},"cost":"0.0012"} -->

## User

<!-- wizard message -->

> Why?

## Assistant (primary, 2025-06-15 15:06:41 UTC, 0.0012 USD)

<!-- wizard message -->

> Why? Because.
"""
HANDWRITTEN = """\
# talk

Some notes, for people.

## System

Be brief.

## User

Why?

## Assistant

Because:

> of this

### Details

```
## User
```

## User (ann)
And then?
"""


def line_of(text: str, part: str) -> int:
    """Return the number of the first line in which something stands."""
    return next(number for number, line in enumerate(text.split("\n"), 1) if part in line)


# -- JSON


def test_json_is_indented_and_ends_in_a_newline() -> None:
    """It is what is stored, otherwise."""
    written = to_json(ALICE)

    assert written.startswith('{\n  "schema": 1,\n  "id": "alice",\n')
    assert written.endswith("\n}\n")
    assert json.loads(written)["turns"][0]["messages"][0] == {"role": "user", "content": "Why?"}


@pytest.mark.parametrize("record", [ALICE, everything(), born("bob")])
def test_everything_comes_back(record: SessionRecord) -> None:
    """From both forms; under another name where one is given."""
    for write, read in ((to_json, from_json), (to_markdown, from_markdown)):
        assert read(write(record)) == record
        assert read(write(record), session="other") == evolve(record, id="other")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (to_json(ALICE).replace('"version": 2,', '"version": 2'), "line 6: it is no JSON"),
        ('{"id": "a"', "line 1: it is no JSON"),
        ('{"schema": 1, "id": "a", "id": "b"}', "the key 'id' stands twice"),
        ("[" * 100_000, "the text cannot be read: it is no JSON"),
        ("[]", "the text is no session: it has no `id`"),
        ('{"schema": 1}', "the text is no session: it has no `id`"),
        ('{"schema": 1, "id": 5}', "the text is no session: it has no `id`"),
        (to_json(ALICE).replace('"user"', '"wizard"'), r"'alice'.*`turns\[0\]\.messages\[0\]\.role` must be one of"),
        (to_json(ALICE).replace('"schema": 1', '"schema": 9'), "newer version"),
        (to_json(ALICE).replace("0.0012", "1E+9999999"), r"`turns\[0\]`.*cost has at most 30 digits"),
        (
            '{"schema":1,"id":"a","created_at":1,"turns":[{"messages":[],"at":1}]}',
            r"`turns\[0\]`.*at least one message",
        ),
        ('{"messages": [{"role": "user", "content": "Why?"}]}', "it has no `id`.*`wizard sessions export`"),
        ('{\n"id": "\ud800"}', "line 2: it is not valid Unicode"),
    ],
)
def test_damaged_json_is_named(text: str, told: str) -> None:
    """With its line where it is no JSON, with its place where a value is wrong."""
    with pytest.raises(SerializationError, match=told):
        from_json(text)


def test_a_name_that_cannot_be_is_refused() -> None:
    """As everywhere."""
    for read, text in ((from_json, to_json(ALICE)), (from_markdown, WRITTEN), (from_markdown, HANDWRITTEN)):
        with pytest.raises(SerializationError, match="a session's id is a text"):
            read(text, session="a\nb")


def test_what_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB as UTF-8, to the byte."""
    assert session_text.MAX_TEXT == 64 * 2**20
    text = WRITTEN.replace("Why?", "\u00e9" * 10)
    monkeypatch.setattr(session_text, "MAX_TEXT", len(text.encode()))

    assert from_markdown(text).turns[0].messages[0].text == "\u00e9" * 10
    for read in (from_json, from_markdown):
        with pytest.raises(SerializationError, match=r"the text has [\d,]+ bytes or more"):
            read(f"{text} ")


# -- Markdown


def test_the_markdown_of_a_session() -> None:
    """A reader of documents written before depends on each of these comments."""
    assert to_markdown(ALICE) == WRITTEN


def test_what_a_message_says_breaks_nothing() -> None:
    """Headings, code blocks that never end, comments, also ours: none of its lines begins one of the document."""
    hard = "# Title\n## User\n```python\n<!-- wizard message -->\n<!--\n-->\n---"
    written = to_markdown(later(born("alice"), hard))

    headings = [line for line in written.split("\n") if line.startswith("#")]
    assert [heading.split()[1] for heading in headings] == ["alice", "User", "Assistant"]
    assert written.count("\n<!-- ") == 4


def test_what_a_comment_holds_does_not_end_it() -> None:
    """Nor does a name end the line of a heading, or begin markup in it."""
    odd = "--> <b> --!> \u2028 *x* \u202e"
    record = SessionRecord(odd.replace("\u2028", ""), created_at=1, context={odd: odd}, model=odd)
    record = evolve(record, turns=[TurnRecord([Message(Role.USER, "?", name=odd)], at=1.0)])

    lines = to_markdown(record).split("\n")

    assert [line.count("-->") for line in lines if line.startswith("<!--")] == [1, 1, 1]
    assert lines[0] == r"# --\> \<b\> --\!\>  \*x\*  "
    assert from_markdown("\n".join(lines)) == record


def test_edited_text_counts() -> None:
    """In its quote or out of it, some lines or all; what the comments hold stays."""
    text = WRITTEN.replace("> Be brief.", "Be long.\n> Very.").replace(
        "> Why? Because.", ">No.\n>\n> No!\n\nNever.\n\n"
    )

    record = from_markdown(text)

    assert record.system == "Be long.\nVery."
    assert record.turns[0] == evolve(
        ALICE.turns[0], messages=[Message(Role.USER, "Why?"), Message(Role.ASSISTANT, "No.\n\nNo!\n\nNever.")]
    )


def test_edited_text_counts_where_line_ends_were_odd() -> None:
    """The comment holds the text as it was, and counts while nobody has changed what is shown."""
    written = to_markdown(later(born("alice"), "a\r\nb\rc"))

    assert from_markdown(written).turns[0].messages[0].text == "a\r\nb\rc"
    assert from_markdown(written.replace("> b", "> B", 1)).turns[0].messages[0].text == "a\nB\nc"


def test_edited_parts_count() -> None:
    """Their texts may be changed, pictures be taken out, and texts be added."""
    picture = Image(url="https://host/a.png")
    message = Message(Role.USER, [Text("one"), picture, Text("two"), picture])
    written = to_markdown(evolve(born("alice"), turns=[TurnRecord([message], at=1.0)]))
    image = '<!-- wizard image {"url":"https://host/a.png"} -->'

    edited = written.replace("> one", "> ONE").replace(image, "", 1) + "\nthree\n"

    assert from_markdown(edited).messages[0].content == (Text("ONE"), Text("two"), picture, Text("three"))


def test_messages_may_be_added_and_taken_out() -> None:
    """A question behind an answer begins a turn, at the time of the one before; an answer stays in its turn."""
    more = "## User\n\nReally?\n\n## Assistant\n\nYes.\n"

    record = from_markdown(f"{WRITTEN}\n{more}")

    assert record.turns == (
        ALICE.turns[0],
        TurnRecord([Message(Role.USER, "Really?"), Message(Role.ASSISTANT, "Yes.")], at=ALICE.turns[0].at),
    )
    cut = WRITTEN[: WRITTEN.index("## Assistant")]
    assert from_markdown(cut).turns == (evolve(ALICE.turns[0], messages=[Message(Role.USER, "Why?")]),)
    assert from_markdown(WRITTEN[: WRITTEN.index("## User")]).turns == ()


@pytest.mark.parametrize("change", [str, lambda text: text.replace("\n", "\r\n"), lambda text: f"\ufeff{text}"])
def test_a_transcript_is_read(change: object) -> None:
    """One that a person wrote, without comments: a turn for each question."""
    assert callable(change)
    record = from_markdown(change(HANDWRITTEN))

    answer = "Because:\n\n> of this\n\n### Details\n\n```\n## User\n```"
    assert record == SessionRecord(
        "talk",
        created_at=0.0,
        state=SessionState.ACTIVE,
        system="Be brief.",
        turns=[
            TurnRecord([Message(Role.USER, "Why?"), Message(Role.ASSISTANT, answer)], at=0.0),
            TurnRecord([Message(Role.USER, "And then?")], at=0.0),
        ],
    )


def test_a_transcript_may_have_headings_of_its_own_level() -> None:
    """The first that says who speaks tells which; a system prompt further down is a message."""
    text = "#### user:\nWhy?\n## Assistant\n#### ASSISTANT ####\nSo.\n#### System\nIn French.\n#### User\nWhy?"

    record = from_markdown(text, session="talk")

    assert [message.text for message in record.messages] == ["Why?\n## Assistant", "So.", "In French.", "Why?"]
    assert [len(turn.messages) for turn in record.turns] == [2, 2]
    assert record.system is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the text is no session: it has no heading"),
        ("# Title\n\nWords.\n## Users\n## User and me\n", "the text is no session: it has no heading"),
        ('<!-- wizard turn {"at":1} -->\n# a\n', "the text is no session: it has no heading"),
        ("## User\n\nWhy?\n", "the text names no session: give it a name .--as NAME., or a title"),
        ("# a\n## Tool\n\nfound\n", "line 2: .*a tool message needs the tool_call_id"),
        (
            "# a\n## User\n```\ncode\n\n## Assistant\nSo.\n",
            "line 3: the code block that begins here never ends; line 6",
        ),
        ("# a\n## User\n\ud800", "line 3: it is not valid Unicode"),
    ],
)
def test_what_is_no_transcript_is_named(text: str, told: str) -> None:
    """With what is missing, or the line."""
    with pytest.raises(SerializationError, match=told):
        from_markdown(text)


@pytest.mark.parametrize(
    ("before", "after", "line", "told"),
    [
        ('"schema":1', '"schema":9', "wizard session", "newer version"),
        ('"id":"alice",', "", "wizard session", "the session has no `id`"),
        ('"version":2', '"version":"2"', "wizard session", "`version` must be a whole number"),
        ('"version":2', '"version":2,"version":3', "wizard session", "the key 'version' stands twice"),
        ('"at":1750000001.25,', "", "wizard turn", "`at` is missing"),
        ('"cost":"0.0012"', '"cost":0.0012', "wizard turn", "`cost` must be a text"),
        ('"cost":"0.0012"', '"cost":"1E+9999999"', "wizard turn", "at most 30 digits"),
        ('"cost":"0.0012"}', '"cost":"0.0012"', "wizard turn", "what the comment holds cannot be read: it is no JSON"),
        ("wizard turn {", "wizard turn [{", "wizard turn", "what the comment holds cannot be read: it is no JSON"),
        ("wizard turn", "wizard round", "wizard round", "there is no comment of the kind 'round'"),
        ("<!-- wizard system -->", "<!-- wizard system", "wizard system", "does not end in its line"),
        ("<!-- wizard system -->", "<!-- wizard system [] -->", "wizard system", "is no JSON object"),
        ("<!-- wizard system -->", '<!-- wizard system {"x":1} -->', "wizard system", "unknown keys: 'x'"),
        ("## System", "## User", "wizard system", "one system prompt, under a heading that says `System`"),
        ("## System", "", "wizard system", "no heading such as `## User` stands before"),
        ("## User", "<!-- wizard image {} -->", "wizard image", "and no message stands before it"),
        ("## User\n\n<!-- wizard message -->", "<!-- wizard message -->", "wizard message", "no heading such as"),
        ("<!-- wizard message -->", '<!-- wizard message {"x":1} -->', "wizard message", "unknown keys: 'x'"),
        ("- Created", "<!-- wizard session {} -->\n- Created", "session {}", "the session's comment stands behind"),
    ],
)
def test_damaged_markdown_is_named_with_its_line(before: str, after: str, line: str, told: str) -> None:
    """And with what is wrong there."""
    text = WRITTEN.replace(before, after, 1)

    with pytest.raises(SerializationError, match=f"line {line_of(text, line)}: .*{told}"):
        from_markdown(text)


def test_a_comment_in_a_code_block_is_damage() -> None:
    """Somebody's block in a message swallows what follows: the message says where it begins."""
    text = WRITTEN.replace("> Why?\n", "```\n")

    with pytest.raises(SerializationError, match=f"in the code block that begins at line {line_of(text, '```')}"):
        from_markdown(text)


@pytest.mark.parametrize("again", ["session", "system"])
def test_what_stands_twice_is_damage(again: str) -> None:
    """A session has one beginning, and one system prompt."""
    start = WRITTEN.index(f"<!-- wizard {again}")
    comment = WRITTEN[start : WRITTEN.index("-->", start) + 3]

    with pytest.raises(SerializationError, match="line 31: "):
        from_markdown(f"{WRITTEN}\n## System\n{comment}\n")


def test_an_error_repeats_nothing_that_was_said() -> None:
    """What people and models say does not get into messages."""
    text = WRITTEN.replace("## User\n", "## Tool\n").replace("> Why?", "> c4n4ry")

    with pytest.raises(SerializationError, match="line 20: ") as raised:
        from_markdown(text)

    assert "c4n4ry" not in str(raised.value)
