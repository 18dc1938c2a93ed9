import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image

from napari_dinoaugseg.case import case_from_array, choose_scale, open_case
from napari_dinoaugseg.learning import cache as cache_module
from napari_dinoaugseg.learning.augmentation import View
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.events import Cancel, Notice, Progress
from napari_dinoaugseg.learning.features import FeatureStore

EVERY = [(index, None) for index in range(16)]


def prepare(store, wanted=EVERY, cancel=None):
    return list(store.prepare(wanted, cancel))


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path)


def files_of(cache):
    return sorted(cache.folder.rglob("*.features"))


def test_every_slice_is_encoded_exactly_once(make_store):
    store = make_store()
    prepare(store)
    prepare(store)
    store.features(3)
    assert store.encoded == 16


def test_progress_counts_to_the_number_of_missing_slices(make_store):
    store = make_store()
    store.features(0)
    events = [event for event in prepare(store) if isinstance(event, Progress)]
    assert (events[0].done, events[-1].done, events[-1].total) == (0, 15, 15)


def test_progress_says_how_many_of_the_images_are_views(make_store):
    store = make_store()
    store.features(0)
    events = prepare(store, [(0, None), (1, None), (0, View(1)), (1, View(1))])
    assert events[-1].words == "encoding image 3 of 3 (2 of them augmented views)"
    assert prepare(make_store(), [(0, None)])[-1].words == "encoding image 1 of 1"


def test_maps_have_the_encoders_channels_and_strides(make_store, encoder):
    maps = make_store().features(5)
    assert [tuple(m.shape) for m in maps] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert all(m.dtype == torch.float16 for m in maps)


def test_a_second_store_finds_everything_on_disk(make_store, cache):
    prepare(make_store(cache))
    second = make_store(FeatureCache(cache.folder.parent))
    prepare(second)
    assert second.encoded == 0
    assert all(torch.equal(a, b) for a, b in zip(second.features(2), make_store().features(2), strict=True))


def test_with_neighbours_the_channels_are_three_slices(make_store, case):
    alone, beside = make_store(), make_store(context=1)
    grey = [alone.image(index)[0] for index in range(case.n_slices)]
    assert torch.equal(beside.image(4), torch.stack([grey[3], grey[4], grey[5]]))
    assert torch.equal(make_store(context=3).image(4), torch.stack([grey[1], grey[4], grey[7]]))
    assert torch.equal(beside.image(0), torch.stack([grey[0], grey[0], grey[1]]))
    assert torch.equal(beside.image(15), torch.stack([grey[14], grey[15], grey[15]]))


def test_features_with_and_without_neighbours_are_not_taken_for_one_another(make_store, cache):
    prepare(make_store(cache))
    beside = make_store(cache, context=1)
    prepare(beside)
    assert beside.encoded == 16
    alone = beside.with_context(0)
    prepare(alone, [(0, None)])
    assert alone.encoded == 16  # what it took over; nothing was added


@pytest.mark.parametrize("change", [{"input_size": 96}, {"window": "other"}])
def test_features_of_another_size_or_window_are_not_taken(make_store, cache, change):
    prepare(make_store(cache))
    other = make_store(cache, **{k: v for k, v in change.items() if k == "input_size"})
    if "window" in change:
        from napari_dinoaugseg.case.intensity import Window

        other.window = Window(0.0, 100.0)
    prepare(other)
    assert other.encoded == 16


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:-9] + bytes([content[-9] ^ 0x10]) + content[-8:],
        lambda content: b"\xff" * 64,
    ],
    ids=["cut", "empty", "one bit", "noise"],
)
def test_a_damaged_file_is_encoded_again(make_store, cache, damage):
    good = make_store(cache).features(4)
    (path,) = files_of(cache)
    path.write_bytes(damage(path.read_bytes()))
    store = make_store(cache)
    assert all(torch.equal(a, b) for a, b in zip(store.features(4), good, strict=True))
    assert store.encoded == 1


def test_a_file_under_a_foreign_name_is_not_trusted(make_store, cache):
    store = make_store(cache)
    store.features(4)
    store.features(5)
    first, second = files_of(cache)
    second.write_bytes(first.read_bytes())
    again = make_store(cache)
    again.features(4)
    again.features(5)
    assert again.encoded == 1


def test_memory_stays_within_its_budget(make_store):
    one = sum(m.nbytes for m in make_store().features(0))
    store = make_store(memory_budget=3 * one)
    prepare(store)
    assert store.memory_used <= 3 * one
    encoded = store.encoded
    store.features(15)
    assert store.encoded == encoded
    store.features(0)
    assert store.encoded == encoded + 1


