"""Folders of pictures: what lies in them, walked through links, and what is left out, in words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from napari_dinoaugseg.errors import StudyError
from napari_dinoaugseg.study.files import (
    PICTURE_SUFFIXES,
    counted,
    endings_of,
    is_hidden,
    listed,
    natural_key,
    suffix_of,
)


@dataclass
class Folder:
    """What lies right in a folder, hidden files left out, each kind in natural order.

    Attributes:
        pictures: files that may be pictures, by their suffix.
        others: other files.
        folders: subfolders, links to folders among them.
        broken: links that lead nowhere.
    """

    pictures: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)


def look_into(folder: Path) -> Folder:
    """List a folder. Raises StudyError when that is not allowed."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError as error:
        msg = f"{folder}: this folder cannot be read ({error.strerror}). Change its permissions or copy it elsewhere."
        raise StudyError(msg) from error
    found = Folder()
    for path in entries:
        if is_hidden(path, folder):
            continue
        if path.is_dir():
            found.folders.append(path)
        elif not path.exists():
            found.broken.append(path)
        elif path.is_file():
            (found.pictures if suffix_of(path) in PICTURE_SUFFIXES else found.others).append(path)
    return found


def once(folders: Iterable[Path], seen: set[str]) -> Iterator[Path]:
    """Yield the folders that were not walked yet; links may lead in a circle, or to one place twice."""
    for folder in folders:
        real = os.path.realpath(folder)
        if real not in seen:
            seen.add(real)
            yield folder


def each_folder(folder: Path) -> Iterator[Folder]:
    """Yield what lies in a folder and in those below it, each folder once. Raises StudyError as `look_into`."""
    seen = {os.path.realpath(folder)}
    ahead = [folder]
    while ahead:
        found = look_into(ahead.pop(0))
        yield found
        ahead.extend(once(found.folders, seen))


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and below it, hidden ones left out, in the order of their paths."""
    return sorted(path for found in each_folder(folder) for path in (*found.pictures, *found.others))


def place_of(file: Path) -> tuple[str, str]:
    """Return where a file lies, however its folder is reached; two links to one file are two places."""
    return os.path.realpath(file.parent), file.name


def holds_pictures(folder: Path) -> bool:
    """Tell whether a picture lies in a folder or below it."""
    seen: set[str] = set()

    def below(place: Path) -> bool:
        found = look_into(place)
        return bool(found.pictures) or any(below(sub) for sub in once(found.folders, seen))

    seen.add(os.path.realpath(folder))
    return below(folder)


@dataclass
class LeftOut:
    """What a walk through a folder did not take.

    Attributes:
        others: files that are no pictures that can be read.
        broken: links that lead nowhere.
        masks: files beside pictures that are named as their masks.
        mask_folders: folders that are named as holding masks.
        below: folders with pictures, below one that holds pictures itself.
    """

    others: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    mask_folders: list[Path] = field(default_factory=list)
    below: list[Path] = field(default_factory=list)

    def sentences(self, name: str) -> list[str]:
        """Return what was left out of the folder called `name`, for a person; nothing where that is nothing."""
        said: list[str] = []
        if self.others:
            number = counted(len(self.others), "file")
            said.append(f"{number} of other kinds in {name} left out: {endings_of(self.others)}")
        if self.broken:
            names = listed([path.name for path in self.broken])
            said.append(f"{counted(len(self.broken), 'link')} in {name} that lead nowhere left out: {names}")
        if self.masks:
            names = listed([path.name for path in self.masks])
            said.append(f"{counted(len(self.masks), 'file')} in {name} named as masks left out: {names}")
        if self.mask_folders:
            names = listed([path.name for path in self.mask_folders])
            said.append(f"{counted(len(self.mask_folders), 'folder')} in {name} named as masks left out: {names}")
        if self.below:
            names = listed([path.name for path in self.below])
            said.append(
                f"{counted(len(self.below), 'folder')} in {name} left out, since pictures lie right in {name}: {names}"
            )
        return said
