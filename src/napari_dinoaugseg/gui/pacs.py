"""A PACS in the panel: the windows in which a series is searched for and fetched, and masks are sent back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.compat import isalive
from qtpy.QtCore import QSettings, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_dinoaugseg.errors import DinoAugSegError, PacsError
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.widgets import (
    Elided,
    ask_for_file,
    ask_for_folder,
    button,
    cache_folder,
    column,
    confirmed,
    row,
    sentence,
)
from napari_dinoaugseg.gui.words import counted, in_words
from napari_dinoaugseg.learning.events import Cancel, Notice, Progress
from napari_dinoaugseg.pacs import credentials
from napari_dinoaugseg.pacs.fetch import fetch, folder_name
from napari_dinoaugseg.pacs.find import Found, Query, RemoteSeries, find, summary
from napari_dinoaugseg.pacs.send import Sent, send
from napari_dinoaugseg.pacs.server import Server, checked_url, require_usable

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

Result = TypeVar("Result")
Events = Generator[Progress | Notice, None, Result]

_COLUMNS = ("Date", "Patient", "ID", "Modality", "Study", "Series", "Images")
_MODALITIES = ("", "CT", "MR", "PT", "US", "CR", "DX", "MG", "XA", "NM", "SEG", "RTSTRUCT")
_PUBLIC = "the public authorities"


class ConnectionForm(QGroupBox):
    """Address, user, password or token, and certificate authority of a PACS.

    The address, the user and the place of the certificate are remembered, the password only by the system's keyring.
    """

    def __init__(self) -> None:
        super().__init__("PACS")
        self.address = QLineEdit()
        self.address.setPlaceholderText("https://pacs.example.org/dicom-web")
        self.address.setToolTip("The address of its DICOMweb service, from its administrator")
        self.user = QLineEdit()
        self.user.setPlaceholderText("none, or sign in with a token")
        self.secret = QLineEdit()
        self.secret.setEchoMode(QLineEdit.EchoMode.Password)
        self.secret.setPlaceholderText("empty: from the keyring")
        self.remember = QCheckBox("Keep it in the keyring")
        self.remember.setToolTip("The keyring of this computer keeps it encrypted; it is never written to a file")
        self.authority = Elided()
        self.ca: Path | None = None
        choose = button("Choose…", "A file (PEM) with the certificate authority of the hospital", self._choose)
        public = button("Public", "Trust the public authorities again", lambda: self._trust(None))
        self.warning = sentence()
        form = QFormLayout(self)
        form.addRow("Address", self.address)
        form.addRow("User", self.user)
        form.addRow("Password or token", row(self.secret, self.remember, stretch=0))
        form.addRow("Certificate", row(self.authority, choose, public, stretch=0))
        form.addRow(self.warning)
        self.address.textChanged.connect(self._warn)
        self._recall()
        self._warn()

    def server(self) -> Server:
        """What the fields say. Raises PacsError if the address is none, or nothing may be contacted."""
        require_usable()
        return Server(checked_url(self.address.text()), self.user.text().strip(), self.secret.text(), self.ca)

    def keep(self) -> None:
        """Remember all but the password for the next time."""
        kept = _kept()
        kept.setValue("address", self.address.text().strip())
        kept.setValue("user", self.user.text().strip())
        kept.setValue("ca", str(self.ca or ""))

    def _recall(self) -> None:
        kept = _kept()
        self.address.setText(str(kept.value("address") or ""))
        self.user.setText(str(kept.value("user") or ""))
        self._trust(Path(str(kept.value("ca"))) if kept.value("ca") else None)

    def _choose(self) -> None:
        path = ask_for_file(self, "weights", "Certificate authority", "Certificates (*.pem *.crt *.cer);;All files (*)")
        if path is not None:
            self._trust(path)

    def _trust(self, ca: Path | None) -> None:
        self.ca = ca
        self.authority.show_text(str(ca) if ca is not None else _PUBLIC)

    def _warn(self) -> None:
        is_open = self.address.text().strip().lower().startswith("http:")
        self.warning.setText("This address is not encrypted: password and images can be read on the way.")
        self.warning.setVisible(is_open)


class PacsWork(QWidget):
    """Runs one request after another in the background, with a bar, a button to stop, and what came of it.

    Args:
        controller: of the panel, whose jobs these are.
        form: the server.
        changed: called when a request begins or ends.
    """

    def __init__(self, controller: Controller, form: ConnectionForm, changed: Callable[[], None]) -> None:
        super().__init__()
        self.controller, self.form = controller, form
        self._changed = changed
        self._stop: Callable[[], None] = lambda: None
        self.bar = QProgressBar()
        self.stop_button = button("Stop", "Cancel; nothing incomplete is kept", lambda: self._stop())
        self.message = sentence()
        column(self, row(self.bar, self.stop_button, stretch=0), self.message, margins=(0, 0, 0, 0))
        for widget in (self.bar, self.stop_button):
            widget.hide()
        progressed, refreshed = controller.progressed, controller.changed
        progressed.connect(self._on_progress)
        refreshed.connect(self._on_change)

        def disconnect(*_: object) -> None:
            progressed.disconnect(self._on_progress, missing_ok=True)
            refreshed.disconnect(self._on_change, missing_ok=True)

        self.destroyed.connect(disconnect)

    def run(self, name: str, work: Callable[[Server, Cancel], Events[Result]], done: Callable[[Result], None]) -> None:
        """Do something with the server; `done` receives the result, the message any error.

        Args:
            name: of the job: "Searching the PACS".
            work: called in the background.
            done: called on the thread of the interface, unless it was stopped.
        """
        cancel, notices = Cancel(), list[str]()
        try:
            server, remember = self.form.server(), self.form.remember.isChecked()
            self.controller.jobs.start(
                name,
                lambda: _signed(server, work, cancel, notices, remember=remember),
                lambda result: self._end(cancel, done, result, notices),
                cancel,
                self._fail,
            )
        except DinoAugSegError as error:
            self.show_text(in_words(error))
            return
        self._stop = cancel.set
        self.show_text(f"{name}…")
        self.bar.setRange(0, 0)
        for widget in (self.bar, self.stop_button):
            widget.show()
        self._changed()

    def show_text(self, text: str) -> None:
        """Show a sentence below the bar."""
        self.message.setText(text)

    def stop(self) -> None:
        """Stop the running request."""
        self._stop()

    def _on_progress(self, event: Progress) -> None:
        if event.stage in ("search", "fetch", "store") and self.bar.isVisible():
            self.bar.setRange(0, max(1, event.total))
            self.bar.setValue(event.done)
            self.show_text(f"{event.words.capitalize()}.")

    def _on_change(self, what: Change) -> None:
        if what & Change.WORK:
            self._changed()

    def _end(self, cancel: Cancel, done: Callable[[Result], None], result: Result, notices: list[str]) -> None:
        if not isalive(self):  # type: ignore[no-untyped-call]
            return  # the window was closed, and what it did was stopped
        self._rest()
        self.form.keep()
        if cancel:
            self.show_text("Stopped.")
            return
        done(result)
        if notices and isalive(self):  # type: ignore[no-untyped-call]
            self.show_text(" ".join([self.message.text(), *map(in_words, notices)]))

    def _fail(self, error: Exception) -> None:
        if not isalive(self):  # type: ignore[no-untyped-call]
            return
        self._rest()
        if isinstance(error, DinoAugSegError):
            self.show_text(in_words(error))
        else:
            self.controller.show_error(error)

    def _rest(self) -> None:
        self._stop = lambda: None
        for widget in (self.bar, self.stop_button):
            widget.hide()


class FindDialog(QDialog):
    """Search a PACS, and fetch one series to a folder.

    Args:
        controller: of the panel.
        parent: the widget below.
        then: receives the folder of a fetched series.
        verb: what then happens with it: "open", "add".
    """

    def __init__(
        self, controller: Controller, parent: QWidget, then: Callable[[Path], None], verb: str = "open"
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Open from PACS" if verb == "open" else "Add from PACS")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.controller, self._then = controller, then
        self._series: list[RemoteSeries] = []
        self.form = ConnectionForm()
        self.patient, self.date, self.description = QLineEdit(), QLineEdit(), QLineEdit()
        self.patient.setPlaceholderText("ID, or a part of the name")
        self.date.setPlaceholderText("2024-03-05, or 2024-03-01:2024-03-31")
        self.description.setPlaceholderText("a part of the text of study or series")
        self.modality = QComboBox()
        self.modality.setEditable(True)
        self.modality.addItems(list(_MODALITIES))
        for field in (self.form.address, self.form.user, self.form.secret):
            field.returnPressed.connect(self._search)
        for field in (self.patient, self.date, self.description):
            field.returnPressed.connect(self._search)
        self.search_button = button("Search", "List the series that match", self._search)
        self.table = _table()
        self.table.itemSelectionChanged.connect(self._refresh)
        self.table.doubleClicked.connect(lambda *_: self._fetch())
        self.fetch_button = button(
            f"Fetch and {verb}…", "Fetch the selected series to a folder of your choice", self._fetch
        )
        self.close_button = button("Close", "Close this window; what is fetched stays", self.reject)
        self.work = PacsWork(controller, self.form, self._refresh)
        self._arrange()
        self._refresh()

    def _arrange(self) -> None:
        search = QGroupBox("Search for")
        form = QFormLayout(search)
        form.addRow("Patient", self.patient)
        form.addRow("Date", self.date)
        form.addRow("Modality", self.modality)
        form.addRow("Description", row(self.description, self.search_button, stretch=0))
        above = QHBoxLayout()
        above.addWidget(self.form, 1)
        above.addWidget(search, 1)
        below = row(self.fetch_button, self.close_button)
        layout = column(self, above, self.table, self.work, below, margins=(8, 8, 8, 8), spacing=6)
        layout.setStretch(1, 1)
        _press_none_with_enter(self)
        self.resize(980, 560)

    def done(self, result: int) -> None:
        """Close the window, and give up what it fetches."""
        self.work.stop()
        super().done(result)

    def _refresh(self) -> None:
        idle = not self.controller.jobs.busy
        self.search_button.setEnabled(idle)
        self.fetch_button.setEnabled(idle and self._selected() is not None)

    def _selected(self) -> RemoteSeries | None:
        lines = {index.row() for index in self.table.selectedIndexes()}
        return self._series[lines.pop()] if len(lines) == 1 else None

    def _search(self) -> None:
        if self.controller.jobs.busy:
            self.work.show_text(f"{self.controller.jobs.name} is still running. Wait for it, or stop it in the panel.")
            return
        query = Query(self.patient.text(), self.date.text(), self.modality.currentText(), self.description.text())
        self._show([])
        self.work.run("Searching the PACS", lambda server, cancel: find(server, query, cancel), self._found)

    def _found(self, found: Found) -> None:
        self._show(found.series)
        advice = "Select one, and fetch it." if found.series else "Search with fewer terms, or check the spelling."
        self.work.show_text(" ".join([f"{summary(found)}.", *found.notices, advice]))
        if found.series:
            self.table.selectRow(0)
            self.table.setFocus()

    def _show(self, series: Sequence[RemoteSeries]) -> None:
        self._series = list(series)
        self.table.setRowCount(len(series))
        for line, entry in enumerate(series):
            images = "" if entry.images is None else str(entry.images)
            texts = (entry.date, *entry.patient, entry.modality, entry.study_description, entry.description, images)
            for place, text in enumerate(texts):
                self.table.setItem(line, place, QTableWidgetItem(text))
        if series:
            self.table.resizeColumnsToContents()

    def _fetch(self) -> None:
        series = self._selected()
        if series is None or self.controller.jobs.busy:
            return
        name = folder_name(series)
        place = ask_for_folder(self, "case", f"Where to make the folder {name}")
        if place is None:
            return
        folder = place / name
        if folder.is_dir() and any(folder.iterdir()):
            text = f"{folder} exists: the series was fetched before. Use the images in it?"
            if confirmed(self, "Use what is there?", text):
                self._use(folder)
            return
        self.work.run(
            "Fetching from the PACS",
            lambda server, cancel: fetch(server, series.study, series.uid, folder, cancel),
            self._use,
        )

    def _use(self, folder: Path | None) -> None:
        if folder is not None:
            self.accept()
            self._then(folder)


class SendDialog(QDialog):
    """Send the mask of the open case to its study on a PACS.

    Args:
        controller: of the panel.
        parent: the widget below.
        write: writes a mask to a file whose suffix is the format; called in the background.
        suffixes: of the formats that the case has, DICOM SEG and RTSTRUCT among them.
        sent: receives what was stored.
    """

    def __init__(
        self,
        controller: Controller,
        parent: QWidget,
        write: Callable[[Path], object],
        suffixes: Sequence[str],
        sent: Callable[[str], None],
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Send to PACS")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.controller, self._write, self._tell = controller, write, sent
        self.form = ConnectionForm()
        self.kinds = {".dcm": QCheckBox("DICOM SEG (voxels)"), ".rtstruct.dcm": QCheckBox("RTSTRUCT (contours)")}
        for suffix, box in self.kinds.items():
            box.setEnabled(suffix in suffixes)
            box.setChecked(suffix == ".dcm" and suffix in suffixes)
            box.toggled.connect(lambda *_: self._refresh())
        self.send_button = button("Send", "Store it in the study whose images were segmented", self._send)
        self.close_button = button("Close", "Close this window", self.reject)
        self.work = PacsWork(controller, self.form, self._refresh)
        text = sentence("Each becomes a new series of the study that the images came from. No image is changed.")
        parts = (self.form, text, row(*self.kinds.values()), self.work, row(self.send_button, self.close_button))
        column(self, *parts, margins=(8, 8, 8, 8), spacing=6)
        _press_none_with_enter(self)
        self.resize(560, 340)
        self._refresh()

    def done(self, result: int) -> None:
        """Close the window, and stop before the next file."""
        self.work.stop()
        super().done(result)

    def _refresh(self) -> None:
        ticked = any(box.isChecked() for box in self.kinds.values())
        self.send_button.setEnabled(ticked and not self.controller.jobs.busy)

    def _send(self) -> None:
        suffixes = [suffix for suffix, box in self.kinds.items() if box.isChecked()]

        def work(server: Server, cancel: Cancel) -> Events[list[Sent]]:
            with tempfile.TemporaryDirectory(prefix="dinoaugseg_") as folder:
                files = [Path(folder, f"mask{suffix}") for suffix in suffixes]
                for file in files:
                    self._write(file)
                return (yield from send(server, files, cancel))

        self.work.run("Sending to the PACS", work, self._sent)

    def _sent(self, stored: list[Sent]) -> None:
        kinds = " and ".join(entry.kind for entry in stored)
        text = f"The PACS stored {kinds} ({counted(len(stored), 'file')}) in the study."
        self.work.show_text(text)
        self._tell(text)
        for box in self.kinds.values():  # so that the next click does not store them a second time
            box.setChecked(False)


def _signed(
    server: Server,
    work: Callable[[Server, Cancel], Events[Result]],
    cancel: Cancel,
    notices: list[str],
    *,
    remember: bool,
) -> Events[Result]:
    """Do the work with the password that was typed, else with that of the keyring; then keep it if that is wanted.

    What stood in the way of keeping it is appended to the notices.
    """
    if not server.secret:
        server = replace(server, secret=credentials.remembered(server.url, server.user))
    result = yield from work(server, cancel)
    if remember and server.secret:
        try:
            credentials.remember(server.url, server.user, server.secret)
        except PacsError as error:  # the work is done all the same
            notices.append(error.message)
            yield Notice(error.message)
    return result


def _press_none_with_enter(dialog: QDialog) -> None:
    """Keep Qt from pressing a button of its own choice when Enter is pressed in a field."""
    for widget in dialog.findChildren(QPushButton):
        widget.setAutoDefault(False)


def _table() -> QTableWidget:
    table = QTableWidget(0, len(_COLUMNS))
    table.setHorizontalHeaderLabels(list(_COLUMNS))
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    header: Any = table.horizontalHeader()
    header.setStretchLastSection(True)
    return table


def _kept() -> QSettings:
    """What is remembered, without any password; a cache that can be cleared."""
    return QSettings(str(cache_folder() / "pacs.ini"), QSettings.Format.IniFormat)
