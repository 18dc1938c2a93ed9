"""`dinoaugseg project`, and `dinoaugseg segment` on several cases: many cases, one model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_dinoaugseg.case.files import counted, listed, natural_key, not_found
from napari_dinoaugseg.cli.options import ProjectOptions, SegmentOptions
from napari_dinoaugseg.cli.output import ProgressLine, note, noting_once, print_json, print_text, tell, tell_error
from napari_dinoaugseg.cli.segment import check_model_output
from napari_dinoaugseg.cli.words import error_text
from napari_dinoaugseg.cluster import compute_for
from napari_dinoaugseg.errors import (
    CaseError,
    DinoAugSegError,
    ProjectError,
    SettingsError,
    TrainingError,
    one_line,
)
from napari_dinoaugseg.session.cohort import (
    Cohort,
    find_cohort,
    match_labels,
    place_results,
    prepare_folder,
)
from napari_dinoaugseg.session.foreign_masks import read_project_masks, take_project_masks
from napari_dinoaugseg.session.project import CaseStatus, Project, ProjectCase, is_project
from napari_dinoaugseg.session.project_export import masks_of, report_on, write_nnunet
from napari_dinoaugseg.session.project_report import write_project_report


@dataclass(frozen=True)
class Failure:
    """A case that could not be used, while the others could.

    Attributes:
        name: of the case, or of its file.
        reason: in one line.
    """

    name: str
    reason: str


def run_project(options: ProjectOptions) -> bool:
    """Do with a project what the options say; returns whether every case could be used."""
    started = time.monotonic()
    is_new = not is_project(options.project)
    if is_new and not options.add:
        msg = f"{options.project}: there is no project here. Check the path, or create one with --add."
        raise ProjectError(msg)
    if options.sequence and len(options.add or ()) != 1:
        msg = "--sequence belongs to one case: name that one with --add, and no other."
        raise SettingsError(msg)
    for path in (*(options.add or ()), *([options.labels] if options.labels else [])):
        if not path.exists():
            raise CaseError(not_found(path))
    with Project(options.project, config=options.compute, make_compute=compute_for, notify=noting_once()) as project:
        failures = _change(project, options)
        if is_new and not project.cases:
            project.discard()
            msg = f"{options.project}: no project was made, because none of the cases could be added."
            raise ProjectError(msg)
        if options.train:
            _train(project)
        if options.predict:
            failures += _predict(project, project.cases)
        for name in options.done or ():
            case = project.find(name)
            case.is_done = True
            project.save_case(case)
        files, failed = _write(project, options)
        failures += failed
        _show(project, failures, files, time.monotonic() - started, as_json=options.json)
    return not failures


def _change(project: Project, options: ProjectOptions) -> list[Failure]:
    """Change settings, cases and labels."""
    settings = options.settings(project.settings)
    if settings != project.settings:
        project.settings = settings
        project.save()
    for text in options.find or ():
        name, path = _split(text)
        project.relocate(project.find(name), path)
    failures: list[Failure] = []
    for path in options.add or ():
        cohort = _cohort(path, options)
        for notice in cohort.notices:
            note(notice)
        failures += _add(project, cohort, options)
    if options.labels is not None:
        named = {case.path: case.name for case in project.cases if case.record.sequences}
        _load_labels(project, match_labels(options.labels, [case.path for case in project.cases], named))
    for name in options.remove or ():
        case = project.find(name)
        tell(f"{case.name} was removed; its labels are in {project.remove(case)}.")
    if options.take_predictions is not None:
        _take_predictions(project, options.take_predictions)
    return failures


def _take_predictions(project: Project, path: Path) -> None:
    found = read_project_masks(project, path)
    for notice in found.notices:
        note(notice)
    taken = take_project_masks(project, found)
    for problem in taken.problems:
        note(problem)
    tell(taken.sentence())


def _cohort(path: Path, options: ProjectOptions) -> Cohort:
    """The cases to add of a folder, a list or a path."""
    found = options.find_sequences(path, options.project)
    if found is None and not options.sequence:
        found = find_cohort(path, series=options.series, out=options.project)
    return found or Cohort([path])


def _write(project: Project, options: ProjectOptions) -> tuple[dict[str, Any], list[Failure]]:
    """Write what the options name; returns the files by kind."""
    files: dict[str, Any] = {}
    failures: list[Failure] = []
    if options.export is not None:
        prepare_folder(options.export, project.folder, [case.path for case in project.cases])
        files, failures = _export(project, project.cases, options.export, replace=options.overwrite)
    if options.export_nnunet is not None:
        dataset = write_nnunet(project, options.export_nnunet, to_predict=options.with_open_cases)
        for notice in dataset.notices:
            note(notice)
        files["nnunet"] = str(dataset.folder)
    if options.report is not None:
        files["report"] = str(write_project_report(options.report, report_on(project))[-1])
    if options.model_out is not None:
        check_model_output(options.model_out, [case.path for case in project.cases])
        project.export_model(options.model_out)
        files["model"] = str(options.model_out)
    return files, failures


def run_segment_all(options: SegmentOptions, cohort: Cohort) -> bool:
    """Train one model on the labelled slices of several cases, and write a mask of each; continues where it stopped.

    Returns:
        Whether every case has a mask.
    """
    started = time.monotonic()
    cohort = cohort.absolute()
    for notice in cohort.notices:
        note(notice)
    out = options.out.absolute()
    places = place_results(cohort, out)
    labels = match_labels(options.labels, cohort.cases, cohort.names)
    if options.model_out is not None:
        check_model_output(options.model_out, [*cohort.cases, *(place.mask for place in places)])
    prepare_folder(out, options.case, cohort.cases)
    with Project(
        out / "project",
        settings=options.settings,
        config=options.compute,
        make_compute=compute_for,
        notify=noting_once(),
    ) as project:
        failures = _add(project, cohort, options)
        by_path = {case.path: case for case in project.cases}
        _load_labels(project, {path: file for path, file in labels.items() if path in by_path})
        _train(project)
        cases = [by_path[path] for path in cohort.cases if path in by_path]
        failures += _predict(project, cases)
        files, failed = _export(project, cases, out, replace=options.overwrite)
        failures += failed
        files["project"] = str(project.folder)
        model = options.model_out or out / "model.safetensors"
        project.export_model(model)
        files["model"] = str(model)
        files["report"] = str(write_project_report(out / "report", report_on(project))[-1])
        _show(project, failures, files, time.monotonic() - started, as_json=options.json)
    return not failures


def _split(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals:
        msg = f"'{text}' does not say where the case lies. Write it as CASE=PATH."
        raise ProjectError(msg)
    return name, Path(path)


def _add(project: Project, cohort: Cohort, options: ProjectOptions | SegmentOptions) -> list[Failure]:
    """Add cases; those that are there already stay as they are."""
    failures = []
    known = {case.path for case in project.cases}
    for path in cohort.cases:
        if path.absolute() in known:
            continue
        try:
            files = cohort.files.get(path)
            source = options.opening(path) if files is None else {"path": files, "sequences": options.names}
            case, is_new = project.add(
                **source,
                plane=options.plane or project.plane,  # which the panel remembers
                component=options.component,
                masks=options.masks,
                every=options.every,
                name=cohort.names.get(path, ""),
            )
        except DinoAugSegError as error:
            failures.append(_failure(path.name, error))
            continue
        if is_new or case.path == path.absolute():
            continue
        if case.path.exists():
            msg = f"{path}: it has the same pixels as {case.path}, which the project has already. Leave one out."
            failures.append(_failure(path.name, CaseError(msg)))
        else:
            project.relocate(case, path)
            tell(f"{case.name} is at {path} now.")
    return failures


def _failure(name: str, error: DinoAugSegError) -> Failure:
    failure = Failure(name, one_line(error_text(error)))
    tell_error(error)
    return failure


def _load_labels(project: Project, labels: dict[Path, Path]) -> None:
    for case in project.cases:
        if case.path in labels and project.load_labels(case, labels[case.path]):
            status = project.status(case)
            tell(f"{case.name}: {len(status.labelled)} of {status.n_slices} slices labelled.")


def _train(project: Project) -> None:
    if project.is_current():
        tell("The model is up to date: labels and settings are those of its training.")
        return
    labelled = project.labelled()
    slices = sum(len(entry.labels) for entry in labelled.values())
    tell(f"Training on {counted(slices, 'labelled slice')} of {counted(len(labelled), 'case')}.")
    with ProgressLine().live() as line:
        line.run(project.train())


def _predict(project: Project, cases: Sequence[ProjectCase]) -> list[Failure]:
    """Predict the cases that the present model has not predicted yet; one that fails does not stop the others."""
    failures: list[Failure] = []
    if not project.is_trained:
        msg = f"{project.folder.name} has no trained model yet. Label slices of some cases, then train."
        raise TrainingError(msg)
    for case in list(cases):
        if case.predicted_by == project.model_file:
            continue
        started = time.monotonic()
        try:
            with ProgressLine().live() as line:
                _, problems = project.predict(case, report=line.show)
        except DinoAugSegError as error:
            failures.append(_failure(case.name, error))
            continue
        for problem in problems:
            note(problem, f"{case.name}: ")
        tell(f"{case.name}: predicted in {time.monotonic() - started:.1f} s.")
    return failures


def _export(
    project: Project, cases: Sequence[ProjectCase], out: Path, *, replace: bool
) -> tuple[dict[str, Any], list[Failure]]:
    """Write the masks of cases into a folder; one that fails does not stop the others.

    Returns:
        The masks that were written, and those that were kept because a person changed them; and what failed.
    """
    written: list[str] = []
    kept: list[str] = []
    failures = []
    for result in masks_of(project, cases, out, replace=replace):
        for problem in result.problems:
            if isinstance(problem, DinoAugSegError):
                failures.append(_failure(result.case.name, problem))
            else:
                note(problem)
        if result.path is not None:
            (kept if result.is_kept else written).append(str(result.path))
    if kept:
        names = listed([Path(path).name for path in kept])
        found = "this mask is" if len(kept) == 1 else "these masks are"
        why = "of somebody else, or changed since, and kept"
        note(f"{out}: {found} {why}: {names}. Replace such masks with --overwrite.")
    return {"masks": written, **({"kept": kept} if kept else {})}, failures


def _show(
    project: Project, failures: Sequence[Failure], files: dict[str, Any], seconds: float, *, as_json: bool
) -> None:
    statuses = {case.number: project.status(case) for case in project.cases}
    suggested = project.suggest(1, statuses) if project.cases else []
    if as_json:
        print_json(
            {
                "project": str(project.folder),
                "cases": [_as_json(case, statuses[case.number], project) for case in project.cases],
                "model": project.model_file,
                "next": vars(suggested[0]) if suggested else None,
                "failed": [vars(failure) for failure in failures],
                "files": files,
                "seconds": round(seconds, 3),
            }
        )
        return
    _print_table(project, statuses)
    for name, value in files.items():
        print_text(f"{name:<9} {value if isinstance(value, str) else counted(len(value), 'file')}")
    if suggested:
        case = next(entry for entry in project.cases if entry.number == suggested[0].case)
        where = project.recorded(case).slice_name(suggested[0].index)
        print_text(f"next      label {where} of {case.name}: {suggested[0].reason}")
    for failure in failures:
        print_text(f"failed    {failure.name}: {failure.reason}")
    print_text(f"seconds   {seconds:.1f}")


def _as_json(case: ProjectCase, status: CaseStatus, project: Project) -> dict[str, Any]:
    return {
        "number": case.number,
        "name": case.name,
        "path": str(case.path),
        "slices": status.n_slices,
        "painted": status.n_manual,
        "accepted": status.n_accepted,
        "predicted": status.n_predicted,
        "confidence": None if status.confidence is None else round(status.confidence, 4),
        "current": project.model_file is not None and case.predicted_by == project.model_file,
        "done": case.is_done,
    }


def _print_table(project: Project, statuses: dict[int, CaseStatus]) -> None:
    if not project.cases:
        print_text(f"{project.folder.name} has no case. Add some with --add.")
        return
    width = max(len("case"), *(len(case.name) for case in project.cases))
    print_text(f"{'':>4} {'case':<{width}}  slices  painted  accepted  predicted  sure  done")
    for case in sorted(project.cases, key=lambda entry: natural_key(entry.name)):
        status = statuses[case.number]
        sure = "-" if status.confidence is None else f"{status.confidence:.0%}"
        counts = f"{status.n_slices:>6}  {status.n_manual:>7}  {status.n_accepted:>8}  {status.n_predicted:>9}"
        done = "yes" if case.is_done else ""
        print_text(f"{case.number:>4} {case.name:<{width}}  {counts}  {sure:>4}  {done}".rstrip())
