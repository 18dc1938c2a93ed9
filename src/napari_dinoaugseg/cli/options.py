"""The options of the commands; those of `segment`, `predict` and `simulate` are fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from napari_dinoaugseg import offline
from napari_dinoaugseg.errors import CaseError, SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from napari_dinoaugseg.case import Case
    from napari_dinoaugseg.case.masks import MaskOptions
    from napari_dinoaugseg.learning.settings import Settings
    from napari_dinoaugseg.session.cohort import Cohort
    from napari_dinoaugseg.session.compute import ComputeConfig


class Preset(StrEnum):
    """The engine's presets, from fast to thorough."""

    FAST = "fast"
    BALANCED = "balanced"
    ADAPT = "adapt"
    PAPER = "paper"


class PlaneName(StrEnum):
    """The axis of the body along which a volume is sliced."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    NATIVE = "native"


class Strategy(StrEnum):
    """The query strategy of a simulated person."""

    SUGGESTED = "suggested"
    EVEN = "even"
    RANDOM = "random"


class MaskOrientation(StrEnum):
    """The orientation of masks of pictures with an EXIF orientation."""

    SEEN = "seen"
    STORED = "stored"


class Ignore(StrEnum):
    """Which value is unknown in masks of pictures that hold other labels too."""

    WHITE = "255"
    NONE = "none"


def _go_offline(value: bool) -> None:
    if value:
        offline.go_offline()


CaseArgument = Annotated[
    Path,
    typer.Argument(
        help="NIfTI, NRRD or multi-page TIFF file, DICOM folder, folder of pictures, or video.", metavar="CASE"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Out = Annotated[Path, typer.Option(help="Where the mask goes: a file like the case's, or a folder for pictures.")]
Plane = Annotated[PlaneName | None, typer.Option(help="Slicing plane.", show_default="the one with the finest pixels")]
Component = Annotated[int | None, typer.Option(help="Time point or channel of 4-D data, from 0.")]
Every = Annotated[
    int | None, typer.Option(min=1, help="Video: take every n-th frame.", show_default="all, of 1000 frames at most")
]
Series = Annotated[str | None, typer.Option(help="Which DICOM series: its UID or part of its description.")]
FurtherSequence = Annotated[
    list[str] | None,
    typer.Option(
        help="A further sequence of the same patient (T2 beside T1, PET beside CT): a volume, a folder with a DICOM "
        "series, or a series of the DICOM folder CASE by UID or description. May be given several times. CASE is the "
        "first sequence, and gives the grid of the mask.",
        metavar="FILE",
    ),
]
SequenceNames = Annotated[
    str | None,
    typer.Option(
        help="Names of the sequences, as t1,t2,flair. For a folder of several cases: the ends of the names of their "
        "files (anna_t1.nii.gz; nnU-Net's anna_0000.nii.gz; or t1.nii.gz in a folder for each patient).",
        show_default="what differs in the names of the files",
    ),
]
MaskOrientationOption = Annotated[
    MaskOrientation | None,
    typer.Option(
        help="Pictures: masks lie on a picture with an EXIF orientation as it is seen or as it is stored, where the "
        "size of a mask fits both.",
        show_default="seen, unless the sizes of other masks show it",
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
_PRESETS = "Time against quality; adapt = the encoder learns, too; paper = the authors' recipe"
PresetOption = Annotated[Preset, typer.Option(help=f"{_PRESETS}, slow on a CPU.")]
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
Offline = Annotated[
    bool,
    typer.Option("--offline", callback=_go_offline, help="Use no network: only weights on this machine, and no PACS."),
]
Cache = Annotated[bool, typer.Option(help="Keep encoder features on disk, so that the next run encodes nothing.")]
ModelOut = Annotated[Path | None, typer.Option(help="Save the trained model (.safetensors).")]
LabelTableOut = Annotated[
    Path | None,
    typer.Option(help="Save names and colours of the classes as label descriptions of ITK-SNAP (.txt)."),
]
ConfidenceOut = Annotated[Path | None, typer.Option(help="Save the confidence of each voxel, 0 to 1.")]


def mask_options(orientation: MaskOrientation | None, ignore: Ignore | None) -> MaskOptions:
    """Return the options as the engine's `MaskOptions`."""
    from napari_dinoaugseg.case.masks import MaskOptions

    return MaskOptions(
        None if orientation is None else "seen" if orientation is MaskOrientation.SEEN else "stored",
        None if ignore is None else "255" if ignore is Ignore.WHITE else "none",
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """The options of every command: how cases are opened, and how to compute."""

    plane: Plane = None
    component: Component = None
    every: Every = None
    series: Series = None
    sequence: FurtherSequence = None
    sequence_names: SequenceNames = None
    weights: Weights = None
    window: Window = None
    device: Device = "auto"
    mask_orientation: MaskOrientationOption = None
    cache: Cache = True
    offline: Offline = False
    json: Json = False

    @property
    def masks(self) -> MaskOptions:
        """How masks of pictures are read and written."""
        return mask_options(self.mask_orientation, None)

    @property
    def compute(self) -> ComputeConfig:
        """Where to compute, with which weights."""
        from napari_dinoaugseg.session.compute import ComputeConfig

        return ComputeConfig(self.device, self.weights, self.cache)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sequences; empty = by their files. Raises SettingsError."""
        if self.sequence_names is None:
            return ()
        names = tuple(name.strip() for name in self.sequence_names.split(","))
        if len(names) < 2 or not all(names) or len({name.casefold() for name in names}) < len(names):
            msg = f"Give different names of two sequences or more, such as t1,t2, not {self.sequence_names!r}."
            raise SettingsError(msg)
        return names

    def opening(self, case: Path) -> dict[str, Any]:
        """What `open_case` opens a case with: its path, further sequences, series and names. Raises CaseError."""
        further = self.sequence or []
        paths, series = [case], [self.series]
        for text in further:
            path, is_series = Path(text), not Path(text).exists() and case.is_dir()
            paths.append(case if is_series else path)
            series.append(text if is_series else None)
        if not further:
            return {"path": case, "series": self.series}
        return {"path": paths, "series": series, "sequences": self.names}

    def find_sequences(self, folder: Path, out: Path) -> Cohort | None:
        """The cases of several sequences in a folder; None unless names are given for them. Raises CaseError."""
        from napari_dinoaugseg.session.cohort import find_sequences

        if self.sequence_names is None or self.sequence:
            return None
        return find_sequences(folder, self.names, out)


@dataclass(frozen=True, kw_only=True)
class CaseOptions(ComputeOptions):
    """The options of a command on a case."""

    case: CaseArgument

    def open_case(self) -> Case:
        """Open the case and print its notices. Raises CaseError, SettingsError."""
        from napari_dinoaugseg.case import open_case
        from napari_dinoaugseg.case.masks import MaskOptions
        from napari_dinoaugseg.cli.output import note

        case = open_case(
            **self._source(), plane=self.plane, component=self.component, masks=self.masks, every=self.every
        )
        if case.kind != "pictures" and self.masks != MaskOptions():
            msg = f"{case.name}: --mask-orientation and --ignore are for masks of pictures, and this is a volume."
            raise SettingsError(f"{msg} Leave them out.")
        for notice in case.notices:
            note(notice)
        return case

    def _source(self) -> dict[str, Any]:
        """What to open: the case, or the only case of the given sequences in a folder."""
        found = self.find_sequences(self.case, self.case / "masks")
        if found is None:
            return self.opening(self.case)
        if len(found.cases) > 1:
            msg = f"{self.case}: there are {len(found.cases)} cases of these sequences. Name the folder of one of them."
            raise CaseError(msg)
        return {"path": list(found.files[found.cases[0]]), "sequences": self.names}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(CaseOptions):
    """The additional options of a command that trains."""

    encoder: Encoder = "auto"
    preset: PresetOption = Preset.BALANCED
    input_size: InputSize = None
    seed: Seed = 0
    ignore: IgnoreOption = None

    @property
    def masks(self) -> MaskOptions:
        """How masks of pictures are read and written."""
        return mask_options(self.mask_orientation, self.ignore)

    @property
    def settings(self) -> Settings:
        """The preset with the chosen options. Raises SettingsError."""
        from napari_dinoaugseg.learning.settings import Settings

        chosen = {"encoder": self.encoder, "seed": self.seed, "window": self.window, "input_size": self.input_size}
        return Settings.of_preset(self.preset, **{name: value for name, value in chosen.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(TrainingOptions):
    """The options of `segment`, for a case and for several."""

    case: Annotated[
        Path,
        typer.Argument(
            help="NIfTI, NRRD or multi-page TIFF file, DICOM folder, folder of pictures, or video; or several cases: a "
            "folder with them, or a text file (.txt) with the path of a case a line.",
            metavar="CASE|CASES",
        ),
    ]
    more: Annotated[
        list[Path] | None, typer.Argument(help="Further cases: one model learns from the labels of all.", metavar="…")
    ] = None
    labels: Annotated[
        Path,
        typer.Option(
            help="Label file with some slices painted; for pictures a folder of masks, or annotations (COCO, LabelMe). "
            "For several cases a folder with the labels of some of them, named like their cases."
        ),
    ]
    out: Annotated[
        Path,
        typer.Option(
            help="Where the mask goes: a file like the case's, or a folder for pictures. For several cases a folder, "
            "which gets a mask of each, the model, a report, and the project that the panel can open."
        ),
    ]
    slices: Annotated[
        str | None,
        typer.Option(
            help="Labelled slices, as 20,40,60; background-only ones count too.", show_default="the painted ones"
        ),
    ] = None
    warm_start: Annotated[Path | None, typer.Option(help="Go on from this model, for example the last patient's.")] = (
        None
    )
    model_out: ModelOut = None
    confidence_out: ConfidenceOut = None
    label_table_out: LabelTableOut = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="For several cases: also replace masks that somebody changed."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ProjectOptions(ComputeOptions):
    """The options of `project`."""

    project: Annotated[
        Path, typer.Argument(help="Folder of the project; it is created if it does not exist.", metavar="PROJECT")
    ]
    add: Annotated[
        list[Path] | None,
        typer.Option(help="Add a case, or all cases in a folder or list; may be given several times.", metavar="CASE"),
    ] = None
    labels: Annotated[
        Path | None, typer.Option(help="Folder with the labels of some cases, named like their cases.")
    ] = None
    find: Annotated[list[str] | None, typer.Option(help="Where the image of a case lies now.", metavar="CASE=PATH")] = (
        None
    )
    done: Annotated[list[str] | None, typer.Option(help="Mark a case as done.", metavar="CASE")] = None
    remove: Annotated[
        list[str] | None,
        typer.Option(
            help="Remove a case; its labels are moved to the folder `removed` of the project.", metavar="CASE"
        ),
    ] = None
    take_predictions: Annotated[
        Path | None,
        typer.Option(help="Take masks that nnU-Net predicted as predictions: a folder, or a mask.", metavar="DIR"),
    ] = None
    train: Annotated[bool, typer.Option("--train", help="Train the model on the labelled slices of all cases.")] = False
    predict: Annotated[bool, typer.Option("--predict", help="Predict the slices of all cases.")] = False
    export: Annotated[Path | None, typer.Option(help="Write the mask of each case into this folder.")] = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="With --export: also replace masks that somebody changed."),
    ] = False
    export_nnunet: Annotated[
        Path | None, typer.Option(help="Write the cases that are done as a raw dataset of nnU-Net.")
    ] = None
    with_open_cases: Annotated[
        bool,
        typer.Option(
            "--with-open-cases",
            help="With --export-nnunet: also write the images of the other cases, for nnU-Net to predict.",
        ),
    ] = False
    report: Annotated[Path | None, typer.Option(help="Write a report, without names, into this folder.")] = None
    model_out: ModelOut = None
    encoder: Annotated[
        str | None, typer.Option(help="Encoder name, see `dinoaugseg encoders`.", show_default="of the project")
    ] = None
    preset: Annotated[
        Preset | None,
        typer.Option(help=f"{_PRESETS}.", show_default="of the project"),
    ] = None
    input_size: Annotated[
        int | None, typer.Option(help="Side of the encoder's input in pixels.", show_default="of the project")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Of the training.", show_default="of the project")] = None
    ignore: IgnoreOption = None
    scheduler: Annotated[
        str | None, typer.Option(help="Train and predict on a worker of this Dask scheduler, as tls://HOST:PORT.")
    ] = None

    @property
    def masks(self) -> MaskOptions:
        """How masks of pictures are read and written."""
        return mask_options(self.mask_orientation, self.ignore)

    @property
    def compute(self) -> ComputeConfig:
        """Where to compute, with which weights."""
        return replace(super().compute, scheduler=self.scheduler)

    def settings(self, now: Settings) -> Settings:
        """The settings of a project with the chosen options. Raises SettingsError."""
        chosen = {"encoder": self.encoder, "seed": self.seed, "window": self.window, "input_size": self.input_size}
        given = {name: value for name, value in chosen.items() if value is not None}
        if self.preset is None or self.preset == now.preset:
            return now.with_changes(**given) if given else now
        kept = {"encoder": now.encoder, "seed": now.seed, "window": now.window}
        return type(now).of_preset(self.preset, **{**kept, **given})


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(TrainingOptions):
    """The options of `simulate`."""

    truth: Annotated[Path, typer.Option(help="The true mask, from which the simulated person labels.")]
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of labelling and training.")] = 3
    slices_per_round: Annotated[str, typer.Option(help="How many slices are labelled in each round.")] = "1,2,2"
    strategy: Annotated[Strategy, typer.Option(help="How the next slices are picked.")] = Strategy.SUGGESTED


@dataclass(frozen=True, kw_only=True)
class PredictOptions(CaseOptions):
    """The options of `predict`, for a case and for a cohort."""

    case: Annotated[
        Path,
        typer.Argument(
            help="A case as for `segment`; or a cohort: a folder with several volumes (NIfTI, NRRD, multi-page TIFF, "
            "multi-frame DICOM) or with a subfolder of DICOM slices or pictures for each case, or a text file (.txt) "
            "with the path of a case a line, relative ones from its folder.",
            metavar="CASE|COHORT",
        ),
    ]
    model: Annotated[Path, typer.Option(help="A model saved by `segment --model-out`.")]
    out: Annotated[
        Path,
        typer.Option(
            help="Where the mask goes: a file like the case's, or a folder for pictures. For a cohort a folder, which "
            "gets a mask and a JSON report for each case."
        ),
    ]
    cohort: Annotated[
        bool | None,
        typer.Option(
            help="Whether it is a cohort or one case.",
            show_default="a cohort is a text file, and a folder with NIfTI or NRRD files or with DICOM of several "
            "examinations; any other folder is one case",
        ),
    ] = None
    scheduler: Annotated[
        str | None, typer.Option(help="Predict a cohort on the workers of this Dask scheduler, as tls://HOST:PORT.")
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers on this machine for a cohort.", show_default="as many as fit")
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace masks of a cohort that come from another model, options or files."),
    ] = False
    confidence_out: ConfidenceOut = None
    label_table_out: LabelTableOut = None
    mask_orientation: Annotated[
        MaskOrientation | None,
        typer.Option(
            help="Pictures: masks are written to lie on a picture with an EXIF orientation as it is seen or as it is "
            "stored.",
            show_default="seen",
        ),
    ] = None


_LAST = ("cache", "offline", "json")
Options = TypeVar("Options", bound="DataclassInstance")


def takes(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Return a decorator that turns a function of one options object into a command.

    typer reads options from a function's signature, so the command gets one made of the dataclass's fields: those
    without a default first, then the command's own, then shared ones, and last those of every command.
    """
    hints = get_type_hints(options, include_extras=True)
    shared = {entry.name for entry in fields(options.__mro__[1])}
    needed = [entry for entry in fields(options) if entry.default is MISSING]
    ordered = needed + sorted(
        (entry for entry in fields(options) if entry not in needed),
        key=lambda entry: (entry.name in shared, entry.name in _LAST),
    )
    parameters = [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if entry.default is MISSING else entry.default,
            annotation=hints[entry.name],
        )
        for entry in ordered
    ]

    def decorate(function: Callable[[Options], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(options(**values))

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate
