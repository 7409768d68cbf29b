"""What `GET /openapi.json` says holds for whatever Schemathesis makes of it: requests that are right, and wrong ones.

`make schemathesis` runs more of them; `make schemathesis CASES=...` as many for each operation as one likes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from benchmarks.http import Target, started
from wizard_actors.server.keys_file import hash_of

CASES = int(os.environ.get("SCHEMATHESIS_CASES", "5"))
"""Requests made at random for each operation, right and wrong ones; beside them each field is tried at its edges."""
SEED = int(os.environ.get("SCHEMATHESIS_SEED", "1"))
PHASES: Final = "examples,coverage,fuzzing"

CONFIG: Final = """
[defaults]
retry = { max_attempts = 1 }
circuit_breaker = { failure_threshold = 1_000_000 }

[[models]]
name = "first"
provider = "simulated"
simulated = { answer = "All is well.", first_token = 0, per_chunk = 0 }

[[models]]
name = "down"
provider = "simulated"
simulated = { first_token = 0, script = [{ fault = "error", times = 100_000 }] }

[fallback]
chain = ["first"]

[[routes]]
name = "broken"
chain = ["down"]

[sessions]
storage = "memory:"

[logging]
level = "ERROR"

[server]
http = "127.0.0.1:0"
"""

WELL: Final = ("first", "wizard")
"""What may be asked and has to be answered."""

SETTINGS: Final = """
[checks]
# 504: a deadline may be as short as one likes.
not_a_server_error.expected-statuses = [{statuses}, "3xx", "4xx"]
# 400: only the whole of a request tells of a result of a tool without its call, or a prompt in which nobody says
# anything; its schema takes them.
positive_data_acceptance.expected-statuses = [{statuses}, "400"]
"""
WORKS: Final = SETTINGS.format(statuses='"2xx", "504"')
FAILS: Final = SETTINGS.format(statuses='"502", "504"')
"""The model that is asked fails each time: that is the answer."""


async def document_of(target: Target, names: Sequence[str]) -> dict[str, Any]:
    """Return what a server says of itself; what is asked has one of these names, where a name of one is asked for."""
    wire = await target.connect()
    document: dict[str, Any] = (await wire.ask("GET", "/openapi.json")).json
    await trio.aclose_forcefully(wire.stream)
    for each in ("ChatRequest", "MessageRequest"):
        document["components"]["schemas"][each]["properties"]["model"] = {"enum": list(names)}
    document["components"]["parameters"]["ModelName"]["schema"] = {"enum": list(names)}
    return document


async def schemathesis(
    folder: Path, target: Target, names: Sequence[str], settings: str, *more: str, cases: int = CASES
) -> tuple[int, str]:
    """Run Schemathesis against a server; return its status, and what it says."""
    schema = json.dumps(await document_of(target, names))
    (folder / "openapi.json").write_text(schema)
    (folder / "schemathesis.toml").write_text(settings)
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run", "openapi.json"]
    flags = ["--exclude-path", "/api/events"]  # it goes on for as long as anybody reads it
    flags += ["--url", target.url, "--checks", "all", "--generation-database", "none", "--continue-on-failure"]
    numbers = ["--max-examples", str(cases), "--seed", str(SEED), "--no-color", "--warnings", "off"]
    done = await trio.run_process(
        [*program, *flags, *numbers, *more],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )
    return done.returncode, done.stdout.decode()


def generated(said: str) -> int:
    """Return how many requests were made."""
    found = re.search(r"(\d+) generated", said)
    assert found is not None, said
    return int(found[1])


@pytest.mark.long
async def test_a_server_without_keys_does_what_it_says(tmp_path: Path, report_line: Callable[[str], None]) -> None:
    """No bug, no status, header, type or shape that is not described; what is wrong is refused."""
    async with started(CONFIG) as target:
        status, said = await schemathesis(tmp_path, target, WELL, WORKS, "--phases", PHASES)

    assert status == 0, said
    report_line(f"schemathesis: {generated(said):,} requests")


@pytest.mark.long
async def test_a_server_with_keys_does_what_it_says(tmp_path: Path) -> None:
    """And nobody gets anything without one."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[keys]]\nname = "tester"\nhash = "{hash_of("wz_tester")}"\nadmin = true\nextra = true\n')
    keys.chmod(0o600)
    async with started(f"{CONFIG}\napi_keys_file = '{keys}'\n") as target:
        key = ("-H", "Authorization: Bearer wz_tester")
        status, said = await schemathesis(tmp_path, target, WELL, WORKS, *key, "--phases", "fuzzing")

    assert status == 0, said


@pytest.mark.long
async def test_a_model_that_fails_is_told_as_it_is_described(tmp_path: Path) -> None:
    """By the status for that, in the format's shape; an answer is none that is expected here."""
    only = ("--include-method", "POST", "--phases", "fuzzing", "--mode", "positive")
    async with started(CONFIG) as target:
        status, said = await schemathesis(tmp_path, target, ("down", "broken"), FAILS, *only)

    assert status == 0, said


@pytest.mark.long
async def test_what_is_not_as_described_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of an answer that is of another type than the document says."""
    real = document_of

    async def wrong(target: Target, names: Sequence[str]) -> Mapping[str, Any]:
        document = await real(target, names)
        document["components"]["schemas"]["ChatModel"]["properties"]["id"] = {"type": "integer"}
        document["components"]["schemas"]["MessageModel"]["properties"]["id"] = {"type": "integer"}
        return document

    monkeypatch.setattr("tests.server.test_http_schemathesis.document_of", wrong)
    only = ("--include-path", "/v1/models", "--phases", "fuzzing")
    async with started(CONFIG) as target:
        status, said = await schemathesis(tmp_path, target, WELL, WORKS, *only, cases=2)

    assert status != 0
    assert "schema" in said
