"""The presets of the program, and the preset `balanced` without one or both ideas of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.methods.problem import Learnt, Limit, Problem, raise_on_notice
from napari_dinoaugseg.learning.events import Cancel, Prediction, Progress
from napari_dinoaugseg.learning.predict import choose_tta, predict
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Trained, fit


def learn(problem: Problem, settings: Settings) -> Learnt:
    """Train as the program does, and stop at the limit of time as a person would with "Stop"."""
    settings = settings.with_changes(seed=problem.seed, input_size=problem.store.input_size)
    trained, seconds = _train(problem, settings)

    labelled = {example.index: example.target for example in problem.examples}
    tta = choose_tta(problem.store, settings, problem.n_classes)

    def masks(order: Sequence[int]) -> Iterator[Prediction]:
        return predict(
            problem.store,
            trained.decoder,
            order,
            labelled=labelled,
            tta=tta,
            resize=settings.resize,
            device=problem.device,
            report=raise_on_notice,
        )

    planned = settings.planned_steps(problem.n_classes, len(problem.examples), warm=False)
    encoded = min(len(problem.labelled) * (1 + settings.views), planned * settings.batch_size)
    return Learnt(masks, trained.steps, planned, seconds, encoded)


def _train(problem: Problem, settings: Settings) -> tuple[Trained, float]:
    """What was learnt, and the seconds that it took without encoding."""
    cancel, limit = Cancel(), Limit(problem)
    events = fit(
        problem.store,
        problem.examples,
        settings,
        n_classes=problem.n_classes,
        device=problem.device,
        cancel=cancel,
    )
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value, limit.seconds
        raise_on_notice(event)
        if isinstance(event, Progress) and event.stage == "encode":
            limit = Limit(problem)  # training begins after the last of these
        if isinstance(event, Progress) and event.stage == "train" and limit.is_reached:
            cancel.set()
