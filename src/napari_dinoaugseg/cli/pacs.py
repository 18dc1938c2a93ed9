"""`dinoaugseg pacs`: find series on a PACS, fetch one, send masks back."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from napari_dinoaugseg.case.files import counted
from napari_dinoaugseg.cli.options import Json, Offline, takes
from napari_dinoaugseg.cli.output import ProgressLine, note, print_json, print_text, tell
from napari_dinoaugseg.errors import PacsError
from napari_dinoaugseg.learning.events import Cancel

pacs = typer.Typer(
    help="Find series on a PACS by DICOMweb, fetch one to a folder, and send DICOM SEG and RTSTRUCT back.",
    no_args_is_help=True,
)


@dataclass(frozen=True, kw_only=True)
class PacsOptions:
    """Where the PACS is, and as whom."""

    url: Annotated[
        str,
        typer.Argument(help="Address of the DICOMweb service, as https://pacs.example.org/dicom-web.", metavar="URL"),
    ]
    user: Annotated[
        str,
        typer.Option(
            help="User name; the password is asked for, or read from the keyring or DINOAUGSEG_PACS_PASSWORD.",
            show_default="nobody",
        ),
    ] = ""
    token: Annotated[bool, typer.Option("--token", help="Sign in with a token instead of a name and password.")] = False
    ca: Annotated[
        Path | None,
        typer.Option(help="File (PEM) of the certificate authority of the hospital.", show_default="the public ones"),
    ] = None
    remember: Annotated[
        bool, typer.Option("--remember", help="Keep the password or token in the keyring of this computer.")
    ] = False
    ask: Annotated[
        bool,
        typer.Option("--ask", help="Ask for the password or token also if the keyring has one, and forget that one."),
    ] = False
    offline: Offline = False
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class FindOptions(PacsOptions):
    """What to search for."""

    patient: Annotated[str, typer.Option(help="Patient ID, or a part of the name.", show_default="any")] = ""
    date: Annotated[
        str, typer.Option(help="Day of the study, as 2024-03-05, or 2024-03-01:2024-03-31.", show_default="any")
    ] = ""
    modality: Annotated[str, typer.Option(help="CT, MR …", show_default="any")] = ""
    description: Annotated[
        str, typer.Option(help="A part of the description of study or series.", show_default="any")
    ] = ""


@dataclass(frozen=True, kw_only=True)
class GetOptions(PacsOptions):
    """What to fetch, and where it goes."""

    study: Annotated[str, typer.Option(help="UID of the study, from `pacs find`.")]
    out: Annotated[Path, typer.Option(help="Folder for the images of the series; it must be new or empty.")]
    series: Annotated[
        str | None,
        typer.Option(help="UID of the series, or a part of its description.", show_default="the only one of images"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SendOptions(PacsOptions):
    """What to send."""

    files: Annotated[list[Path], typer.Argument(help="DICOM SEG and RTSTRUCT files.", metavar="FILE…")]


@pacs.command()
@takes(FindOptions)
def find(options: FindOptions) -> None:
    """List the series of the studies that match, with the UIDs that `get` needs."""
    from napari_dinoaugseg.pacs.find import Query, summary
    from napari_dinoaugseg.pacs.find import find as search

    query = Query(options.patient, options.date, options.modality, options.description)
    signed = _Signed(options)
    line = ProgressLine()
    with line.live():
        found = line.run(search(signed.server, query, Cancel()))
    signed.keep()
    for notice in found.notices:
        note(notice)
    if options.json:
        print_json({"series": [vars(series) for series in found.series]})
        return
    for series in found.series:
        name, identifier = series.patient
        images = "" if series.images is None else f", {series.images} images"
        texts = " / ".join(text for text in (series.study_description, series.description) if text)
        print_text(
            f"{series.date or 'no date'}  {name or 'no name'} ({identifier or 'no ID'})  {series.modality}  "
            f"{texts or 'no description'}{images}\n    --study {series.study} --series {series.uid}"
        )
    advice = "" if found.series else " Search with fewer terms, or check the spelling."
    tell(f"{summary(found)}.{advice}")


@pacs.command()
@takes(GetOptions)
def get(options: GetOptions) -> None:
    """Fetch a series to a folder: all its images, or none."""
    from napari_dinoaugseg.pacs.fetch import fetch_chosen

    signed = _Signed(options)
    line = ProgressLine()
    with line.live():
        line.run(fetch_chosen(signed.server, options.study, options.series, options.out.absolute(), Cancel()))
    signed.keep()
    images = sum(1 for _ in options.out.iterdir())
    if options.json:
        print_json({"folder": str(options.out), "images": images})
    else:
        print_text(f"{counted(images, 'image')} {'is' if images == 1 else 'are'} in {options.out}.")


@pacs.command()
@takes(SendOptions)
def send(options: SendOptions) -> None:
    """Send masks (DICOM SEG, RTSTRUCT) back to the study whose images they were drawn on."""
    from napari_dinoaugseg.pacs.send import send as store

    signed = _Signed(options)
    line = ProgressLine()
    with line.live():
        try:
            stored = line.run(store(signed.server, options.files, Cancel()))
        except KeyboardInterrupt:
            tell("Stopped. The PACS may have stored some of the files already; search for them there.")
            raise typer.Exit(130) from None
    signed.keep()
    if options.json:
        print_json({"stored": [{**vars(entry), "path": str(entry.path)} for entry in stored]})
        return
    for entry in stored:
        print_text(f"{entry.path}: stored as {entry.kind} in the study {entry.study}.")


class _Signed:
    """The server of a command, with the password or token that the person gives.

    Attributes:
        server: where, and as whom.
    """

    def __init__(self, options: PacsOptions) -> None:
        from napari_dinoaugseg.pacs import credentials
        from napari_dinoaugseg.pacs.server import SECRET_VARIABLE, Server, checked_url, require_usable

        user = options.user
        if user and options.token:
            msg = "Use either --user or --token."
            raise typer.BadParameter(msg)
        require_usable()  # before anything is asked
        secret, url = "", checked_url(options.url)
        if user or options.token:
            if options.ask:
                credentials.forget(url, user)
            secret = os.environ.get(SECRET_VARIABLE, "") or credentials.remembered(url, user)
            if not secret or options.ask:
                secret = _typed("Token" if options.token else f"Password of {user}")
        self._remember = options.remember
        self.server = Server(url, user, secret, options.ca)
        if secret and not self.server.is_encrypted:
            note(f"{url} is not encrypted: password and images can be read on the way (https:// would be).")

    def keep(self) -> None:
        """Keep what was typed, now that the PACS has accepted it."""
        from napari_dinoaugseg.pacs import credentials

        if self._remember and self.server.secret:
            try:
                credentials.remember(self.server.url, self.server.user, self.server.secret)
            except PacsError as error:  # what was asked for is done all the same
                note(error.message)


def _typed(what: str) -> str:
    """A password or token, which is not shown. Raises PacsError where nobody can type."""
    from napari_dinoaugseg.pacs.server import SECRET_VARIABLE

    if not sys.stdin.isatty():
        msg = f"A password or token is missing. Set the environment variable {SECRET_VARIABLE}, or use a terminal."
        raise PacsError(msg)
    return str(typer.prompt(what, hide_input=True, err=True))
