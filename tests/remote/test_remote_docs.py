"""What `docs/remote.md` shows works as it shows it, on a server with the configuration that it shows."""

import contextlib
import io
from pathlib import Path

import pytest

from tests.remote.loopback import in_a_thread
from tests.test_docs import ROOT, blocks, same
from wizard_actors.config import WizardConfig


def test_what_the_page_on_remote_clients_shows_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program prints what the page says, with the address of a server that runs."""
    monkeypatch.chdir(tmp_path)
    shown = blocks(ROOT / "docs" / "remote.md")
    [settings] = [block.text for block in shown if block.language == "toml"]
    programs = [(at, block) for at, block in enumerate(shown) if block.language == "python"]
    assert programs
    for at, program in programs:
        printed = io.StringIO()
        with in_a_thread(config=WizardConfig.from_toml(settings, env={})) as port, contextlib.redirect_stdout(printed):
            exec(compile(program.text.replace("8000", str(port)), program.where, "exec"), {"__name__": "__main__"})  # noqa: S102 - it is what is tested
        assert same(shown[at + 1].text, printed.getvalue()), f"{program.where} prints:\n{printed.getvalue()}"
