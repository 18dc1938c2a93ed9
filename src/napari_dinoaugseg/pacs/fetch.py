"""Fetch a series from a PACS to a folder (WADO-RS, DICOM PS3.18 section 10.4), whole or not at all."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from napari_dinoaugseg.case.dicom.series import quiet
from napari_dinoaugseg.case.files import counted
from napari_dinoaugseg.disk import flush, reason, replacing_folder
from napari_dinoaugseg.errors import OutputError, PacsError
from napari_dinoaugseg.learning.events import Cancel, Progress
from napari_dinoaugseg.pacs.find import RemoteSeries, choose_series, images_of, require_uid, series_of_study
from napari_dinoaugseg.pacs.server import Server, connected

if TYPE_CHECKING:
    from dicomweb_client.api import DICOMwebClient
    from requests import Response

# As they are stored: a server that has to decompress a series for us may fail (error 500).
_AS_STORED = (("application/dicom", "*"),)
_TAIL = 256  # bytes, in which the end of the last part lies


def folder_name(series: RemoteSeries) -> str:
    """A name for the folder of a series, without the patient's: modality, description, six digits of the UID."""
    words = re.sub(r"[^0-9A-Za-z]+", "_", series.description).strip("_")[:40]
    digits = hashlib.blake2b(series.uid.encode(), digest_size=3).hexdigest()
    return "_".join(part for part in (re.sub(r"\W", "", series.modality)[:8], words, digits) if part)


def fetch_chosen(
    server: Server, study: str, wanted: str | None, folder: Path, cancel: Cancel
) -> Generator[Progress, None, Path | None]:
    """Fetch the series of a study that was chosen as for :func:`choose_series`; otherwise as :func:`fetch`."""
    with connected(server) as client:
        series = choose_series(series_of_study(client, study), wanted)
    return (yield from fetch(server, series.study, series.uid, folder, cancel))


def fetch(
    server: Server, study: str, series: str, folder: Path, cancel: Cancel
) -> Generator[Progress, None, Path | None]:
    """Fetch a series to a new folder, one file for each image, as the server stores it.

    Images are written to a hidden folder beside, as they come; it becomes `folder` when all are there.

    Args:
        server: the PACS.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        folder: it is created, may exist if it is empty, and lies in an existing folder.
        cancel: stops between two blocks of bytes.

    Returns:
        The folder; None if it was stopped. Then, and after an error, nothing is left.

    Raises:
        OutputError: the folder holds something, or cannot be written.
        PacsError: the server does not have the series, fails or sends less than it has.
    """
    require_uid(study)
    require_uid(series)
    _require_empty(folder)
    started = time.monotonic()
    try:
        with connected(server, _EndWatch(cancel)) as client:
            wanted = images_of(client, study, series)
            yield Progress("fetch", 0, len(wanted), time.monotonic() - started)
            with replacing_folder(folder, whole=True) as part:
                missing = set(wanted)
                for number, (uid, image) in enumerate(_images(client, study, series)):
                    if cancel:
                        raise _StoppedError
                    _write(part / f"{number + 1:05d}.dcm", image)
                    missing.discard(uid)
                    yield Progress("fetch", len(wanted) - len(missing), len(wanted), time.monotonic() - started)
                if missing:
                    raise _incomplete(client, len(wanted), len(missing))
    except _StoppedError:
        return None
    except OSError as error:
        msg = (
            f"{folder}: the series could not be written there ({reason(error)}), and nothing of it is left. "
            "Choose a folder with enough space."
        )
        raise OutputError(msg) from error
    return folder


class _StoppedError(Exception):
    """The person stopped the work."""


def _require_empty(folder: Path) -> None:
    if not folder.parent.is_dir():
        msg = f"{folder.parent}: there is no such folder. Create it, or choose another one."
        raise OutputError(msg)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            msg = f"{folder}: it is not empty, and a series gets a folder of its own. Choose a new one."
            raise OutputError(msg)
    except OSError as error:
        msg = f"{folder}: it cannot be read ({reason(error)}). Choose another folder."
        raise OutputError(msg) from error


def _images(client: DICOMwebClient, study: str, series: str) -> Iterator[tuple[str, Dataset]]:
    """The images of a series with their SOPInstanceUIDs, one at a time in memory."""
    try:
        images = iter(client.iter_series(study, series, media_types=_AS_STORED))
        while True:
            with quiet():
                image = next(images, None)
                uid = str(image.get("SOPInstanceUID", "")) if image is not None else ""
            if image is None:
                return
            yield uid, image
    except (InvalidDicomError, ValueError, KeyError, EOFError) as error:
        msg = f"{client.base_url}: the PACS sent something else than DICOM. Give this message to its administrator."
        raise PacsError(msg) from error


def _write(path: Path, image: Dataset) -> None:
    with path.open("xb") as file:
        image.save_as(file)
    flush(path)


def _incomplete(client: DICOMwebClient, count: int, missing: int) -> PacsError:
    msg = (
        f"{client.base_url}: the PACS sent {count - missing} of the {counted(count, 'image')} of the series, so "
        "nothing was kept. Check in the PACS that the series is complete, and fetch it again."
    )
    return PacsError(msg)


class _EndWatch:
    """Lets an answer of several parts stop when asked, and fail where its end is missing.

    Without it, an image that was cut off would pass for a whole one, where a server announces no length.
    """

    def __init__(self, cancel: Cancel) -> None:
        self._cancel = cancel

    def __call__(self, response: Response) -> None:
        boundary = re.search(r'boundary="?([^";]+)', response.headers.get("Content-Type", ""))
        if boundary is not None and response.ok:
            blocks = self._watched(response.iter_content, f"--{boundary[1].strip()}--".encode())
            response.iter_content = blocks  # type: ignore[method-assign]

    def _watched(self, content: Callable[..., Any], end: bytes) -> Callable[..., Iterator[bytes]]:
        from requests.exceptions import ChunkedEncodingError

        def blocks(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            tail = b""
            for block in content(*args, **kwargs):
                if self._cancel:
                    raise _StoppedError
                tail = (tail + block)[-_TAIL:]
                yield block
            if end not in tail:
                raise ChunkedEncodingError("the last part has no end")

        return blocks
