"""Send masks to the study on a PACS that they belong to (STOW-RS, DICOM PS3.18 section 10.5)."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from napari_dinoaugseg.case.files import counted, listed
from napari_dinoaugseg.disk import reason
from napari_dinoaugseg.errors import CaseError, PacsError
from napari_dinoaugseg.learning.events import Cancel, Progress
from napari_dinoaugseg.pacs.find import series_of_study
from napari_dinoaugseg.pacs.server import Server, connected, status_of

if TYPE_CHECKING:
    from dicomweb_client.api import DICOMwebClient

KINDS = {SegmentationStorage: "SEG", RTStructureSetStorage: "RTSTRUCT"}
"""What is sent, by SOP class."""

_BATCH_FILES, _BATCH_BYTES = 20, 32 * 2**20  # of one request, which many servers limit
# FailureReason (DICOM PS3.18 table 10.5.3-1).
_REASONS = {
    0x0110: "it failed while storing",
    0x0122: "it does not store this kind of object",
    0x0124: "it does not allow it",
    0x0211: "it does not know what to do",
}
_RANGES = {
    0xA7: "it has no space left",
    0xA9: "it finds the object unlike its kind",
    0xC0: "it does not understand the object",
}


@dataclass(frozen=True)
class Sent:
    """One stored object.

    Attributes:
        path: its file.
        kind: ``SEG`` or ``RTSTRUCT``.
        study: the StudyInstanceUID of the study that it is in.
        uid: its SOPInstanceUID.
    """

    path: Path
    kind: str
    study: str
    uid: str


def send(server: Server, files: Sequence[Path], cancel: Cancel) -> Generator[Progress, None, list[Sent]]:
    """Send DICOM SEG and RTSTRUCT files to their studies, in batches; yields progress over the files.

    Returns:
        What is stored; fewer than `files` if it was stopped.

    Raises:
        CaseError: a file is missing, or neither a DICOM SEG nor an RTSTRUCT; nothing is sent.
        PacsError: the PACS does not have the study (nothing is sent), refuses, or stores less than it was sent.
    """
    started, done = time.monotonic(), list[Sent]()
    objects = [_described(path) for path in files]
    with connected(server) as client:
        for study in dict.fromkeys(entry.study for entry in objects):
            series_of_study(client, study)
        yield Progress("store", 0, len(objects), time.monotonic() - started)
        for batch in _batches(objects):
            if cancel:
                break
            _store(client, batch, done)
            done += batch
            yield Progress("store", len(done), len(objects), time.monotonic() - started)
    return done


def _described(path: Path) -> Sent:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        kind = KINDS.get(header.SOPClassUID)
        study, uid = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
    except OSError as error:
        msg = f"{path}: it cannot be read ({reason(error)}). Check the path."
        raise CaseError(msg) from error
    except (InvalidDicomError, AttributeError, ValueError) as error:
        msg = f"{path}: this is not a DICOM file with a study. Choose a DICOM SEG (.dcm) or RTSTRUCT (.rtstruct.dcm)."
        raise CaseError(msg) from error
    if kind is None:
        msg = f"{path}: only DICOM SEG and RTSTRUCT are sent, and this is another object. Choose such a file."
        raise CaseError(msg)
    return Sent(path, kind, study, uid)


def _batches(objects: Sequence[Sent]) -> Iterator[list[Sent]]:
    """Objects of one study, few and small enough for one request."""
    batch: list[Sent] = []
    size = 0
    for entry in sorted(objects, key=lambda entry: entry.study):
        own = entry.path.stat().st_size
        if batch and (entry.study != batch[0].study or len(batch) == _BATCH_FILES or size + own > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += own
    if batch:
        yield batch


def _store(client: DICOMwebClient, batch: Sequence[Sent], before: Sequence[Sent]) -> None:
    """Store one batch. Raises PacsError unless the answer names every object of it as stored."""
    from requests.exceptions import HTTPError

    try:
        answer = client.store_instances([pydicom.dcmread(entry.path) for entry in batch], batch[0].study)
    except HTTPError as error:
        if status_of(error) not in (400, 409):
            raise
        answer = _answer_in(error.response)
    except (InvalidDicomError, ValueError, KeyError, TypeError):
        answer = Dataset()  # no answer in DICOM, so nothing says that it is stored
    stored = {str(item.get("ReferencedSOPInstanceUID", "")) for item in answer.get("ReferencedSOPSequence", [])}
    refused = [entry for entry in batch if entry.uid not in stored]
    if not refused:
        return
    reasons = {_why(item) for item in answer.get("FailedSOPSequence", [])}
    count = len(before) + len(batch) - len(refused)
    names = listed([entry.path.name for entry in refused])
    msg = (
        f"{client.base_url}: the PACS did not store {names}"
        f"{': ' + ' and '.join(sorted(reasons)) if reasons else ', and gives no reason'}. "
        f"{counted(count, 'file')} before {'is' if count == 1 else 'are'} stored. "
        "Give this message to the administrator of the PACS."
    )
    raise PacsError(msg)


def _answer_in(response: Any) -> Dataset:
    try:
        return Dataset.from_json(response.json())
    except (ValueError, TypeError, KeyError):
        return Dataset()


def _why(item: Dataset) -> str:
    code = int(item.get("FailureReason", 0) or 0)
    known = _REASONS.get(code) or _RANGES.get(code >> 8) or ("it does not understand it" if code >> 12 == 0xC else "")
    return f"{known} (code {code:04X})" if known else f"code {code:04X}"
