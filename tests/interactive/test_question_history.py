"""The file of what was typed before."""

import os
from pathlib import Path

import pytest
from prompt_toolkit.history import InMemoryHistory

from wizard_actors.interactive import question_history
from wizard_actors.interactive.question_history import history_file, open_history


def test_it_stands_in_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one that the environment names, if that is absolute, else the usual one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file({"XDG_STATE_HOME": "/state"}) == Path("/state/wizard/chat_history")
    for env in ({}, {"XDG_STATE_HOME": "relative"}):
        assert history_file(env) == tmp_path / ".local" / "state" / "wizard" / "chat_history"


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """Also where it was there before."""
    path = tmp_path / "state" / "history"
    path.parent.mkdir()
    path.touch(mode=0o644)
    history = open_history(path)
    history.append_string("one\ntwo \udcff")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(open_history(path).load_history_strings()) == ["one\ntwo ?"]


def test_a_file_that_cannot_be_had_is_done_without(tmp_path: Path) -> None:
    """The chat has a history all the same."""
    (tmp_path / "file").touch()
    for path in (None, tmp_path / "file" / "history", tmp_path):
        history = open_history(path)
        assert isinstance(history, InMemoryHistory)
        history.append_string("one")
        assert history.get_strings() == ["one"]


def test_a_file_that_goes_away_ends_no_chat(tmp_path: Path) -> None:
    """What is typed then is remembered until the end."""
    path = tmp_path / "history"
    history = open_history(path)
    path.unlink()
    path.mkdir()
    history.append_string("one")
    assert history.get_strings() == ["one"]
    assert list(history.load_history_strings()) == []


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older half goes, whole entries at a time."""
    path = tmp_path / "history"
    history = open_history(path)
    for number in range(100):
        history.append_string(f"question {number}\nof two lines")
    monkeypatch.setattr(question_history, "LARGEST", path.stat().st_size - 1)
    kept = list(open_history(path).load_history_strings())
    assert kept == [f"question {number}\nof two lines" for number in range(99, 99 - len(kept), -1)]
    assert 40 < len(kept) < 60
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["history"]


@pytest.mark.parametrize("kind", ["file", "nowhere", "device", "pipe"])
def test_what_is_no_file_of_the_chats_own_is_left_alone(tmp_path: Path, kind: str) -> None:
    """A link, to /dev/null say, and a device mean that no history is kept."""
    path, target = tmp_path / "history", tmp_path / "target"
    if kind == "file":
        target.touch(mode=0o644)
    if kind == "pipe":
        os.mkfifo(path, 0o644)
    else:
        path.symlink_to("/dev/null" if kind == "device" else target)
    device = Path("/dev/null").stat().st_mode
    history = open_history(path)
    history.append_string("a secret")
    assert isinstance(history, InMemoryHistory)
    assert Path("/dev/null").stat().st_mode == device
    assert target.exists() == (kind == "file")
    if kind == "file":
        assert (target.stat().st_mode & 0o777, target.read_text(encoding="utf-8")) == (0o644, "")
    if kind == "pipe":
        assert path.stat().st_mode & 0o777 == 0o644
