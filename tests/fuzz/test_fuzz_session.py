"""Damaged and hostile session folders: what can be read is read, and what was read can be saved and read again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.errors import CheckpointError
from napari_dinoaugseg.model.checkpoint import Checkpoint
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.index import INDEX_NAME, Snapshot, model_name
from napari_dinoaugseg.session.labels import to_plain
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore, saved_sessions
from tests.fuzz.harness import Files, Target, fuzz
from tests.fuzz.mutators import confuse_json, damaged, pick
from tests.session.test_store import make_case, saved, snapshot_of


@cache
def case() -> Case:
    return make_case()


def seeds() -> Sequence[Files]:
    import tempfile

    made = []
    for with_model in (False, True):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            snapshot = snapshot_of(case())
            if with_model:
                snapshot = Snapshot(snapshot.book, snapshot.settings, snapshot.history, _model(snapshot), snapshot.view)
            saved(folder, case(), snapshot)
            made.append(
                {
                    path.relative_to(folder).as_posix(): path.read_bytes()
                    for path in sorted(folder.rglob("*"))
                    if path.is_file() and path.name != "lock"
                }
            )
    return made


def _model(snapshot: Snapshot) -> Checkpoint:
    torch.manual_seed(0)
    decoder = Decoder((4, 6, 8, 10), n_classes=3, width=8)
    return Checkpoint(
        state=decoder.state_dict(),
        decoder=decoder.arguments,
        settings=snapshot.settings.model_dump(mode="json"),
        classes=to_plain(snapshot.book.classes),
        encoder={"name": "efficientnet-lite0", "fingerprint": "x"},
        versions={},
    )


def damage(files: Files, rng: np.random.Generator) -> Files:
    files = dict(files)
    for _ in range(int(rng.integers(1, 4))):
        name = INDEX_NAME if rng.random() < 0.5 and INDEX_NAME in files else pick(rng, sorted(files))
        if rng.random() < 0.1:
            del files[name]
            if not files:
                return {INDEX_NAME: b""}
        elif name == INDEX_NAME:
            files[name] = confuse_json(files[name], rng) if rng.random() < 0.7 else damaged(files[name], rng)
        else:
            _damage_part(files, name, rng)
    return files


def _damage_part(files: dict[str, bytes], name: str, rng: np.random.Generator) -> None:
    content = damaged(files.pop(name), rng)
    if rng.random() < 0.3:
        files[name] = content
        return
    # Whoever means harm knows how the files are named.
    start = name.rpartition("_")[0]
    if name.endswith(".png"):
        new = f"{start}_{hashlib.blake2b(content, digest_size=8).hexdigest()}.png"
    else:
        new = model_name(content)
    files[new] = content
    if INDEX_NAME in files:
        files[INDEX_NAME] = files[INDEX_NAME].replace(Path(name).name.encode(), Path(new).name.encode())


def go_on(folder: Path) -> None:
    """List, load, go on, save, and load what was saved."""
    place = folder / case().fingerprint / "001"
    place.parent.mkdir()
    parts = [path for path in folder.iterdir() if path != place.parent]
    place.mkdir()
    for path in parts:
        path.rename(place / path.name)
    saved_sessions(case().fingerprint, folder)
    store = SessionStore(place, case())
    try:
        snapshot, _ = store.load()
        session = Session(case())
        session.resume(snapshot)
        _require_usable_model(session)
        kept = session.snapshot()
        store.save(kept)
        again, problems = store.load()
    finally:
        store.close()
    if problems or again.book.classes != kept.book.classes or again.history != kept.history:
        msg = f"what was saved did not come back: {problems}"
        raise AssertionError(msg)
    for layer, slices in kept.book.layers.items():
        for index, labels in slices.items():
            np.testing.assert_array_equal(again.book.layers[layer][index], labels)


def _require_usable_model(session: Session) -> None:
    """A model that cannot be used is said when it is needed, and the session does without."""
    try:
        session.model  # noqa: B018
    except CheckpointError:
        session.configure(session.settings.with_changes(width=40), ComputeConfig("cpu"))


TARGET = Target("session", seeds=seeds, mutate=damage, check=go_on, cases=300)


def test_damaged_sessions_cost_only_what_is_damaged(record_property):
    fuzz(f"{__name__}:TARGET", record_property)
