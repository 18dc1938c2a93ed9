"""Videos: frames are pictures, found again by their number wherever one looks."""

from __future__ import annotations

import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.case import PictureCase, open_case
from napari_dinoaugseg.case import video as video_module
from napari_dinoaugseg.errors import CaseError, Hint, LongVideoError, SettingsError
from tests.case.videos import HEIGHT, WIDTH, frame, write_video

av = pytest.importorskip("av", reason="PyAV is not installed: pip install av")


def video(path: Path, **options: Any) -> PictureCase:
    case = open_case(path, **options)
    assert isinstance(case, PictureCase)
    return case


def number_of(pixels: NDArray[np.uint8], count: int) -> int:
    """The number of a frame by the length of its bar."""
    return round(float((pixels[-4, :, 1] > 125).sum()) * count / pixels.shape[1]) - 1


KINDS = [
    ("a.mp4", {"codec": "libx264", "b_frames": 3}),
    ("a.mp4", {"codec": "mpeg4", "b_frames": 2}),
    ("a.avi", {"codec": "mpeg4"}),
    ("a.avi", {"codec": "mpeg4", "b_frames": 2}),
    ("a.avi", {"codec": "mjpeg"}),
    ("a.MOV", {"codec": "libx264"}),
    ("a.mkv", {"codec": "libx264", "b_frames": 3}),
    ("a.webm", {"codec": "libvpx"}),
    ("a.wmv", {"codec": "wmv2"}),
]


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_frames_are_the_same_in_any_order(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    if options["codec"] not in av.codecs_available:
        pytest.skip(f"this FFmpeg does not write {options['codec']}")
    path = write_video(tmp_path / name, 64, **options)
    case = video(path)
    assert (case.n_slices, case.slice_shape(0), case.is_colour, case.is_byte) == (64, (HEIGHT, WIDTH), True, True)
    one_by_one = [case.slice(i) for i in range(64)]
    assert [number_of(pixels, 64) for pixels in one_by_one] == list(range(64))
    case = video(path)
    for i in np.random.default_rng(0).permutation(64):
        np.testing.assert_array_equal(case.slice(int(i)), one_by_one[i])


def test_every_nth_frame_is_taken_and_called_by_its_number(tmp_path: Path) -> None:
    path = write_video(tmp_path / "colon.mp4", 30)
    case = video(path, every=7)
    assert [case.slice_name(i) for i in range(case.n_slices)] == [f"frame_{n:06d}" for n in (0, 7, 14, 21, 28)]
    assert [number_of(case.slice(i), 30) for i in (3, 0, 4)] == [21, 0, 28]
    assert case.notices[0] == "a video of 30 frames: one in 7 is a picture, 5 in all"
    out = tmp_path / "masks"
    case.check_output(out)
    case.write_mask(out, lambda i: np.full(case.slice_shape(i), i, np.uint8))
    assert sorted(file.name for file in out.iterdir()) == [f"frame_{n:06d}.png" for n in (0, 7, 14, 21, 28)]
    assert Image.open(out / "frame_000028.png").size == (WIDTH, HEIGHT)
    read = case.read_labels(out)
    assert [int(read[i].max()) for i in sorted(read)] == [0, 1, 2, 3, 4]


def test_a_case_is_known_by_the_file_and_the_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert video(path).fingerprint == video(path).fingerprint
    assert video(path).fingerprint != video(path, every=2).fingerprint
    assert video(path).slice_fingerprint(2) == video(path, every=2).slice_fingerprint(1)
    other = write_video(tmp_path / "b.mp4", 31)
    assert video(path).slice_fingerprint(2) != video(other).slice_fingerprint(2)


def test_a_video_of_300_frames_opens_in_seconds_and_keeps_few_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 300, size=(480, 640))
    monkeypatch.setattr(video_module, "_CACHE_BYTES", 20 * 480 * 640 * 3)
    started = time.monotonic()
    case = video(path)
    opened = time.monotonic() - started
    assert opened < 20  # a second here: what must not happen is that it grows with the frames
    decoded = [number_of(case.slice(i), 300) for i in range(0, 300, 30)]
    assert decoded == list(range(0, 300, 30))
    reader = case._decode.__closure__  # the video below the case
    held = next(cell.cell_contents for cell in reader if isinstance(cell.cell_contents, video_module.Video))
    assert len(held._kept) <= 20


