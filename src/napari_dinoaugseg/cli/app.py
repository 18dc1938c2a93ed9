"""The commands and their options. Each hands over to a module of its own, which loads the engine only then."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dinoaugseg import __version__, offline
from napari_dinoaugseg.cli.output import tell, tell_error
from napari_dinoaugseg.errors import DinoAugSegError
from napari_dinoaugseg.native import limit_spinning

if TYPE_CHECKING:
    from napari_dinoaugseg.case.masks import Lie, MaskOptions

app = typer.Typer(
    help="Segment medical images from a handful of labelled slices (research use only; not a medical device).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Preset(StrEnum):
    """How much time to spend; the names of the engine's presets."""

    FAST = "fast"
    BALANCED = "balanced"
    PAPER = "paper"


class PlaneName(StrEnum):
    """Through which axis of the body a volume is sliced."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    NATIVE = "native"


class Strategy(StrEnum):
    """How a simulated person picks the next slices."""

    SUGGESTED = "suggested"
    EVEN = "even"
    RANDOM = "random"


class MaskOrientation(StrEnum):
    """How masks lie on pictures with an orientation."""

    SEEN = "seen"
    STORED = "stored"


class Ignore(StrEnum):
    """Which value of masks of pictures is unknown beside other labels."""

    WHITE = "255"
    NONE = "none"


CaseArgument = Annotated[
    Path,
    typer.Argument(help="NIfTI, NRRD or multi-page TIFF file, DICOM folder, or folder of pictures.", metavar="CASE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Out = Annotated[Path, typer.Option(help="Where the mask goes: a file like the case's, or a folder for pictures.")]
Plane = Annotated[PlaneName | None, typer.Option(help="Slicing plane.", show_default="the one with the finest pixels")]
Component = Annotated[int | None, typer.Option(help="Time point or channel of 4-D data, from 0.")]
Series = Annotated[str | None, typer.Option(help="Which DICOM series: its UID or part of its description.")]
MaskOrientationOption = Annotated[
    MaskOrientation | None,
    typer.Option(
        help="Pictures: masks lie on a picture with an EXIF orientation as it is seen or as it is stored, where the "
        "size of a mask fits both.",
        show_default="seen, unless the sizes of other masks tell",
    ),
]
IgnoreOption = Annotated[
    Ignore | None,
    typer.Option(
        help="Pictures: 255 beside other labels is unknown (255), or a class (none).",
        show_default="255, and none in 16-bit masks",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Encoder weights: a file (.safetensors, .pth, .bin) or the folder of a repository, in the layout of timm, "
        "Meta or transformers."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 …, mps.")]
Encoder = Annotated[str, typer.Option(help="Encoder name, see `dinoaugseg encoders`; auto = the best one at hand.")]
PresetOption = Annotated[Preset, typer.Option(help="Time against quality; paper = the authors' recipe, slow on a CPU.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same mask on a CPU.")]
Window = Annotated[
    str | None,
    typer.Option(
        help="Intensity window: auto, a CT preset (soft tissue, lung, …) or LOW,HIGH.",
        show_default="that of the model if there is one, else auto",
    ),
]
InputSize = Annotated[
    int | None, typer.Option(help="Side of the encoder's input in pixels.", show_default="of the preset")
]


def _go_offline(value: bool) -> None:
    if value:
        offline.go_offline()


Offline = Annotated[
    bool, typer.Option("--offline", callback=_go_offline, help="Use no network: only weights that are on this machine.")
]
Cache = Annotated[bool, typer.Option(help="Keep encoder features on disk, so that the next run encodes nothing.")]


@app.command()
def segment(
    case: CaseArgument,
    labels: Annotated[Path, typer.Option(help="Label file with some slices painted, or folder of masks.")],
    out: Out,
    slices: Annotated[
        str | None,
        typer.Option(
            help="Labelled slices, as 20,40,60; background-only ones count too.", show_default="the painted ones"
        ),
    ] = None,
    plane: Plane = None,
    component: Component = None,
    series: Series = None,
    encoder: Encoder = "auto",
    weights: Weights = None,
    preset: PresetOption = Preset.BALANCED,
    input_size: InputSize = None,
    window: Window = None,
    device: Device = "auto",
    seed: Seed = 0,
    warm_start: Annotated[
        Path | None, typer.Option(help="Go on from this model, for example the last patient's.")
    ] = None,
    model_out: Annotated[Path | None, typer.Option(help="Save the trained model (.safetensors).")] = None,
    confidence_out: Annotated[Path | None, typer.Option(help="Save the confidence of each voxel, 0 to 1.")] = None,
    mask_orientation: MaskOrientationOption = None,
    ignore: IgnoreOption = None,
    cache: Cache = True,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Learn from the labelled slices of a case and write a mask of all its slices."""
    from napari_dinoaugseg.cli.segment import SegmentJob, run_segment

    job = SegmentJob(
        case=case,
        labels=labels,
        out=out,
        slices=slices,
        plane=plane,
        component=component,
        series=series,
        weights=weights,
        preset=preset,
        settings=_changes(encoder=encoder, window=window, seed=seed, input_size=input_size),
        device=device,
        warm_start=warm_start,
        model_out=model_out,
        confidence_out=confidence_out,
        masks=_mask_options(mask_orientation, ignore),
        cache=cache,
    )
    run_segment(job, as_json=json)


