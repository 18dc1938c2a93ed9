"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_dinoaugseg import disk


def test_a_file_is_replaced_in_one_step_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")

    with disk.replacing(target, suffix=".txt") as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"

    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_the_old_file_stays_when_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if name == "open":
            patch.setattr(Path, "open", refuse)
        else:
            patch.setattr(os, name, refuse)
        with pytest.raises(OSError, match="No space left"):
            disk.write(target, b"new")

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def write_three(target: Path) -> None:
    with disk.replacing_folder(target) as folder:
        for name in "abc":
            (folder / name).write_text(f"new {name}")


def test_files_that_were_replaced_come_back_when_a_later_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "masks"
    target.mkdir()
    (target / "a").write_text("old a")
    (target / "c").write_text("old c")
    (target / "other").write_text("other")
    replace = Path.replace

    def all_but_c(self: Path, place: Path) -> Path:
        if place == target / "c" and "former" not in str(self):
            raise OSError(28, "No space left on device")
        return replace(self, place)

    monkeypatch.setattr(Path, "replace", all_but_c)
    with pytest.raises(OSError, match="No space left"):
        write_three(target)

    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "a": "old a",
        "c": "old c",
        "other": "other",
    }
    assert list(tmp_path.iterdir()) == [target]
