"""The project that a viewer works on: its cases, which one is open, in which order they are gone through."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.case.files import natural_key
from napari_dinoaugseg.case.intensity import opening_window
from napari_dinoaugseg.cluster import compute_for
from napari_dinoaugseg.errors import CaseError, DinoAugSegError, LongVideoError, ProjectError, SeveralVolumesError
from napari_dinoaugseg.gui.ahead import Ahead, Task
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.saving import Loaded, sessions_root, show_view, when
from napari_dinoaugseg.gui.thumbnails import Thumbnail, keep_thumbnail, read_thumbnail, thumbnail_of
from napari_dinoaugseg.gui.widgets import single_shot, stop
from napari_dinoaugseg.gui.words import counted, in_words
from napari_dinoaugseg.learning.events import Cancel, Notice
from napari_dinoaugseg.session.active_time import ActiveTime
from napari_dinoaugseg.session.earlier import take_earlier
from napari_dinoaugseg.session.project import CaseStatus, MissingCaseError, Project, ProjectCase, is_project

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.learning.query import ProjectSuggestion
    from napari_dinoaugseg.learning.settings import Settings
    from napari_dinoaugseg.session.adding import Addition
    from napari_dinoaugseg.session.compute import ComputeConfig
    from napari_dinoaugseg.session.index import Snapshot
    from napari_dinoaugseg.session.labels import LabelClass
    from napari_dinoaugseg.session.session import Session
    from napari_dinoaugseg.session.store import SessionStore

_SOON = 400  # ms from a change of settings to its saving, because a contrast slider sends many
_WORK = Change.LABELS | Change.CLASSES | Change.SELECTION | Change.SLICE | Change.TOOL | Change.WINDOW
_LISTED_ERRORS = 5

Column = Literal["name", "manual", "accepted", "predicted", "confidence", "done"]

T = TypeVar("T")


@dataclass
class Opened:
    """A project as it was found on disk.

    Attributes:
        project: it holds the lock, unless another program does.
        statuses: of its cases by number.
        thumbnails: of its cases by number, where one is kept.
    """

    project: Project
    statuses: dict[int, CaseStatus] = field(default_factory=dict)
    thumbnails: dict[int, Thumbnail] = field(default_factory=dict)


@dataclass
class Added:
    """The end of adding cases.

    Attributes:
        new: how many were added.
        known: how many have the pixels of a case that was there already.
        labelled: how many brought labels of an earlier session.
        notices: why labels of earlier sessions were left behind.
        errors: why the others could not be added.
        several: files with several volumes, and videos with many frames, and how many.
    """

    new: int = 0
    known: int = 0
    labelled: int = 0
    notices: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    several: list[tuple[Addition, int]] = field(default_factory=list)


class CaseOrder:
    """Which cases the table shows, in which order; "next" means the next one in it.

    The order changes only when somebody asks for it, so that no row moves away under the mouse.

    Attributes:
        column: by which the cases are sorted.
        descending: whether the highest comes first.
        text: each word of it is in the names of the cases.
        cases: in their order.
    """

    def __init__(self, work: ProjectWork) -> None:
        self._work = work
        self.column: Column = "name"
        self.descending = False
        self.text = ""
        self.cases: list[ProjectCase] = []

    def reset(self) -> None:
        """Show all cases by their names."""
        self.column, self.descending, self.text = "name", False, ""
        self.arrange()

    def arrange(self, column: Column | None = None, *, descending: bool | None = None, text: str | None = None) -> None:
        """Sort and filter the cases; None keeps what was asked for last."""
        self.column = self.column if column is None else column
        self.descending = self.descending if descending is None else descending
        self.text = self.text if text is None else text
        project = self._work.current
        words = self.text.casefold().split()
        shown = [case for case in project.cases if self._has(case, words)] if project is not None else []
        shown.sort(key=lambda case: natural_key(case.name))
        if self.column == "name":
            shown = shown[::-1] if self.descending else shown
        else:
            shown.sort(key=self._key, reverse=self.descending)
        self.cases = shown
        self._work.controller.touch(Change.PROJECT)

    def append(self, case: ProjectCase) -> None:
        """Show a new case at the end."""
        if case not in self.cases:
            self.cases = [*self.cases, case]

    def renew(self, statuses: Mapping[int, CaseStatus]) -> None:
        """Show how far cases are that were changed on disk, by their numbers."""
        self._work._statuses.update(statuses)
        self._work.controller.touch(Change.PROJECT)

    def drop(self, case: ProjectCase) -> None:
        """Show a case no longer."""
        self.cases = [entry for entry in self.cases if entry is not case]

    @staticmethod
    def _has(case: ProjectCase, words: Sequence[str]) -> bool:
        return all(word in case.name.casefold() for word in words)

    def _key(self, case: ProjectCase) -> float:
        status = self._work.status(case)
        values: dict[Column, float] = {
            "manual": status.n_manual,
            "accepted": status.n_accepted,
            "predicted": status.n_predicted,
            "confidence": 2.0 if status.confidence is None else status.confidence,
            "done": case.is_done,
        }
        return values[self.column]


class ProjectWork(QObject):
    """The project of one viewer. Used on the GUI thread; work on files and pixels runs as a job.

    Attributes:
        controller: of the viewer.
        current: the project; None if none is open.
        case: the case of it that is open; None if none is.
        thumbnails: of cases by number.
        order: of the cases in the table.
        missing: the case whose image was last looked for in vain; None after it was found.
        ahead: predicts the next cases while the person works on this one.
    """

    several_found = Signal(object)  # files with several volumes, of which the person has to choose: Addition and count
    _added = Signal(object, object)  # from the adding thread: the project and a case
    _classes_kept = Signal(object, object)  # from the writing thread: the project, see `Project.keep_snapshot`

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.current: Project | None = None
        self.case: ProjectCase | None = None
        self.thumbnails: dict[int, Thumbnail] = {}
        self.order = CaseOrder(self)
        self.missing: ProjectCase | None = None
        self.ahead = Ahead(self._next_task, self._on_ahead)
        self._statuses: dict[int, CaseStatus] = {}
        self._live: CaseStatus | None = None  # of the open case, until its labels change
        self._wanted: tuple[ProjectCase, int | None] | None = None  # to be opened when the running job has ended
        self._opening: ProjectCase | None = None  # is read just now
        self._refused: ProjectCase | None = None  # the last case asked for, if it could not be opened
        self._unopened: set[int] = set()  # numbers of the cases that could not be opened when they were last tried
        self._clock = ActiveTime()
        self._settings_timer = single_shot(self._save_settings, self)
        self._removed_classes: dict[int, str] = {}  # names by number, until it is known whether the project keeps them
        self._added.connect(self._on_added)
        self._classes_kept.connect(self._on_classes_kept)

    # --- what is open -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the project; empty if none is open."""
        return self.current.folder.name if self.current is not None else ""

    @property
    def held(self) -> tuple[Project, ProjectCase] | None:
        """The project with its open case; None if the open case belongs to no project."""
        return (self.current, self.case) if self.current is not None and self.case is not None else None

    @property
    def read_only(self) -> str:
        """Why the project cannot be changed, a sentence; empty if it can, or if there is none."""
        return self.current.reason if self.current is not None else ""

    @property
    def place(self) -> str:
        """The place of the open case in the table: ``Project liver: case 3 of 20``; empty without a project."""
        if self.current is None:
            return ""
        shown = self.order.cases
        at = next((place for place, case in enumerate(shown, start=1) if case is self.case), None)
        if at is None:
            return f"Project {self.name}: {counted(len(self.current.cases), 'case')}"
        return f"Project {self.name}: case {at} of {len(shown)}"

    def find(self, number: int) -> ProjectCase | None:
        """The case with a number."""
        cases = self.current.cases if self.current is not None else []
        return next((case for case in cases if case.number == number), None)

    def status(self, case: ProjectCase) -> CaseStatus:
        """How far a case is; the open one as it is in memory."""
        session = self.controller.session
        if case is self.case and session is not None:
            if self._live is None:
                self._live = CaseStatus.of(session.labels)
            return self._live
        return self._statuses.get(case.number) or CaseStatus(case.record.n_slices, 0, 0, 0, None, ())

    @property
    def labelled_elsewhere(self) -> dict[int, tuple[int, ...]]:
        """The labelled slices of the cases that are not open, by their numbers."""
        cases = self.current.cases if self.current is not None else []
        found = {case.number: self.status(case).labelled for case in cases if case is not self.case}
        return {number: slices for number, slices in found.items() if slices}

    @property
    def unlearnt(self) -> int:
        """How many labelled slices of all cases the last training did not have."""
        if self.current is None:
            return 0
        known = self.current.trainings[-1].slices if self.current.trainings else {}
        labelled = ((case.number, self.status(case).labelled) for case in self.current.cases)
        return sum(len(set(slices) - set(known.get(number, ()))) for number, slices in labelled)

    # --- opening and closing a project ------------------------------------------------------------------------------

    @guarded
    def create(self, folder: Path) -> None:
        """Create a project in a new or empty folder, with the settings of the panel."""
        if is_project(folder):
            msg = f"{folder}: there is a project already. Choose 'Open project…', or name another folder."
            raise ProjectError(msg)
        self._open(folder, self.controller.setup.settings)

    @guarded
    def open_folder(self, folder: Path) -> None:
        """Open the project in a folder."""
        if not is_project(folder):
            msg = f"{folder}: this is not the folder of a project. Choose 'New project…' to make one."
            raise ProjectError(msg)
        current = self.current
        if current is not None and folder.resolve() == current.folder.resolve() and not self.read_only:
            return
        self._open(folder, None)

    def _open(self, folder: Path, settings: Settings | None) -> None:
        config, notify = self.controller.setup.compute_config, self.controller.jobs.notify_later

        def work() -> Opened:
            project = Project(folder, settings=settings, config=config, make_compute=compute_for, notify=notify)
            opened = Opened(project)
            for case in project.cases:
                opened.statuses[case.number] = project.status(case, quick=True)
                thumbnail = read_thumbnail(case.record)
                if thumbnail is not None:
                    opened.thumbnails[case.number] = thumbnail
            return opened

        self.controller.jobs.run("Opening the project", work, self._take)

    def _take(self, opened: Opened) -> None:
        """Show a project that was opened, and its first case that is not done."""
        self.controller.cases.close()
        self._begin(opened)
        if self.read_only:
            self.controller.notify(self.read_only, "notice")
        self._open_first()

    def _open_first(self) -> None:
        """Open the first case that is not done, or the first of all."""
        cases = self.order.cases
        if cases:
            self.open_case(next((case for case in cases if not case.is_done), cases[0]))

    def _begin(self, opened: Opened) -> None:
        """Make a project the current one."""
        self.close()
        self.current, self._statuses, self.thumbnails = opened.project, opened.statuses, opened.thumbnails
        self.order.reset()
        self.controller.setup.take(opened.project.settings)
        self._show_title()
        self.controller.touch(Change.PROJECT)

    @guarded
    def make(self, folder: Path) -> None:
        """Make a project with the open case as its first: with its labels, predictions, classes and model."""
        controller = self.controller
        session = self._alone(folder)
        settings, config = controller.setup.settings, controller.setup.compute_config
        path, options = controller.cases.source or session.case.path, dict(controller.cases.options)
        options["plane"] = session.case.plane
        notify = controller.jobs.notify_later

        def work() -> tuple[Opened, ProjectCase]:
            project = Project(folder, settings=settings, config=config, make_compute=compute_for, notify=notify)
            try:
                case, _ = project.add(path, **options)
                if case.record.fingerprint != session.case.fingerprint:
                    msg = f"{case.path}: the file was changed since it was opened. Open it again."
                    raise CaseError(msg)
                if case.record.kind == "volume":
                    project.plane = case.record.plane  # other cases are sliced alike
                    project.save()
                if session.is_trained:
                    project.use_model_of(session)
                return Opened(project, {}, {case.number: self._picture(project, case)}), case
            except BaseException:
                project.discard()
                raise

        def done(made: tuple[Opened, ProjectCase]) -> None:
            if session is controller.session:
                self._take_with(session, *made)
            else:
                made[0].project.discard()

        controller.jobs.run("Making the project", work, done)

    def _alone(self, folder: Path) -> Session:
        """The session of a case that is open by itself. Raises ProjectError, CaseError if it cannot go to a folder."""
        self.controller.require_writable()
        self.controller.flush()
        session = self.controller.session
        if session is None or self.current is not None:
            msg = "Open a case by itself first; it becomes the first case of the project."
            raise ProjectError(msg)
        if is_project(folder):
            msg = f"{folder}: there is a project already. Name another folder."
            raise ProjectError(msg)
        if not session.case.path.exists():
            msg = f"{session.case.name} was not opened from a file. Save the image as a file, and open that."
            raise CaseError(msg)
        return session

    def _take_with(self, session: Session, opened: Opened, case: ProjectCase) -> None:
        """Go on with the open session as that of a case of a new project."""
        controller, project = self.controller, opened.project
        store = project.store(case)
        controller.saving.end()
        self._begin(opened)
        self._start(case)
        if session.labels.confidence:
            case.predicted_by = project.model_file
        controller.saving.keep(session, store, self._saver(project, case))
        controller.sessions.forget()
        self._show_title()
        controller.touch(Change.SESSION | Change.LABELS | Change.PROJECT)
        controller.notify(f"{session.case.name} is the first case of project {self.name}, with all its labels.")

    def close(self) -> None:
        """Close the project; an open case of it has to be closed before."""
        project, self.current = self.current, None
        self.ahead.stop()
        if project is None:
            return
        self.ahead.wait(5.0)
        self._save_settings(project)
        self.controller.guarded(project.close)
        self.case, self.missing, self._wanted, self._live = None, None, None, None
        self._opening = self._refused = None
        self._unopened.clear()
        self._removed_classes.clear()
        self._statuses, self.thumbnails = {}, {}
        self.ahead.failed.clear()
        self.order.reset()
        self._show_title()
        self.controller.touch(Change.PROJECT)

    @guarded
    def try_again(self) -> None:
        """Open a project again that another program had locked."""
        if self.current is not None and self.read_only:
            self._open(self.current.folder, None)

    def leave_for(self, case: Case) -> None:
        """Close the project because a case was opened by itself."""
        name = self.name
        if self.current is not None:
            self.close()
            self.controller.notify(
                f"Project {name} was closed, its labels are saved: {case.name} was opened by itself. "
                "To add it to the project, open the project again and choose 'Add files…'.",
                "notice",
            )

    def dispose(self) -> None:
        """End with the viewer."""
        stop(self._settings_timer)
        self.close()

    def _show_title(self) -> None:
        viewer = self.controller.viewer
        if self.current is None:
            title = "napari"
        else:
            title = f"{self.case.name} · {self.place}" if self.case is not None else self.place
        if not self.controller.closed and (self.current is not None or viewer.title != "napari"):
            viewer.title = title

    # --- cases ------------------------------------------------------------------------------------------------------

    @guarded
    def add(self, additions: Sequence[Addition], notices: Iterable[str] = ()) -> None:
        """Add cases; one that cannot be added does not stop the others."""
        project = self._require_project()
        cancel, root = Cancel(), sessions_root()

        def source() -> Generator[Any, None, Added]:
            added = Added()
            for sentence in notices:
                yield Notice(sentence)
            for addition in additions:
                if cancel:
                    break
                path = addition.path if isinstance(addition.path, Path) else list(addition.path)
                try:
                    case, is_new = project.add(
                        path,
                        plane=project.plane,
                        series=addition.series,
                        component=addition.component,
                        every=addition.every,
                        name=addition.name,
                    )
                    earlier = take_earlier(project, case, root) if is_new else None
                    picture = self._picture(project, case)
                except (SeveralVolumesError, LongVideoError) as error:
                    added.several.append((addition, error.count))
                except DinoAugSegError as error:
                    added.errors.append(in_words(error))
                else:
                    added.new, added.known = added.new + is_new, added.known + (not is_new)
                    if earlier is not None and earlier.reason:
                        saved = when(earlier.saved)
                        reason = in_words(earlier.reason)
                        added.notices.append(f"{case.name}: labels of {saved} were left behind. {reason}")
                    elif earlier is not None:
                        added.labelled += 1
                    self._added.emit(project, (case, picture, project.status(case, quick=True)))
                yield None
            return added

        self.controller.jobs.start("Adding cases", source, self._on_all_added, cancel)

    def _on_added(self, project: Project, found: tuple[ProjectCase, Thumbnail, CaseStatus]) -> None:
        case, picture, status = found
        if project is self.current:
            self.thumbnails[case.number] = picture
            self._statuses[case.number] = status
            self.order.append(case)
            self._show_title()
            self.controller.touch(Change.PROJECT)

    def _on_all_added(self, added: Added) -> None:
        self.order.arrange()
        known, errors = added.known, added.errors
        words = f"{counted(added.new, 'case')} added."
        if known:
            words = f"{words} {known} with the same pixels {'was' if known == 1 else 'were'} there already."
        if added.labelled:
            brought = "brought the labels of an earlier session, which is kept as it was"
            words = f"{words} {added.labelled} {brought}."
        words = "\n".join([words, *added.notices[:_LISTED_ERRORS]])
        if errors:
            more = f"\n… and {len(errors) - _LISTED_ERRORS} more." if len(errors) > _LISTED_ERRORS else ""
            listed = "\n".join(errors[:_LISTED_ERRORS])
            self.controller.notify(f"{words} {len(errors)} could not be added:\n{listed}{more}", "error")
        else:
            self.controller.notify(words)
        if added.several:
            self.several_found.emit(added.several)
        if self.case is None and not self.controller.jobs.busy:
            self._open_first()

    @guarded
    def remove(self, case: ProjectCase) -> None:
        """Remove a case that is not open; its labels are kept in the project's folder."""
        project = self._require_project()
        if case is self.case:
            msg = f"{case.name} is open. Open another case, then remove it."
            raise ProjectError(msg)

        def done(kept: Path) -> None:
            self._statuses.pop(case.number, None)
            self.missing = None if self.missing is case else self.missing
            self.order.drop(case)
            self.controller.touch(Change.PROJECT)
            self.controller.notify(f"{case.name} was removed. Its labels are in {kept}; the image was not touched.")

        self.controller.jobs.run(f"Removing {case.name}", lambda: project.remove(case), done)

    @guarded
    def relocate(self, case: ProjectCase, path: Path) -> None:
        """Find the image of a case in another place, and open it."""
        project = self._require_project()

        def done(_: object) -> None:
            self.missing = None
            self._unopened.discard(case.number)
            self.ahead.forget(case.number)
            self.controller.touch(Change.PROJECT)
            self.open_case(case)

        self.controller.jobs.run(f"Reading {path.name}", lambda: project.relocate(case, path), done)

    # --- opening a case ---------------------------------------------------------------------------------------------

    @guarded
    def open_case(self, case: ProjectCase, index: int | None = None) -> None:
        """Save the present case and open another one, at a slice; its masks are predicted if they are out of date."""
        project, jobs = self.current, self.controller.jobs
        if project is None:
            return
        if self._opening is not None and jobs.busy:  # is read just now; this one is opened in its place
            self._wanted = case, index
            return
        self._wanted = self._refused = None
        if case is self.case:
            if index is not None:
                self.controller.view.go_to(index)
            return
        if jobs.is_predicting:
            self._wanted = case, index  # it continues in the background, or when this case is next opened
            jobs.stop()
            return
        before = jobs.count
        self._read(project, case, index)
        self._opening = case if jobs.count > before else None

    def _read(self, project: Project, case: ProjectCase, index: int | None) -> None:
        """Read a case in the background and show it, unless another one was asked for meanwhile."""
        is_new = not project.is_trained and not any(self.status(entry).labelled for entry in project.cases)

        def done(loaded: Loaded) -> None:
            wanted = self._end_opening()
            if project is self.current and (wanted is None or wanted[0] is case):
                self._show(project, case, loaded, index if wanted is None else wanted[1])
                return
            loaded.store.close()
            if wanted is not None:
                self.open_case(*wanted)

        def failed(error: Exception) -> None:
            wanted = self._end_opening()
            self._refused = case
            self._unopened.add(case.number)
            if isinstance(error, MissingCaseError):
                self.missing = case
                self.controller.touch(Change.PROJECT)
            if wanted is not None and wanted[0] is not case:
                self.open_case(*wanted)
            self.controller.show_error(error)

        self.controller.cases.run_opening(case.name, lambda: self._load(project, case, is_new=is_new), done, failed)

    def _end_opening(self) -> tuple[ProjectCase, int | None] | None:
        """Note that a case was read; returns the one that was asked for meanwhile."""
        wanted, self._wanted, self._opening = self._wanted, None, None
        return wanted

    def _load(self, project: Project, case: ProjectCase, *, is_new: bool) -> Loaded:
        """Read a case with its labels, in another thread; the first one chooses the window of a new project."""
        opened = project.opened(case)
        if is_new and project.is_writable:
            window = opening_window(opened, project.settings.window)
            project.settings = project.settings.with_changes(window=window)
        self._picture(project, case)
        opened.intensity_range()  # the case remembers it: the interface need not compute it
        self.controller.cases.show_ahead(opened, project.settings.window)
        store = project.store(case)
        try:
            snapshot, problems = store.load()
        except BaseException:
            store.close()
            raise
        return Loaded(
            opened,
            store,
            snapshot,
            problems,
            read_only=project.reason,
            encoder=project.encoder,
        )

    def _show(self, project: Project, case: ProjectCase, loaded: Loaded, index: int | None) -> None:
        """Show a case that was opened as that of the project, and bring its masks up to date."""
        controller = self.controller
        controller.saving.secure()  # classes that were changed in the case before while this one was read
        snapshot = project.with_model(case, loaded.snapshot)
        save = self._saver(project, case, snapshot.book.classes)
        try:
            controller.cases.resume(replace(loaded, snapshot=snapshot, save=save))
        except DinoAugSegError:
            loaded.store.close()
            raise
        self._start(case)
        self._unopened.discard(case.number)
        if self.missing is case:
            self.missing = None
        if case.number not in self.thumbnails:
            self.thumbnails[case.number] = self._picture(project, case)
        controller.sessions.show_problems(loaded.problems)
        show_view(controller, loaded.snapshot.view)
        if index is not None:
            controller.view.go_to(index)
        self._show_title()
        controller.touch(Change.SESSION | Change.PROJECT)
        session = controller.session
        if session is None or not project.is_writable or not project.is_trained or not session.labels.open_slices:
            return
        if case.predicted_by != project.model_file or not session.labels.confidence:
            controller.jobs.predict()

    def _start(self, case: ProjectCase) -> None:
        """Note that the open case is this one of the project, and begin to count the time spent on it."""
        self.case, self._live = case, None
        self._clock.pause()
        self._clock.act(time.monotonic())

    def left(self) -> None:
        """Note that the open case is closed; its labels are saved by now."""
        held, session = self.held, self.controller.session
        if held is None or session is None:
            return
        project, case = held
        self._statuses[case.number] = CaseStatus.of(session.labels)
        project.encoder = session.encoder or project.encoder
        if project.is_writable:
            self.controller.guarded(project.save_case, case)
        self.case, self._live = None, None

    def _saver(
        self, project: Project, case: ProjectCase, before: Sequence[LabelClass] = ()
    ) -> Callable[[SessionStore, Snapshot], None]:
        """Saves a snapshot of a case together with what the project knows of it; called in the writing thread.

        ``before`` are the classes that its session begins with.
        """

        def save(store: SessionStore, snapshot: Snapshot) -> None:
            nonlocal before
            kept = project.keep_snapshot(case, snapshot, store, before)
            before = snapshot.book.classes
            if kept:
                with contextlib.suppress(RuntimeError):  # the program exits and the window is deleted
                    self._classes_kept.emit(project, kept)

        return save

    def _picture(self, project: Project, case: ProjectCase) -> Thumbnail:
        """The thumbnail of a case, made of its pixels where none is kept."""
        kept = read_thumbnail(case.record)
        if kept is None:
            opened = project.opened(case)
            kept = thumbnail_of(opened, opening_window(opened))
            keep_thumbnail(case.record, kept)
        return kept

    def _require_project(self) -> Project:
        """The project. Raises ProjectError if there is none, or if it cannot be changed."""
        if self.current is None:
            msg = "No project is open. Choose 'New project…' or 'Open project…' in the Project section."
            raise ProjectError(msg)
        if self.read_only:
            raise ProjectError(self.read_only)
        return self.current

    def note_removed_class(self, number: int, name: str) -> None:
        """Note that the person removed a class in the open case: the project keeps it if another case needs it."""
        if self.current is not None:
            self._removed_classes[number] = name

    def _on_classes_kept(self, project: Project, kept: dict[int, str]) -> None:
        for number, case in kept.items():
            name = self._removed_classes.pop(number, None)
            if name is not None and project is self.current:
                self.controller.notify(
                    f"'{name}' was removed here, but stays a class of project {self.name}: {case} has labels of it. "
                    "To remove it from the project, remove it there as well.",
                    "notice",
                )

    # --- from case to case ------------------------------------------------------------------------------------------

    @guarded
    def step(self, by: int) -> None:
        """Open the next case of the table (1) or the previous one (-1)."""
        cases = self.order.cases
        if self.current is None:
            self._require_project()
        if not cases:
            self.controller.notify("The table shows no case. Clear the filter, or add files.")
            return
        last = self._opening if self.controller.jobs.is_opening else self._refused
        start = self._wanted[0] if self._wanted is not None else last or self.case
        place = (cases.index(start) if start in cases else -1 if by > 0 else len(cases)) + by
        if start is self._refused and 0 <= place < len(cases) and cases[place] is self.case:
            place += by  # past the case in view
        if not 0 <= place < len(cases):
            self.controller.notify(f"This is the {'last' if by > 0 else 'first'} case of the table.")
            return
        self.open_case(cases[place])

    @guarded
    def set_done(self, case: ProjectCase, *, done: bool) -> None:
        """Set whether the person has finished a case."""
        project = self._require_project()
        case.is_done = done
        project.save_case(case)
        self.controller.touch(Change.PROJECT)

    @guarded
    def done_and_next(self) -> None:
        """Tick the open case as done, sort the table again, and open its first case that is not done."""
        self._require_project()
        if self.case is None:
            msg = "No case of the project is open. Double-click one in the table."
            raise ProjectError(msg)
        finished = self.case
        if not self.set_done(finished, done=True):
            return
        self.order.arrange()
        left = [case for case in self.order.cases if not case.is_done]
        following = next((case for case in left if case.number not in self._unopened), left[0] if left else None)
        if following is None:
            self.controller.notify(f"{finished.name} is done. Every case of the table is done: export the masks.")
        else:
            self.open_case(following)

    def suggestion(self) -> ProjectSuggestion | None:
        """The slice most worth labelling next over all cases; None if everything is done or labelled."""
        if self.current is None:
            return None
        session = self.controller.session
        held = None if self.case is None or session is None else (self.case, session)
        found = self.current.suggest(1, {case.number: self.status(case) for case in self.current.cases}, held)
        return found[0] if found else None

    @guarded
    def go_to_suggestion(self) -> None:
        """Open the suggested case at the suggested slice."""
        found = self.suggestion()
        case = self.find(found.case) if found is not None else None
        if found is None or case is None:
            self.controller.notify("Every case is done or labelled.")
            return
        self.open_case(case, found.index)

    # --- following --------------------------------------------------------------------------------------------------

    def follow(self, what: Change) -> None:
        """Follow the labels of the open case, the person's working time, and whether other work runs."""
        if self.current is None:
            return
        if what & (Change.LABELS | Change.PREDICTIONS | Change.SESSION):
            self._live = None
        if what & _WORK and self.case is not None:
            self.case.seconds += self._clock.act(time.monotonic())
        if what & Change.PROJECT:
            self._show_title()
        if what & Change.WORK:
            self._follow_work()

    def _follow_work(self) -> None:
        if self.controller.jobs.busy:
            self.ahead.stop()
            return
        wanted = self._wanted
        if wanted is not None and self._opening is None:
            self.open_case(*wanted)
        else:
            self.ahead.wake()

    @guarded
    def choose_plane(self, plane: str | None) -> None:
        """Choose the plane in which volumes are added from now on; None = that with the smallest pixels, for each."""
        project = self._require_project()
        if plane != project.plane:
            project.plane = plane
            self._settings_timer.start(_SOON)
            self.controller.touch(Change.PROJECT)

    def configure(self, settings: Settings, config: ComputeConfig) -> None:
        """Take over settings of the next training and where to compute."""
        project = self.current
        if project is None:
            return
        if config != project.config:
            self.ahead.stop()
            project.config, project.encoder = config, None
        if settings != project.settings and not self.read_only:
            project.settings = settings
            self._settings_timer.start(_SOON)

    def _save_settings(self, project: Project | None = None) -> None:
        project = project or self.current
        if project is not None and project.is_writable:
            self.controller.guarded(project.save)

    def predicted(self, session: Session) -> None:
        """Note that all open slices of the open case were predicted with the present model."""
        held = self.held
        if held is not None and session is self.controller.session:
            held[1].predicted_by = held[0].model_file
            held[0].encoder = session.encoder or held[0].encoder

    def keep_model(self, session: Session, then: Callable[[], object]) -> None:
        """Make a model that was loaded into the open case that of the project."""
        held = self.held
        if held is None:
            then()
            return

        def done(_: object) -> None:
            then()

        self.controller.jobs.run("Saving the model", lambda: held[0].use_model_of(session), done)

    def before(self, work: Callable[[], T]) -> Callable[[], T]:
        """Stop the work in the background, and let the thread of other work wait until it has stopped."""
        self.ahead.stop()

        def once_stopped() -> T:
            self.ahead.wait()
            return work()

        return once_stopped

    # --- working ahead ----------------------------------------------------------------------------------------------

    def _next_task(self) -> Task | None:
        """What to do while idle: predict the next cases of the table, and make missing thumbnails."""
        project = self.current
        if project is None or self.controller.closed or self.controller.jobs.busy or self.controller.live.learns:
            return None
        cases = self.order.cases
        if self.case in cases:
            here = cases.index(self.case)
            cases = [*cases[here + 1 :], *cases[:here]]
        for case in cases:
            if case is self.case or case.number in self.ahead.failed:
                continue
            if case.number not in self.thumbnails:
                return Task(case.number, partial(self._make_picture, project, case))
            if self._is_outdated(project, case):
                return Task(case.number, partial(self._predict, project, case))
        return None

    def _is_outdated(self, project: Project, case: ProjectCase) -> bool:
        if not (project.is_trained and project.is_writable) or case.is_done:
            return False
        return case.predicted_by != project.model_file

    def _make_picture(self, project: Project, case: ProjectCase, _: Cancel) -> Thumbnail:
        return self._picture(project, case)

    @staticmethod
    def _predict(project: Project, case: ProjectCase, cancel: Cancel) -> CaseStatus:
        project.predict(case, cancel=cancel)
        return project.status(case, quick=True)

    def _on_ahead(self, number: int, result: object) -> None:
        """Show what was done in the background."""
        if self.find(number) is None:
            return
        if isinstance(result, CaseStatus):
            self._statuses[number] = result
        elif isinstance(result, Exception):
            if isinstance(result, MissingCaseError) and self.missing is None:
                self.missing = self.find(number)
        elif result is not None:
            self.thumbnails[number] = result  # type: ignore[assignment]
        self.controller.touch(Change.PROJECT)
