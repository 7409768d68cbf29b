"""What `docs/http.md` shows happens as it shows it, and its tables leave out no field, status, header or path."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from attrs import fields

from benchmarks.http import started
from tests.test_docs import ROOT, Block, blocks, commands, same
from wizard_actors.config import ServerConfig
from wizard_actors.http_api import anthropic_request, openai_request
from wizard_actors.http_api.openapi import ANSWERED, OWN_HEADERS, STATUSES, document
from wizard_actors.server.http_app import SHOWN

PAGE: Final = ROOT / "docs" / "http.md"
TEXT: Final = PAGE.read_text(encoding="utf-8")
BLOCKS: Final = blocks(PAGE)
[CONFIG] = [block.text for block in BLOCKS if block.language == "toml"]
SHELL: Final = [block for block in BLOCKS if block.language == "console"]
PROGRAMS: Final = [(block, BLOCKS[place + 1].text) for place, block in enumerate(BLOCKS) if block.language == "python"]


async def printed(command: list[str], port: int) -> str:
    """Return what a command prints, with the address of a server that runs."""
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = await trio.run_process(
        [part.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for part in command],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        env=env,
    )
    return done.stdout.decode().replace("\r\n", "\n")


async def test_what_the_page_shows_works() -> None:
    """Each command and each program prints what the page says, on a server with the configuration that it shows."""
    assert SHELL
    assert PROGRAMS
    with trio.fail_after(60):
        async with started(CONFIG.replace(":8000", ":0")) as target:
            for block in SHELL:
                for command in commands(block):
                    said = await printed(["/bin/sh", "-c", command.line], target.process.port)
                    assert same(command.output, said), f"{block.where} prints:\n{said}"
            for block, shown in PROGRAMS:
                await _runs(block, shown, target.process.port)


async def _runs(block: Block, shown: str, port: int) -> None:
    said = await printed([sys.executable, "-c", block.text], port)
    assert same(shown, said), f"{block.where} prints:\n{said}"


# -- tables ------------------------------------------------------------------------------------------


def section(heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    [found] = re.findall(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def column(text: str, head: str, number: int = 0) -> list[str]:
    """Return what a column of the table with this head says."""
    [table] = re.findall(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [row.split(" | ")[number].strip("| ") for row in table.splitlines()]


def named(cells: list[str]) -> set[str]:
    """Return what stands in cells as code."""
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def refused(text: str) -> Mapping[str, str]:
    """Return what is refused, with what is not."""
    names, but_for = column(text, "refused"), column(text, "refused", 1)
    return {name.strip("`"): value.strip("`") for name, value in zip(names, but_for, strict=True)}


@pytest.mark.parametrize(("heading", "module"), [("Chat Completions", openai_request), ("Messages", anthropic_request)])
def test_every_field_is_in_its_table(heading: str, module: Any) -> None:  # noqa: ANN401 - two modules that have the same names
    """Of those that are carried, passed over and refused, with what they may say; and the defaults are named."""
    text = section(heading)
    assert named(column(text, "carried")) == module.CARRIED
    assert named(column(text, "passed over")) == module.IGNORED
    shown = refused(text)
    assert set(shown) == set(module.REFUSED)
    for name, value in shown.items():
        default = module.DEFAULTS.get(name)
        assert value == ("null" if default is None else str(default).lower().replace("'", '"')), name
    for name in {*module.DEFAULTS} - {*module.REFUSED}:
        assert f'`"{name}": ' in text, name


def test_every_block_is_in_its_table() -> None:
    """With its fields."""
    kinds, of_them = column(section("Messages"), "block"), column(section("Messages"), "block", 1)
    for kind, cell in zip(kinds, of_them, strict=True):
        assert named([cell]) - {"base64", "url"} == anthropic_request.BLOCKS[kind.strip("`")], kind
    assert named(kinds) == set(anthropic_request.BLOCKS)
    for name in {*anthropic_request.BLOCK_IGNORED, *anthropic_request.TOOL_IGNORED}:
        assert f"`{name}`" in section("Messages")


def test_every_status_is_in_the_table() -> None:
    """And that of a path's other methods, which no operation has."""
    assert set(map(int, column(section("Errors"), "status"))) == {*STATUSES, 405}


def test_every_header_is_in_the_table() -> None:
    """Those that pages may read, and those of failures."""
    told = section("Headers").partition("Of a response")[2]
    shown = named(re.findall(r"^\| (`.*?) \|", told, re.MULTILINE))
    own = {name for headers in OWN_HEADERS.values() for name in headers}
    assert shown == {"x-request-id", "request-id", *ANSWERED, *own}
    assert set(SHOWN) <= shown


def test_every_path_is_in_the_table() -> None:
    """With its method."""
    shown = named(re.findall(r"^\| (`(?:GET|POST) .*?`) \|", section("Paths"), re.MULTILINE))
    paths: Any = document(version="1", keyed=False)["paths"]
    described = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    assert shown == described | {"GET /"}


def test_the_settings_that_are_named_exist() -> None:
    """In the table and elsewhere."""
    table = named(column(section("Connections"), "setting of `[server]`"))
    assert table
    assert table | set(re.findall(r"`server\.(\w+)`", TEXT)) <= {setting.name for setting in fields(ServerConfig)}


def test_a_test_of_its_own_runs_what_is_not_run_with_the_other_pages() -> None:
    """It is named there."""
    reasons = {block.not_run for block in BLOCKS if block.not_run}
    assert all("test_what_the_page_shows_works" in reason for reason in reasons)
    assert "def test_what_the_page_shows_works" in Path(__file__).read_text(encoding="utf-8")