def test_a_long_video_asks_which_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_module, "MANY_FRAMES", 20)
    path = write_video(tmp_path / "a.mp4", 30)
    with pytest.raises(LongVideoError, match="has 30 frames") as caught:
        open_case(path)
    assert (caught.value.hint, caught.value.count) == (Hint.CHOOSE_FRAMES, 30)
    assert video(path, every=1).n_slices == 30


def test_frames_at_uneven_times_are_counted_and_named(tmp_path: Path) -> None:
    times = np.cumsum([0, *([1, 5] * 15)])[:30]
    case = video(write_video(tmp_path / "a.mkv", 30, "libx264", times=[int(t) for t in times]))
    assert case.n_slices == 30
    assert any("its frame rate varies" in notice for notice in case.notices)
    assert [number_of(case.slice(i), 30) for i in (29, 3, 17)] == [29, 3, 17]


@pytest.mark.parametrize(
    ("matrix", "corner"), [((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))]
)
def test_a_video_is_turned_as_its_file_asks(matrix: tuple[int, ...], corner: tuple[int, int], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10)
    content = bytearray(path.read_bytes())
    a, b, c, d = (value * 65536 for value in matrix)  # the matrix of the track header (ISO/IEC 14496-12)
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    case = video(path)
    assert case.slice_shape(0) == ((WIDTH, HEIGHT) if a == 0 else (HEIGHT, WIDTH))
    shown = case.slice(3)
    assert shown.shape[:2] == case.slice_shape(0)
    assert shown[corner][0] > 180 > 80 > shown[corner][1]  # the red corner
    assert any("the frames are shown turned" in notice for notice in case.notices)


def test_what_is_no_video_is_refused_by_reason(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    for name, content, words in (
        ("empty.mp4", b"", "this is an empty file, not a video"),
        ("text.avi", b"no video at all" * 99, "cannot be read as a video"),
        ("cut.mp4", whole[: len(whole) // 2], "cannot be read as a video"),
        ("picture.mp4", b"\x89PNG\r\n\x1a\n" + bytes(99), "this is a PNG picture, not a video"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CaseError, match=words):
            open_case(tmp_path / name)
    with pytest.raises(CaseError, match="there is no such file"):
        open_case(tmp_path / "missing.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(CaseError, match="it holds no video, only sound"):
        open_case(tmp_path / "sound.mkv")


def test_a_video_that_is_cut_off_keeps_the_frames_that_are_there(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 30, "mjpeg").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: whole.index(b"idx1") * 2 // 3])
    case = video(tmp_path / "cut.avi")
    assert 15 < case.n_slices < 30
    assert number_of(case.slice(case.n_slices - 1), 30) == case.n_slices - 1
    assert any("the file announces 30 frames" in notice and "cut off" in notice for notice in case.notices)


def test_without_pyav_the_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(CaseError, match=r'PyAV, which is not installed. Use pip install "napari-dinoaugseg\[video\]"'):
        open_case(path)


def test_frames_are_chosen_of_a_video_only(tmp_path: Path) -> None:
    Image.fromarray(frame(0, 1)).save(tmp_path / "a.png")
    with pytest.raises(SettingsError, match="One frame in 3 can be taken of a video only"):
        open_case(tmp_path / "a.png", every=3)
    with pytest.raises(SettingsError):
        open_case(write_video(tmp_path / "a.mp4"), every=0)


def test_several_threads_may_look_at_frames(tmp_path: Path) -> None:
    case = video(write_video(tmp_path / "a.mp4", 60))
    wrong: list[int] = []

    def look(order: NDArray[np.int64]) -> None:
        wrong.extend(int(i) for i in order if number_of(case.slice(int(i)), 60) != i)

    threads = [threading.Thread(target=look, args=(np.random.default_rng(n).permutation(60),)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("lost", [0, 7])
def test_a_frame_that_cannot_be_decoded_is_named(lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mkv", 30, "libx264")
    whole = video(path)
    decoded = video_module._Reader._decoded
    times = [frame.pts for frame in decoded(video_module._Reader(av, path), av.open(str(path)))]

    def without(reader: Any, container: Any) -> Any:
        return (frame for frame in decoded(reader, container) if frame.pts != times[lost])

    monkeypatch.setattr(video_module._Reader, "_decoded", without)
    if lost == 0:
        with pytest.raises(CaseError, match="frame 0 cannot be decoded"):
            open_case(path)
        return
    case = video(path)
    np.testing.assert_array_equal(case.slice(lost + 1), whole.slice(lost + 1))
    with pytest.raises(CaseError, match=r"a\.mkv: frame 7 cannot be decoded. The file is damaged"):
        case.slice(lost)