def test_the_folder_stays_below_its_limit_and_the_oldest_go_first(make_store, cache):
    store = make_store(cache)
    prepare(store)
    files = files_of(cache)
    for age, path in enumerate(files):
        os.utime(path, (1000 + age, 1000 + age))
    cache.limit = sum(path.stat().st_size for path in files[-3:])
    cache.evict()
    assert files_of(cache) == sorted(files[-3:])


def test_a_full_disk_is_said_once_and_loses_nothing(make_store, cache, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module.disk, "write", full)
    store = make_store(cache)
    notices = [event for event in prepare(store) if isinstance(event, Notice)]
    assert len(notices) == 1
    assert "No space left" in notices[0].text
    assert not [event for event in prepare(store, [(0, View(1))]) if isinstance(event, Notice)]
    assert files_of(cache) == []
    assert store.encoded == 17


def test_a_view_has_features_of_its_own(make_store):
    store = make_store()
    plain, view = store.features(6), store.features(6, View(1))
    assert not torch.allclose(plain[0], view[0])
    assert store.encoded == 2


def test_maps_on_disk_of_another_shape_are_not_taken(make_store, cache):
    good = make_store(cache).features(4)
    (path,) = files_of(cache)
    cache.write(path.stem, [stage[:, :1, :1].clone() for stage in good])
    store = make_store(FeatureCache(cache.folder.parent))
    assert all(torch.equal(a, b) for a, b in zip(store.features(4), good, strict=True))
    assert store.encoded == 1


def test_stopping_leaves_what_is_encoded(make_store):
    store, cancel = make_store(), Cancel()
    for event in store.prepare(EVERY, cancel):
        if isinstance(event, Progress) and event.done:
            cancel.set()
    assert store.encoded == 1


def test_out_of_memory_halves_the_batch_and_goes_on(make_store, monkeypatch):
    store = make_store(batch_size=4)
    encode = store.encoder.encode

    def small_only(batch):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(batch)

    monkeypatch.setattr(store.encoder, "encode", small_only)
    notices = [event.text for event in prepare(store) if isinstance(event, Notice)]
    assert [text.split("with ")[1] for text in notices] == ["2 slices at a time.", "1 slices at a time."]
    assert store.encoded == 16


@pytest.mark.parametrize("size", [32, 64, 96])
def test_slices_scaled_by_themselves_are_the_pictures_that_the_authors_hand_to_their_network(encoder, tmp_path, size):
    """Least to greatest value, 8 bits cut off below, resized by Pillow."""
    random = np.random.default_rng(0)
    grey = random.normal(300, 900, (2, 50, 70)).astype(np.float32)
    colour = random.integers(17, 201, (50, 70, 3)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    for case, index, image in (
        (case_from_array(grey, name="noise"), 1, np.stack([grey[1]] * 3, axis=2)),
        (open_case(tmp_path), 0, colour.astype(np.float32)),
    ):
        levels = (image - image.min()) / (image.max() - image.min()) * 255
        picture = Image.fromarray(levels.astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR)
        store = FeatureStore(case, encoder, input_size=size, window=choose_scale(case, "auto", "slice"))
        found = store.image(index)
        assert found.dtype == torch.float32
        expected = torch.from_numpy(np.asarray(picture).copy()).movedim(-1, 0) / 255
        assert (found - expected).abs().max() < 1.01 / 255  # a level, where both round a middle
        assert (found == expected).float().mean() > 0.99


def test_exact_features_are_kept_in_single_precision_and_not_taken_for_others(make_store, cache):
    prepare(make_store(cache), EVERY[:2])
    exact = make_store(cache, exact=True)
    prepare(exact, EVERY[:2])
    assert exact.encoded == 2
    half, single = make_store(cache).features(0), exact.features(0)
    assert [stage.dtype for stage in single] == [torch.float32] * 4
    assert all(torch.equal(stage.half(), coarse) for stage, coarse in zip(single, half, strict=True))
    assert any(not torch.equal(stage, coarse.float()) for stage, coarse in zip(single, half, strict=True))
    again = make_store(FeatureCache(cache.folder.parent), exact=True)
    prepare(again, EVERY[:2])
    assert again.encoded == 0
    assert all(torch.equal(a, b) for a, b in zip(again.features(0), single, strict=True))
    assert exact.resized(96).exact
    assert exact.with_context(1).exact
    assert not exact.with_precision(exact=False).exact


def test_features_of_a_window_and_of_slices_scaled_by_themselves_are_not_taken_for_one_another(make_store, cache, case):
    prepare(make_store(cache), EVERY[:2])
    store = make_store(cache)
    store.window = choose_scale(case, "auto", "slice")
    prepare(store, EVERY[:2])
    assert store.encoded == 2
