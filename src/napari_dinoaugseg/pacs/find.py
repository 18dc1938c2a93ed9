"""Search a PACS for series (QIDO-RS, DICOM PS3.18 section 10.6)."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import Hint, PacsError
from napari_dinoaugseg.learning.events import Cancel, Progress
from napari_dinoaugseg.pacs.server import Server, connected, not_dicomweb, status_of

if TYPE_CHECKING:
    from dicomweb_client.api import DICOMwebClient

MOST_STUDIES = 100
"""The most studies that a search lists."""

_STUDY = ("StudyDescription", "StudyDate", "PatientName", "PatientID", "ModalitiesInStudy")
_SERIES = ("SeriesDescription", "Modality", "NumberOfSeriesRelatedInstances")
_PATH_SAFE = re.compile(r"[0-9A-Za-z._-]{1,64}")


@dataclass(frozen=True)
class Query:
    """What to search for; empty = anything.

    Attributes:
        patient: a patient ID, or a part of a name; ``*`` stands for any letters.
        date: of the study: ``2024-03-05``, or from and to as ``2024-03-01:2024-03-31``, of which one may be missing.
        modality: such as ``CT``.
        description: a part of the description of the study or series, in any case.
    """

    patient: str = ""
    date: str = ""
    modality: str = ""
    description: str = ""


@dataclass(frozen=True)
class RemoteSeries:
    """One series on a PACS.

    Attributes:
        study: its StudyInstanceUID.
        uid: its SeriesInstanceUID.
        patient: PatientName with spaces, and PatientID.
        date: of the study, as ``2024-03-05``; empty = unknown.
        modality: such as ``CT``.
        study_description: may be empty.
        description: of the series; may be empty.
        images: how many objects it has; None = the PACS does not say.
    """

    study: str
    uid: str
    patient: tuple[str, str]
    date: str
    modality: str
    study_description: str
    description: str
    images: int | None


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        series: the newest study first.
        notices: what the person should know about it.
    """

    series: list[RemoteSeries]
    notices: list[str] = field(default_factory=list)


def find(server: Server, query: Query, cancel: Cancel) -> Generator[Progress, None, Found]:
    """Search for series; yields progress over the studies.

    Raises:
        PacsError: the date cannot be read, the server cannot be reached, refuses, or is not a DICOMweb server.
    """
    started, found = time.monotonic(), Found([])
    filters = _filters(query)
    with connected(server) as client:
        studies = _studies(client, query.patient.strip(), filters)
        if len(studies) > MOST_STUDIES:
            found.notices.append(
                f"More than {MOST_STUDIES} studies match, and others are not shown. Search more narrowly."
            )
        for number, study in enumerate(studies[:MOST_STUDIES]):
            if cancel:
                break
            found.series.extend(series for series in _series_of(client, study) if _matches(series, query))
            yield Progress("search", number + 1, min(len(studies), MOST_STUDIES), time.monotonic() - started)
    return found


def series_of_study(client: DICOMwebClient, study: str) -> list[RemoteSeries]:
    """The series of a study. Raises PacsError if the server does not have it."""
    require_uid(study)
    found = _answers(client, client.search_for_studies(search_filters={"StudyInstanceUID": study}, fields=_STUDY))
    # A server may ignore the filter.
    found = [entry for entry in found if text_of(entry, "StudyInstanceUID") == study]
    if not found:
        msg = f"{client.base_url}: the PACS has no study {study}. Check its UID, and that you may see the study there."
        raise PacsError(msg)
    return _series_of(client, found[0])


def choose_series(series: Sequence[RemoteSeries], wanted: str | None) -> RemoteSeries:
    """One series of a study, by UID or part of the description; without either, the only one with images.

    Raises:
        PacsError: no series, or several.
    """
    others = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
    if wanted is None:
        fitting = [entry for entry in series if entry.modality not in others]
    else:
        exact = [entry for entry in series if entry.uid == wanted]
        fitting = exact or [entry for entry in series if wanted.casefold() in entry.description.casefold()]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(f"{entry.uid} ({entry.modality}, {entry.description or 'no description'})" for entry in series)
    what = f"{len(fitting)} series" if wanted is None else f"{len(fitting)} series like '{wanted}'"
    raise PacsError(f"The study has {what} to fetch. There are: {listed or 'none'}.", Hint.PACS_SERIES)


def images_of(client: DICOMwebClient, study: str, series: str) -> list[str]:
    """The SOPInstanceUIDs of a series, asked for in pages. Raises PacsError if there are none."""
    from requests.exceptions import HTTPError

    uids: dict[str, None] = {}
    while True:
        try:
            page = _answers(client, client.search_for_instances(study, series, offset=len(uids), limit=1000))
        except HTTPError as error:
            if status_of(error) != 404:
                raise
            page = []
        new = {text_of(entry, "SOPInstanceUID") for entry in page} - {"", *uids}
        uids.update(dict.fromkeys(sorted(new)))
        # A server that ignores the offset repeats itself.
        if not new:
            break
    if not uids:
        msg = f"{client.base_url}: the PACS has no series {series} in this study. Search again: it may have been moved."
        raise PacsError(msg)
    return list(uids)


