"""Files of a user's own: whole or not at all, and for their owner alone."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from wizard_actors.whole_file import write_new, write_over


def mode(path: Path) -> int:
    """Return a file's rights."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("write", [write_new, write_over])
def test_a_new_file_is_its_owners_alone(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    """In UTF-8, its ends of lines as they are."""
    path = tmp_path / "it.md"
    write(path, "né\n")

    assert (path.read_bytes(), mode(path)) == ("né\n".encode(), 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("link", [False, True])
def test_a_new_file_replaces_none(tmp_path: Path, *, link: bool) -> None:
    """Nor a link, wherever it leads."""
    path = tmp_path / "it.md"
    if link:
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("before", encoding="utf-8")

    with pytest.raises(FileExistsError):
        write_new(path, "after")

    assert path.is_symlink() or path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_over_keeps_its_rights_and_its_link(tmp_path: Path) -> None:
    """Both are its owner's choice."""
    path, link = tmp_path / "it.md", tmp_path / "link"
    path.write_text("before", encoding="utf-8")
    path.chmod(0o640)
    link.symlink_to(path)

    write_over(link, "after")

    assert (path.read_text(encoding="utf-8"), mode(path), link.is_symlink()) == ("after", 0o640, True)


@pytest.mark.parametrize("write", [write_new, write_over])
def test_what_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], None]
) -> None:
    """No half of a file, neither under its name nor beside it."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "it.md", "text")

    assert list(tmp_path.iterdir()) == []
