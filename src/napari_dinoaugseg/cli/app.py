"""The commands; each imports its implementation, and with it the engine, only when it is run."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dinoaugseg import __version__
from napari_dinoaugseg.cli.options import (
    Device,
    Encoder,
    IgnoreOption,
    Json,
    MaskOrientationOption,
    Offline,
    Plane,
    PredictOptions,
    Preset,
    PresetOption,
    ProjectOptions,
    Seed,
    SegmentOptions,
    SimulateOptions,
    Weights,
    mask_options,
    takes,
)
from napari_dinoaugseg.cli.output import tell, tell_error
from napari_dinoaugseg.cli.pacs import pacs
from napari_dinoaugseg.errors import DinoAugSegError
from napari_dinoaugseg.native import limit_spinning

if TYPE_CHECKING:
    from napari_dinoaugseg.session.cohort import Cohort

app = typer.Typer(
    help="Segment medical images from a handful of labelled slices (research use only; not a medical device).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(pacs, name="pacs")


def _find_cohort(options: SegmentOptions | PredictOptions, path: Path, out: Path) -> Cohort | None:
    """The cases in a folder or list; None for one case. One of several sequences is named by its further ones."""
    from napari_dinoaugseg.session.cohort import find_cohort, is_file_name

    if options.sequence_names is not None and not options.sequence:
        return None if is_file_name(out) else options.find_sequences(path, out)
    wanted = options.cohort if isinstance(options, PredictOptions) else None
    if options.sequence:
        if wanted:
            raise typer.BadParameter("--sequence is for one case; for a cohort give --sequence-names.")
        return None
    return find_cohort(path, wanted=wanted, series=options.series, out=out)


@app.command()
@takes(SegmentOptions)
def segment(options: SegmentOptions) -> None:
    """Learn from the labelled slices of a case and write a mask of all its slices; or of several, with one model.

    With several cases, the same command continues where it stopped, and keeps masks that were corrected since.
    """
    from napari_dinoaugseg.session.cohort import Cohort

    found = _find_cohort(options, options.case, options.out)
    if options.more or found is not None:
        from napari_dinoaugseg.cli.project import run_segment_all

        cohort = found or Cohort([options.case])
        for path in options.more or ():
            cohort += _find_cohort(options, path, options.out) or Cohort([path])
        given = {
            "--sequence": options.sequence or None,
            "--slices": options.slices,
            "--warm-start": options.warm_start,
            "--confidence-out": options.confidence_out,
            "--label-table-out": options.label_table_out,
        }
        for name, value in given.items():
            if value is not None:
                raise typer.BadParameter(f"{name} is for one case, not for several.")
        if not run_segment_all(options, cohort):
            raise typer.Exit(1)
        return
    if options.overwrite:
        raise typer.BadParameter(f"{options.case} is taken as one case, and --overwrite is for several.")
    from napari_dinoaugseg.cli.segment import run_segment

    run_segment(options)


@app.command()
@takes(ProjectOptions)
def project(options: ProjectOptions) -> None:
    """Work on a project of many cases with one model, as the panel does; without options, list its cases.

    The options are carried out in this order: find, add, labels, remove, take-predictions,
    train, predict, done, export, report.
    """
    from napari_dinoaugseg.cli.project import run_project

    if not run_project(options):
        raise typer.Exit(1)


@app.command()
@takes(PredictOptions)
def predict(options: PredictOptions) -> None:
    """Write a mask of a new case with a saved model, or of each case of a cohort.

    On a cohort, the same command continues where it stopped and keeps existing masks.
    """
    found = _find_cohort(options, options.case, options.out)
    if found is not None:
        from napari_dinoaugseg.cli.cohort import run_cohort

        if options.confidence_out is not None:
            raise typer.BadParameter("--confidence-out is for one case, not for a cohort.")
        if options.label_table_out is not None:
            raise typer.BadParameter("--label-table-out is for one case, not for a cohort.")
        if options.mask_orientation is not None:
            raise typer.BadParameter("--mask-orientation is for one case, not for a cohort.")
        if options.scheduler is not None and options.workers is not None:
            raise typer.BadParameter("Use either --scheduler or --workers.")
        if not run_cohort(options, found):
            raise typer.Exit(1)
        return
    if options.scheduler is not None or options.workers is not None or options.overwrite:
        raise typer.BadParameter(
            f"{options.case} is taken as one case, and --scheduler, --workers and --overwrite are for cohorts. "
            "Leave them out, or add --cohort."
        )
    from napari_dinoaugseg.cli.segment import run_predict

    run_predict(options)


@app.command()
def evaluate(
    prediction: Annotated[Path, typer.Argument(help="A mask file or a folder of masks.")],
    truth: Annotated[Path, typer.Argument(help="The true mask file, or folder of masks.")],
    slices: Annotated[str | None, typer.Option(help="Count these slices only, as 20,40,60 or 10-19.")] = None,
    exclude_slices: Annotated[str | None, typer.Option(help="Leave these slices out (the labelled ones).")] = None,
    plane: Plane = None,
    mask_orientation: MaskOrientationOption = None,
    ignore: IgnoreOption = None,
    json: Json = False,
) -> None:
    """Compare masks: Dice, HD95, average surface distance, volumes."""
    from napari_dinoaugseg.cli.evaluate import run_evaluate

    if slices is not None and exclude_slices is not None:
        raise typer.BadParameter("Use either --slices or --exclude-slices.")
    masks = mask_options(mask_orientation, ignore)
    run_evaluate(prediction, truth, slices, exclude_slices, plane, masks, as_json=json)


@app.command()
@takes(SimulateOptions)
def simulate(options: SimulateOptions) -> None:
    """Simulate a person who labels a few slices, trains, and labels more; print the Dice of unlabelled slices."""
    from napari_dinoaugseg.cli.evaluate import run_simulate

    run_simulate(options)


@app.command()
def encoders(
    check: Annotated[
        str | None, typer.Option(help="Load this encoder and encode a test picture.", metavar="NAME")
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """List the encoders, and whether their weights are available."""
    from napari_dinoaugseg.cli.encoders import run_encoders

    run_encoders(check, weights, device, as_json=json)


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the mask and the overlay picture; no window is opened.", show_default="demo"),
    ] = None,
    no_gui: Annotated[bool, typer.Option("--no-gui", help="Never open a window; print how well it went.")] = False,
    encoder: Encoder = "auto",
    weights: Weights = None,
    preset: PresetOption = Preset.BALANCED,
    device: Device = "auto",
    seed: Seed = 0,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Try it on a brain template: in napari where there is a display, else five slices are labelled for you."""
    changes = {"encoder": encoder, "seed": seed}
    if not (no_gui or json or out is not None):
        from napari_dinoaugseg.gui.demo import has_display, run_window

        if has_display():
            tell("Opening napari with the sample case; the panel on the right says what to do first.")
            run_window(changes, preset, weights, device)
            return
        tell("No window can be opened here: the demo runs without one.")
    from napari_dinoaugseg.cli.demo import run_demo

    run_demo(out or Path("demo"), changes, preset, weights, device, as_json=json)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dinoaugseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Segment medical images from a handful of labelled slices (research use only; not a medical device)."""


def _collect_no_more() -> None:
    """Let Python exit without collecting garbage in all of PyTorch, which takes a second.

    Not with Triton 3.9 and later, which comes with PyTorch 2.15: its bindings (nanobind) take what was not collected
    for leaks, and every command would end with thirty lines about them.
    """
    triton = sys.modules.get("triton._C.libtriton")
    if triton is None or not any(type(part).__module__ == "nanobind" for part in vars(triton).values()):
        gc.freeze()


def main() -> None:
    """Entry point. Exit codes: 0 success, 1 an error in one or two lines, 2 wrong usage, 130 interrupted."""
    limit_spinning()
    atexit.register(_collect_no_more)
    try:
        app()
    except DinoAugSegError as error:
        tell_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        tell("Stopped. Nothing was written.")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("DINOAUGSEG_DEBUG"):
            raise
        tell(
            f"Error: something unforeseen went wrong ({type(error).__name__}: {error}).\n"
            "This is a bug: run it again with DINOAUGSEG_DEBUG=1 and report what it prints."
        )
        sys.exit(1)