@app.command()
def predict(
    case: Annotated[
        Path,
        typer.Argument(
            help="A case as for `segment`; or a cohort: a folder with several volumes (NIfTI, NRRD, multi-page TIFF, "
            "multi-frame DICOM) or with a subfolder of DICOM slices or pictures for each case, or a text file (.txt) "
            "with the path of a case a line, relative ones from its folder.",
            metavar="CASE|COHORT",
        ),
    ],
    model: Annotated[Path, typer.Option(help="A model saved by `segment --model-out`.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Where the mask goes: a file like the case's, or a folder for pictures. For a cohort a folder, which "
            "gets a mask and a JSON report for each case."
        ),
    ],
    cohort: Annotated[
        bool | None,
        typer.Option(
            help="Whether it is a cohort or one case.",
            show_default="a cohort is a text file, and a folder with NIfTI or NRRD files or with DICOM of several "
            "examinations; any other folder is one case",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Predict a cohort on the workers of this Dask scheduler, as tls://HOST:PORT."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers on this machine for a cohort.", show_default="as many as fit"),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace masks of a cohort that come from another model, options or files."),
    ] = False,
    plane: Plane = None,
    component: Component = None,
    series: Series = None,
    weights: Weights = None,
    window: Window = None,
    device: Device = "auto",
    confidence_out: Annotated[Path | None, typer.Option(help="Save the confidence of each voxel, 0 to 1.")] = None,
    mask_orientation: Annotated[
        MaskOrientation | None,
        typer.Option(
            help="Pictures: masks are written to lie on a picture with an EXIF orientation as it is seen or as it is "
            "stored.",
            show_default="seen",
        ),
    ] = None,
    cache: Cache = True,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Write a mask of a new case with a saved model, or of each case of a cohort.

    The same command on a cohort goes on where it stopped, and keeps the masks that are there.
    """
    from napari_dinoaugseg.session.cohort import find_cohort

    found = find_cohort(case, wanted=cohort, series=series, out=out)
    if found is not None:
        from napari_dinoaugseg.cli.cohort import CohortJob, run_cohort

        if confidence_out is not None:
            raise typer.BadParameter("--confidence-out is for one case, not for a cohort.")
        if mask_orientation is not None:
            raise typer.BadParameter("--mask-orientation is for one case, not for a cohort.")
        if scheduler is not None and workers is not None:
            raise typer.BadParameter("Use either --scheduler or --workers.")
        cohort_job = CohortJob(
            path=case,
            found=found,
            model=model,
            out=out,
            scheduler=scheduler,
            workers=workers,
            overwrite=overwrite,
            plane=plane,
            component=component,
            series=series,
            weights=weights,
            window=window,
            device=device,
            cache=cache,
        )
        if not run_cohort(cohort_job, as_json=json):
            raise typer.Exit(1)
        return
    if scheduler is not None or workers is not None or overwrite:
        raise typer.BadParameter(
            f"{case} is taken as one case, and --scheduler, --workers and --overwrite are for cohorts. "
            "Leave them out, or say --cohort."
        )
    from napari_dinoaugseg.cli.segment import PredictJob, run_predict

    job = PredictJob(
        case=case,
        model=model,
        out=out,
        plane=plane,
        component=component,
        series=series,
        weights=weights,
        settings=_changes(window=window),
        device=device,
        confidence_out=confidence_out,
        masks=_mask_options(mask_orientation, None),
        cache=cache,
    )
    run_predict(job, as_json=json)


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
    masks = _mask_options(mask_orientation, ignore)
    run_evaluate(prediction, truth, slices, exclude_slices, plane, masks, as_json=json)


@app.command()
def simulate(
    case: CaseArgument,
    truth: Annotated[Path, typer.Option(help="The true mask, from which the simulated person labels.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of labelling and training.")] = 3,
    slices_per_round: Annotated[str, typer.Option(help="How many slices are labelled in each round.")] = "1,2,2",
    strategy: Annotated[Strategy, typer.Option(help="How the next slices are picked.")] = Strategy.SUGGESTED,
    plane: Plane = None,
    component: Component = None,
    series: Series = None,
    encoder: Encoder = "auto",
    weights: Weights = None,
    preset: PresetOption = Preset.BALANCED,
    input_size: InputSize = None,
    window: Window = None,
    device: Device = "auto",
    seed: Seed = 0,
    mask_orientation: MaskOrientationOption = None,
    ignore: IgnoreOption = None,
    cache: Cache = True,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Play a person who labels a few slices, trains, and labels more: Dice of the unlabelled slices, round by round."""
    from napari_dinoaugseg.cli.evaluate import SimulateJob, run_simulate

    job = SimulateJob(
        case=case,
        truth=truth,
        rounds=rounds,
        slices_per_round=slices_per_round,
        strategy=strategy.value,
        plane=plane,
        component=component,
        series=series,
        weights=weights,
        preset=preset,
        settings=_changes(encoder=encoder, window=window, seed=seed, input_size=input_size),
        device=device,
        seed=seed,
        masks=_mask_options(mask_orientation, ignore),
        cache=cache,
    )
    run_simulate(job, as_json=json)


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
    """List the encoders, and whether their weights are at hand."""
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


def _changes(**options: object) -> dict[str, object]:
    """The settings that the person chose; the others are the preset's, or the model's."""
    return {name: value for name, value in options.items() if value is not None}


def _mask_options(orientation: MaskOrientation | None, ignore: Ignore | None) -> MaskOptions:
    """What the options say about masks of pictures."""
    from napari_dinoaugseg.case.masks import MaskOptions

    lies: Lie | None = None
    if orientation is not None:
        lies = "seen" if orientation is MaskOrientation.SEEN else "stored"
    if ignore is None:
        return MaskOptions(lies)
    return MaskOptions(lies, "255" if ignore is Ignore.WHITE else "none")


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


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 an error of the input, said in one or two lines, 2 wrong usage."""
    limit_spinning()
    # Before it ends Python looks for garbage in all of PyTorch once more: a second of waiting for nothing.
    atexit.register(gc.freeze)
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
            "This is a bug of ours: run it again with DINOAUGSEG_DEBUG=1 and report what it prints."
        )
        sys.exit(1)
