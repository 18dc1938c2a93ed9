"""A video as a case of pictures: every frame, or every n-th, is a picture that is decoded when it is needed.

PyAV (FFmpeg) reads the file. Opening it looks at the packets only, without decoding them, to learn which frames there
are and from where each can be decoded. Frames are counted in the order in which they are shown, from 0.
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg import disk
from napari_dinoaugseg.case.files import counted, reading, unreadable, what_it_is
from napari_dinoaugseg.case.masks import MaskOptions
from napari_dinoaugseg.case.picture_files import Orientation, Picture
from napari_dinoaugseg.case.pictures import PictureCase, PictureFacts
from napari_dinoaugseg.errors import CaseError, LongVideoError

INSTALL = 'pip install "napari-dinoaugseg[video]"'
MANY_FRAMES = 1000
"""A video with more frames is opened only once the person has chosen how many of them to take."""

_KIND = "a video"
_UNKNOWN = (0, 0)
_DIGITS = 6  # as in the names of frames that CVAT exports
_CACHE_BYTES = 256 * 2**20  # of decoded frames
_READERS = 3  # places in the file from which frames are decoded on: of the encoder, and of who looks at frames
_UNEVEN = 1.5  # frames that lie this much farther apart than others were not recorded at a constant rate


def video_case(path: Path, every: int | None = None, masks: MaskOptions | None = None) -> PictureCase:
    """Open a video as a case of pictures, which are called by the numbers of their frames: ``frame_000120``.

    Args:
        path: the file.
        every: take every n-th frame, from the first; None takes all, unless there are many.
        masks: how to read masks of the frames.

    Raises:
        CaseError: PyAV is missing, or the file holds no video, or no frame that can be decoded.
        LongVideoError: it has more than `MANY_FRAMES`, and `every` is None.
    """
    video = Video(path)
    if every is None and video.n_frames > MANY_FRAMES:
        msg = f"{path}: this video has {video.n_frames} frames, too many to segment each."
        raise LongVideoError(msg, video.n_frames)
    step = every or 1
    numbers = range(0, video.n_frames, step)
    files = [path / f"frame_{number:0{_DIGITS}d}" for number in numbers]
    number_of = dict(zip(files, numbers, strict=True))
    video.step = step
    digest = disk.digest(path)
    facts = [
        PictureFacts(
            shape=video.shape,
            orientation=Orientation(),
            is_colour=True,
            is_byte=True,
            fingerprint=hashlib.blake2b(f"{digest} frame {number}".encode(), digest_size=16).hexdigest(),
            non_finite=0,
            frames=1,
            opacity="none",
            spacing=None,
        )
        for number in numbers
    ]
    taken = "each is a picture" if step == 1 else f"one in {step} is a picture, {len(files)} in all"
    notices = [f"a video of {counted(video.n_frames, 'frame')}: {taken}", *video.notices]
    return PictureCase(
        path,
        files,
        masks,
        notices,
        decoder=lambda file: Picture(video.frame(number_of[file]), Orientation()),
        names=[file.name for file in files],
        facts=facts,
    )


def _pyav(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        msg = f"{path}: reading a video needs PyAV, which is not installed. Use {INSTALL}."
        raise CaseError(msg) from error
    return av


class Video:
    """The frames of a video file, by their number. May be used by several threads.

    Decoded frames are kept up to a limit, so that a person who goes back and forth need not wait.

    Attributes:
        shape: height and width as they are shown.
        notices: sentences for the person.
        step: only every n-th of the frames that are decoded on the way to another is kept.

    Args:
        path: the file.

    Raises:
        CaseError: PyAV is missing, or the file holds no video, or no frame that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.step, self.shape = path, 1, _UNKNOWN
        self.notices: list[str] = []
        self._av = _pyav(path)
        self._lock = threading.Lock()
        self._readers: list[_Reader] = []  # the one that was used last comes last
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        if what_it_is(path) not in (None, _KIND):  # FFmpeg also reads pictures
            raise CaseError(unreadable(path, _KIND))
        with reading(path, _KIND):
            announced = self._survey()
        self.shape = self._look(announced)

    @property
    def n_frames(self) -> int:
        """How many frames there are."""
        return len(self._times)

    def _survey(self) -> int:
        """Find the times of all frames and of key frames; returns how many frames the file announces."""
        times, keys = set(), set()
        with self._av.open(str(self.path)) as container:
            if not container.streams.video:
                sound = ", only sound" if container.streams.audio else ""
                msg = f"{self.path}: it holds no video{sound}. Give the file of a video."
                raise CaseError(msg)
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                time = packet.dts if packet.pts is None else packet.pts
                if packet.size and time is not None and not packet.is_discard:
                    times.add(time)
                    keys.update([time] if packet.is_keyframe else [])
            announced = int(stream.frames)
        self._times, self._keys = sorted(times), sorted(keys)
        if not times:
            msg = f"{self.path}: it holds no frame: the recording was not finished, or it is cut off. Copy it again."
            raise CaseError(msg)
        return announced

    def _look(self, announced: int) -> tuple[int, int]:
        """Decode the first and the last frame, and find out what is unusual; returns height and width."""
        height, width = self.frame(0).shape[:2]
        turn = self._readers[-1].turn
        try:
            self.frame(self.n_frames - 1)
        except CaseError:
            self._cut()
        if self.n_frames < announced:
            there = f"of which {self.n_frames} can be read: it may be cut off"
            self.notices.append(f"the file announces {announced} frames, {there}")
        gaps = np.diff(self._times)
        if len(gaps) and gaps.max() > _UNEVEN * gaps.min():
            self.notices.append("its frame rate varies: frames are counted, whatever the time between them")
        if turn:
            asks = f"as the file asks ({abs(turn)} degrees)"
            self.notices.append(f"the frames are shown turned, {asks}; masks lie on them as they are shown")
        return int(height), int(width)

    def _cut(self) -> None:
        """Leave out the frames behind the last one that can be decoded."""
        reader = _Reader(self._av, self.path)
        for key in reversed(self._keys):
            reader.start_at(key)
            numbers = [self._number(reader) for _ in reader]
            if numbers:
                self._times = self._times[: max(numbers) + 1]
                return

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Return a frame, (H, W, 3) read-only, turned as the file asks.

        Raises:
            CaseError: it cannot be decoded.
        """
        with self._lock:
            if number not in self._kept:
                with reading(self.path, _KIND):
                    self._decode(number)
            found = self._kept.get(number)
            if found is None:
                msg = f"{self.path}: frame {number} cannot be decoded. The file is damaged; copy or export it again."
                raise CaseError(msg)
            if self.shape not in (_UNKNOWN, found.shape[:2]):
                size = f"{found.shape[1]} x {found.shape[0]} pixels, the first {self.shape[1]} x {self.shape[0]}"
                msg = f"{self.path}: frame {number} has {size}. Cut the video where its size changes."
                raise CaseError(msg)
            self._kept.move_to_end(number)
            return found

    def _decode(self, number: int) -> None:
        """Decode up to a frame, and keep it with the frames before it."""
        reader, went_back = self._reader_before(number), False
        for frame in reader:
            found = self._number(reader)
            if found > number and reader.is_fresh and not went_back:  # the format cannot seek to a key frame
                reader.start_at(None)
                went_back = True
                continue
            room = max(1, _CACHE_BYTES // (3 * frame.width * frame.height))
            if found == number or (found % self.step == 0 and 0 < number - found < self.step * room):
                self._keep(found, reader.pixels())
            if found >= number:
                return

    def _keep(self, number: int, pixels: NDArray[np.uint8]) -> None:
        pixels.setflags(write=False)
        self._kept[number] = pixels
        self._kept.move_to_end(number)
        while len(self._kept) > 1 and len(self._kept) * pixels.nbytes > _CACHE_BYTES:
            self._kept.popitem(last=False)

    def _reader_before(self, number: int) -> _Reader:
        """A reader that stands between a frame and the key frame before it; another one is sent to that key frame."""
        time = self._times[number]
        at = bisect_right(self._keys, time) - 1
        key = self._keys[at] if at >= 0 else self._times[0]
        here = [one for one in self._readers if one.time is not None and key <= one.time < time]
        if here:
            reader = max(here, key=lambda one: one.time or 0)
            self._readers.remove(reader)
        else:
            reader = self._readers.pop(0) if len(self._readers) == _READERS else _Reader(self._av, self.path)
            reader.start_at(key if at > 0 else None)
        self._readers.append(reader)
        return reader

    def _number(self, reader: _Reader) -> int:
        """The number of the frame that a reader has just decoded."""
        return max(bisect_right(self._times, reader.time or 0) - 1, 0)


class _Reader:
    """Decodes frames one after the other from a place in a video.

    Attributes:
        time: of the last decoded frame; None before the first.
        is_fresh: whether that is the first one since the reader was sent somewhere.
    """

    def __init__(self, av: Any, path: Path) -> None:
        self._av, self._path = av, path
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._frame: Any = None
        self.time: int | None = None
        self.is_fresh = True

    def start_at(self, key: int | None) -> None:
        """Go to the key frame at a time; None begins anew."""
        if self._container is None or key is None:
            if self._container is not None:
                self._container.close()
            self._container = self._av.open(str(self._path))
            self._container.streams.video[0].thread_type = "AUTO"
        if key is not None:
            self._container.seek(key, stream=self._container.streams.video[0])
        self._frames, self._frame, self.time = self._decoded(self._container), None, None

    def _decoded(self, container: Any) -> Iterator[Any]:
        for packet in container.demux(container.streams.video[0]):
            try:
                yield from packet.decode()
            except self._av.error.InvalidDataError:
                continue  # as players do: the next frames may be sound

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Any:
        """Decode the next frame."""
        frame = next(self._frames)
        self.is_fresh = self.time is None
        self._frame, self.time = frame, frame.dts if frame.pts is None else frame.pts
        return frame

    @property
    def turn(self) -> int:
        """Degrees counterclockwise by which the last frame is turned to be shown; multiples of 90."""
        return 90 * round(float(self._frame.rotation) / 90)

    def pixels(self) -> NDArray[np.uint8]:
        """The last frame, (H, W, 3)."""
        stored = self._frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(stored, self.turn // 90))