def require_uid(uid: str) -> None:
    """Raise PacsError unless this may be part of an address."""
    if not _PATH_SAFE.fullmatch(uid):
        msg = f"'{uid}' is not a UID. Copy it from the result of a search."
        raise PacsError(msg)


def text_of(entry: Mapping[str, Any], keyword: str) -> str:
    """The value of an attribute in DICOM JSON as text, several joined by a comma; empty if it is missing."""
    from pydicom.datadict import tag_for_keyword

    element = entry.get(f"{tag_for_keyword(keyword):08X}")
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list):
        return ""
    texts = [value.get("Alphabetic", "") if isinstance(value, dict) else value for value in values]
    return ", ".join(str(text) for text in texts if text not in (None, ""))


def _answers(client: DICOMwebClient, answers: Any) -> list[dict[str, Any]]:
    """The answers of a search. Raises PacsError if they are not DICOM JSON."""
    if not isinstance(answers, list) or not all(isinstance(entry, dict) for entry in answers):
        names = isinstance(answers, list) and all(isinstance(entry, str) for entry in answers)
        raise not_dicomweb(client.base_url, "a list of identifiers" if names else "something else")
    return answers


def _studies(client: DICOMwebClient, patient: str, filters: Mapping[str, str]) -> list[dict[str, Any]]:
    """The studies of a patient, by ID or name, the newest first; one more than can be shown if there are more."""
    searches: list[dict[str, str]] = [{}]
    if patient:
        words = "*".join(re.split(r"[\s^,]+", patient))
        name = words if "*" in patient else f"*{words}*"
        searches = [{"PatientID": patient}, {"PatientName": name}]
    studies: dict[str, dict[str, Any]] = {}
    for search in searches:
        found = client.search_for_studies(limit=MOST_STUDIES + 1, fields=_STUDY, search_filters={**filters, **search})
        for entry in _answers(client, found):
            studies[text_of(entry, "StudyInstanceUID")] = entry
    studies.pop("", None)
    return sorted(studies.values(), key=lambda entry: text_of(entry, "StudyDate"), reverse=True)


def _series_of(client: DICOMwebClient, study: Mapping[str, Any]) -> list[RemoteSeries]:
    uid = text_of(study, "StudyInstanceUID")
    if not _PATH_SAFE.fullmatch(uid):
        return []
    found = _answers(client, client.search_for_series(uid, fields=_SERIES))
    return [_series(study, entry) for entry in found if _PATH_SAFE.fullmatch(text_of(entry, "SeriesInstanceUID"))]


def _series(study: Mapping[str, Any], entry: Mapping[str, Any]) -> RemoteSeries:
    def value(keyword: str) -> str:
        return text_of(entry, keyword) or text_of(study, keyword)

    date, images = value("StudyDate"), value("NumberOfSeriesRelatedInstances")
    return RemoteSeries(
        study=text_of(study, "StudyInstanceUID"),
        uid=text_of(entry, "SeriesInstanceUID"),
        patient=(" ".join(value("PatientName").replace("^", " ").split()), value("PatientID")),
        date=f"{date[:4]}-{date[4:6]}-{date[6:8]}" if re.fullmatch(r"\d{8}", date) else "",
        modality=value("Modality"),
        study_description=value("StudyDescription"),
        description=value("SeriesDescription"),
        images=int(images) if images.isdecimal() else None,
    )


def _matches(series: RemoteSeries, query: Query) -> bool:
    """Whether a series has the modality and description, which not every server searches for."""
    modality, words = query.modality.strip().casefold(), query.description.strip().casefold()
    texts = (series.study_description, series.description)
    return (not modality or series.modality.casefold() == modality) and any(words in text.casefold() for text in texts)


def _filters(query: Query) -> dict[str, str]:
    filters = {"StudyDate": dicom_dates(query.date), "ModalitiesInStudy": query.modality.strip().upper()}
    return {keyword: value for keyword, value in filters.items() if value}


def dicom_dates(text: str) -> str:
    """A day or a range of days as DICOM writes it: ``20240301-20240331``; empty for an empty text.

    Raises:
        PacsError: it is neither.
    """
    parts = [part.strip() for part in text.split(":")]
    try:
        days = [datetime.strptime(part.replace("-", ""), "%Y%m%d").strftime("%Y%m%d") if part else "" for part in parts]
    except ValueError:
        days = []
    if len(days) not in (1, 2) or (len(days) == 2 and not any(days)) or (all(days) and days != sorted(days)):
        msg = f"'{text}' is not a date. Write it as 2024-03-05, or from and to as 2024-03-01:2024-03-31."
        raise PacsError(msg)
    return "-".join(days)


def summary(found: Found) -> str:
    """How many series and studies there are: "3 series in 2 studies"."""
    studies = len({series.study for series in found.series})
    noun = "study" if studies == 1 else "studies"
    return f"{len(found.series)} series in {studies} {noun}" if found.series else "No series"
