"""The six experiments: which classes, how many shots, what the paper found, and where the data come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from benchmarks.paper import published
from benchmarks.paper.pictures import load_isic2018, load_kvasir, load_tn3k
from benchmarks.paper.published import Figures, authors_draw
from benchmarks.paper.sources import DataSet
from benchmarks.paper.volumes import SYNAPSE_ORGANS, load_acdc, load_la2018, load_synapse
from napari_dinoaugseg.errors import CaseError


@dataclass(frozen=True)
class Protocol:
    """One data set of the paper.

    Attributes:
        title: for people.
        unit: what a shot is, and what is scored: ``volume`` or ``picture``.
        classes: names by class index.
        figures: of the paper, by number of shots.
        test_groups: how many patients (or pictures) the paper tests on; None = not published.
        group: what the samples belong to: ``patient``, ``picture``.
        draw: groups of the authors' draw, in their order; empty = not public.
        home: where the data come from.
        layout: the files that are looked for.
        load: finds them in a folder.
    """

    title: str
    unit: str
    classes: Mapping[int, str]
    figures: Mapping[int, Figures]
    test_groups: int | None
    group: str
    draw: tuple[str, ...]
    home: str
    layout: str
    load: Callable[[Path], DataSet]

    def find(self, root: Path) -> DataSet:
        """The samples in a folder. Raises CaseError when there are none to draw from, or none to test on."""
        if not root.is_dir():
            msg = f"{root}: there is no such folder. {self.where()}"
            raise CaseError(msg)
        found = self.load(root)
        if not found.pool:
            lack = "" if not found.notices else f" ({'; '.join(found.notices)})"
            msg = f"{root}: no labelled {self.unit} of {self.title} to learn from lies here{lack}. {self.where()}"
            raise CaseError(msg)
        if not found.test and self.test_groups is not None:
            msg = f"{root}: no {self.unit} to test on lies here; they are {found.split}. {self.where()}"
            raise CaseError(msg)
        return found

    def nearest(self, shots: int) -> int:
        """The number of shots of the paper that is nearest to ``shots``, the larger one of two."""
        return min(self.figures, key=lambda published_shots: (abs(published_shots - shots), -published_shots))

    def where(self) -> str:
        """Where to get the data, and how they must lie."""
        return f"Get the data from {self.home}; expected below --root: {self.layout}."


_TRAIN_TEST = "; or such files in train/ and test/"

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "acdc": Protocol(
            "ACDC",
            "volume",
            {1: "right ventricle", 2: "myocardium", 3: "left ventricle"},
            published.ACDC,
            20,
            "patient",
            authors_draw("acdc"),
            "the ACDC challenge (creatis.insa-lyon.fr/Challenge/acdc)",
            "training/patientNNN/patientNNN_frameMM.nii.gz with patientNNN_frameMM_gt.nii.gz; or "
            "patientNNN_frameMM.h5 (ACDC_training_volumes); or patientNNN_frameMM_slice_K.h5 (ACDC_training_slices)"
            + _TRAIN_TEST,
            load_acdc,
        ),
        "la2018": Protocol(
            "LA2018",
            "volume",
            {1: "left atrium"},
            published.LA2018,
            20,
            "patient",
            authors_draw("la2018"),
            "the 2018 Atrial Segmentation Challenge (cardiacatlas.org/atriaseg2018-challenge)",
            "SCAN/mri_norm2.h5 (as UA-MT prepared them), or SCAN/lgemri.nrrd with SCAN/laendo.nrrd" + _TRAIN_TEST,
            load_la2018,
        ),
        "synapse": Protocol(
            "Synapse",
            "volume",
            dict(enumerate(SYNAPSE_ORGANS, start=1)),
            published.SYNAPSE,
            12,
            "patient",
            authors_draw("synapse"),
            "Synapse, Multi-Atlas Labeling Beyond the Cranial Vault (synapse.org, syn3193805)",
            "train_npz/caseNNNN_sliceKKK.npz with test_vol_h5/caseNNNN.npy.h5 (as TransUNet prepared them), or "
            "img/imgNNNN.nii.gz with label/labelNNNN.nii.gz",
            load_synapse,
        ),
        "tn3k": Protocol(
            "TN3K",
            "picture",
            {1: "nodule"},
            published.TN3K,
            614,
            "picture",
            authors_draw("tn3k"),
            "TRFE-Net (github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation)",
            "trainval-image/, trainval-mask/, test-image/, test-mask/",
            load_tn3k,
        ),
        "kvasir": Protocol(
            "Kvasir-SEG",
            "picture",
            {1: "polyp"},
            published.KVASIR,
            120,
            "picture",
            authors_draw("kvasir"),
            "Kvasir-SEG (datasets.simula.no/kvasir-seg)",
            "images/ and masks/ with pictures of the same names",
            load_kvasir,
        ),
        "isic2018": Protocol(
            "ISIC 2018",
            "picture",
            {1: "lesion"},
            published.ISIC2018,
            None,
            "picture",
            authors_draw("isic2018"),
            "the ISIC challenge of 2018, task 1 (challenge.isic-archive.com/data)",
            "ISIC2018_Task1-2_Training_Input/ with ISIC2018_Task1_Training_GroundTruth/ISIC_NNNNNNN_segmentation.png, "
            "and likewise Validation and Test",
            load_isic2018,
        ),
    }
)
