"""`dinoaugseg predict` on a cohort."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_dinoaugseg.cli.output import StudiesLine, print_json, print_text, tell
from napari_dinoaugseg.errors import ClusterError
from napari_dinoaugseg.session import cluster, connection
from napari_dinoaugseg.session.batch import Outcome, Plan, predict_here
from napari_dinoaugseg.session.cohort import Cohort, CohortStudy, place_results, prepare_folder
from napari_dinoaugseg.session.predicted import Standing, look, require_none_else
from napari_dinoaugseg.session.predicting import fingerprint_of


@dataclass(frozen=True)
class CohortJob:
    """The options of `predict` for a cohort."""

    path: Path
    found: Cohort
    model: Path
    out: Path
    scheduler: str | None
    workers: int | None
    overwrite: bool
    plane: str | None
    component: int | None
    series: str | None
    weights: Path | None
    window: str | None
    device: str
    cache: bool

    def plan(self) -> Plan:
        """What the workers are told. Raises CheckpointError when there is no model."""
        return Plan(
            model=self.model.absolute(),
            fingerprint=fingerprint_of(self.model),
            plane=None if self.plane is None else str(self.plane),
            series=self.series,
            component=self.component,
            window=self.window,
            device=self.device,
            weights=None if self.weights is None else self.weights.absolute(),
            cache=self.cache,
        )


@dataclass(frozen=True)
class Row:
    """A line of the table; ``state`` is ``done``, ``failed`` or ``present``."""

    study: CohortStudy
    state: str
    reason: str | None
    seconds: float | None


def run_cohort(job: CohortJob, *, as_json: bool) -> bool:
    """Predict the studies that have no mask yet; returns whether there is a mask of every study now."""
    started = time.monotonic()
    if job.scheduler is not None or job.workers is not None:
        connection.require_installed()
    for notice in job.found.notices:
        tell(f"Note: {notice}")
    # Other processes and machines need paths from the root.
    studies = place_results([path.absolute() for path in job.found.studies], job.out.absolute())
    plan = job.plan()
    prepare_folder(job.out, job.path, studies)
    standings = [(study, *look(study, plan.origin)) for study in studies]
    if not job.overwrite:
        require_none_else(standings, job.out)
    kept = (Standing.PRESENT,) if job.overwrite else (Standing.PRESENT, Standing.CHANGED)
    rows = {study: Row(study, "present", why or None, None) for study, standing, why in standings if standing in kept}
    todo = [study for study in studies if study not in rows]
    tell(f"{len(studies)} studies: {len(rows)} were there already, {len(todo)} to predict.")
    if todo:
        rows |= _predict(todo, plan, job)
    table = [rows[study] for study in studies]
    seconds = time.monotonic() - started
    if as_json:
        print_json(_as_json(table, job, seconds))
    else:
        _print_table(table, seconds)
    return all(row.state != "failed" for row in table)


def _predict(todo: list[CohortStudy], plan: Plan, job: CohortJob) -> dict[CohortStudy, Row]:
    """What became of each study. When the workers are lost, the rest counts as failed."""
    rows: dict[CohortStudy, Row] = {}
    lost = "not predicted"
    line = StudiesLine(len(todo))
    try:
        with _results(todo, plan, job, line) as results, line.live():
            for study, outcome in results:
                for notice in outcome.notices:
                    line.tell(f"Note: {study.name}: {notice}")
                line.advance(study.name, outcome.seconds, outcome.reason)
                state = "done" if outcome.reason is None else "failed"
                rows[study] = Row(study, state, outcome.reason, outcome.seconds)
    except ClusterError as error:
        if not rows:
            raise
        tell(f"Error: {error}")
        lost = "not predicted: the scheduler was lost"
    except KeyboardInterrupt:
        done = sum(row.state == "done" for row in rows.values())
        tell(f"{done} of {len(todo)} studies were predicted and written; the same command goes on from there.")
        raise SystemExit(130) from None
    return {study: rows.get(study) or Row(study, "failed", lost, None) for study in todo}


@contextmanager
def _results(
    todo: list[CohortStudy], plan: Plan, job: CohortJob, line: StudiesLine
) -> Iterator[Iterator[tuple[CohortStudy, Outcome]]]:
    """The results as they come: from a scheduler, from workers here, or from this process."""
    if job.scheduler is None and not connection.is_installed():
        tell(f"Note: one study follows the other; for workers beside one another use {connection.INSTALL}.")
        yield predict_here(todo, plan)
        return
    if job.scheduler is not None:
        if not job.scheduler.startswith("tls://"):
            tell(f"Note: the connection to {job.scheduler} is not encrypted; see docs/hospital.md.")
        workers = connection.connect(job.scheduler)
    else:
        workers = cluster.local_workers(plan, len(todo), job.workers)
    with workers as client, closing(cluster.predict_on(client, todo, plan, say=line.tell)) as results:
        yield results


def _as_json(table: list[Row], job: CohortJob, seconds: float) -> dict[str, Any]:
    return {
        "model": str(job.model),
        "out": str(job.out),
        "studies": [
            {
                "study": str(row.study.path),
                "mask": str(row.study.mask),
                "report": str(row.study.report),
                "state": row.state,
                "reason": row.reason,
                "seconds": None if row.seconds is None else round(row.seconds, 3),
            }
            for row in table
        ],
        **{state: sum(row.state == state for row in table) for state in ("done", "present", "failed")},
        "seconds": round(seconds, 3),
    }


_WORDS = {"done": "done", "failed": "failed", "present": "was there"}


def _print_table(table: list[Row], seconds: float) -> None:
    width = max(len("study"), *(len(row.study.name) for row in table))
    print_text(f"{'study':<{width}}  {'':<9} {'seconds':>8}")
    for row in table:
        took = "-" if row.seconds is None else f"{row.seconds:.1f}"
        print_text(f"{row.study.name:<{width}}  {_WORDS[row.state]:<9} {took:>8}  {row.reason or ''}".rstrip())
    counts = {word: sum(row.state == state for row in table) for state, word in _WORDS.items()}
    print_text(f"{', '.join(f'{count} {word}' for word, count in counts.items())}; {seconds:.1f} seconds")
