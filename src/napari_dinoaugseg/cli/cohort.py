"""`dinoaugseg predict` on a cohort."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from napari_dinoaugseg.cli.options import PredictOptions
from napari_dinoaugseg.cli.output import CasesLine, note, print_json, print_text, tell, tell_error
from napari_dinoaugseg.cli.words import notice_text
from napari_dinoaugseg.cluster import connection, workers
from napari_dinoaugseg.errors import ClusterError
from napari_dinoaugseg.session.batch import (
    BatchPlan,
    Outcome,
    ResultState,
    fingerprint_of,
    look,
    predict_here,
    require_none_else,
)
from napari_dinoaugseg.session.cohort import Cohort, CohortCase, place_results, prepare_folder
from napari_dinoaugseg.session.compute import ComputeConfig


@dataclass(frozen=True)
class Row:
    """A line of the table; ``state`` is ``done``, ``failed`` or ``present``."""

    case: CohortCase
    state: str
    reason: str | None
    seconds: float | None


def run_cohort(options: PredictOptions, found: Cohort) -> bool:
    """Predict the cases that have no mask yet; returns whether every case has a mask now."""
    started = time.monotonic()
    if options.scheduler is not None or options.workers is not None:
        connection.require_installed()
    for notice in found.notices:
        note(notice)
    cases = place_results(found.absolute(), options.out.absolute())
    plan = _plan(options)
    prepare_folder(options.out, options.case, found.cases)
    states = [(case, *look(case, plan.provenance)) for case in cases]
    if not options.overwrite:
        require_none_else(states, options.out)
    kept = (ResultState.PRESENT,) if options.overwrite else (ResultState.PRESENT, ResultState.CHANGED)
    rows = {case: Row(case, "present", why or None, None) for case, state, why in states if state in kept}
    todo = [case for case in cases if case not in rows]
    tell(f"{len(cases)} cases: {len(rows)} were there already, {len(todo)} to predict.")
    if todo:
        rows |= _predict(todo, plan, options)
    table = [rows[case] for case in cases]
    seconds = time.monotonic() - started
    if options.json:
        print_json(_as_json(table, options, seconds))
    else:
        _print_table(table, seconds)
    return all(row.state != "failed" for row in table)


def _plan(options: PredictOptions) -> BatchPlan:
    """The model and options that workers need. Raises CheckpointError if the model file is missing."""
    weights = None if options.weights is None else options.weights.absolute()
    return BatchPlan(
        model=options.model.absolute(),
        fingerprint=fingerprint_of(options.model),
        plane=None if options.plane is None else str(options.plane),
        series=options.series,
        component=options.component,
        every=options.every,
        window=options.window,
        compute=ComputeConfig(options.device, weights, options.cache),
        sequences=options.names,
    )


def _predict(todo: list[CohortCase], plan: BatchPlan, options: PredictOptions) -> dict[CohortCase, Row]:
    """The result of each case. If the workers are lost, the remaining cases count as failed."""
    rows: dict[CohortCase, Row] = {}
    lost = "not predicted"
    line = CasesLine(len(todo))
    try:
        with _results(todo, plan, options, line) as results, line.live():
            for case, outcome in results:
                for notice in outcome.notices:
                    line.tell(f"Note: {case.name}: {notice_text(notice)}")
                reason = None if outcome.reason is None else notice_text(outcome.reason)
                line.advance(case.name, outcome.seconds, reason)
                rows[case] = Row(case, "done" if reason is None else "failed", reason, outcome.seconds)
    except ClusterError as error:
        if not rows:
            raise
        tell_error(error)
        lost = "not predicted: the scheduler was lost"
    except KeyboardInterrupt:
        done = sum(row.state == "done" for row in rows.values())
        tell(f"{done} of {len(todo)} cases were predicted and written; the same command continues from there.")
        raise SystemExit(130) from None
    return {case: rows.get(case) or Row(case, "failed", lost, None) for case in todo}


@contextmanager
def _results(
    todo: list[CohortCase], plan: BatchPlan, options: PredictOptions, line: CasesLine
) -> Iterator[Iterator[tuple[CohortCase, Outcome]]]:
    """The results as they arrive: from a scheduler, from local workers, or from this process."""
    if options.scheduler is None and not connection.is_installed():
        tell(f"Note: cases are predicted one after the other; for parallel workers use {connection.INSTALL}.")
        yield predict_here(todo, plan)
        return
    if options.scheduler is not None:
        if not options.scheduler.startswith("tls://"):
            tell(f"Note: the connection to {options.scheduler} is not encrypted; for encryption, use a tls:// address.")
        opened = connection.connect(options.scheduler)
    else:
        opened = workers.local_workers(plan, len(todo), options.workers)
    with opened as client, closing(workers.predict_on(client, todo, plan, notify=line.tell)) as results:
        yield results


def _as_json(table: list[Row], options: PredictOptions, seconds: float) -> dict[str, Any]:
    return {
        "model": str(options.model),
        "out": str(options.out),
        "cases": [
            {
                "case": str(row.case.path),
                "mask": str(row.case.mask),
                "report": str(row.case.report),
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
    width = max(len("case"), *(len(row.case.name) for row in table))
    print_text(f"{'case':<{width}}  {'':<9} {'seconds':>8}")
    for row in table:
        took = "-" if row.seconds is None else f"{row.seconds:.1f}"
        print_text(f"{row.case.name:<{width}}  {_WORDS[row.state]:<9} {took:>8}  {row.reason or ''}".rstrip())
    done, failed, present = (sum(row.state == state for row in table) for state in _WORDS)
    there = f"{present} {'was' if present == 1 else 'were'} there already"
    print_text(f"{done} done, {failed} failed, {there}; {seconds:.1f} seconds")
