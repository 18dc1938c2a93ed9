"""Running the command in a process of its own, as a person does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.blobs import AFFINE, LABELLED, SHAPE, truth_voxels, write_case
from tests.case.builders import listing
from tests.cli.forked import Forked
from tests.test_words import BUTTON

QUICK = ("--preset", "fast", "--input-size", 64, "--encoder", "efficientnet-lite0", "--device", "cpu")
_PATIENCE = 240  # seconds

# What commands import before they look at their input, and what they do when they learn.
BEFORE = tuple(
    f"napari_dinoaugseg.{name}"
    for name in ("cli.segment", "cli.evaluate", "cli.cohort", "cli.project", "session.cohort")
)
LEARNING = ("napari_dinoaugseg.session.engine", "timm")
_forked: list[Forked] = []

# A message that helps says what to do, or what a value must be.
_ADVICE = re.compile(
    r"\b(Add|Change|Check|Choose|Compare|Copy|copy|Correct|Export|export|Get|get|Give|Keep|Leave|Make|Move|Name|Number"
    r"|Paint|Rename|Save|Train|Use|use|Write|must be|should be)\b"
)


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    errors: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that standard output must be."""
        assert self.code == 0, self.errors
        assert self.output.count("\n") == 1
        return json.loads(self.output)


def run_command(folder: Path, *arguments: object, **environment: str) -> Outcome:
    """Run the command with arguments; relative paths are meant below ``folder``."""
    words = [str(argument) for argument in arguments]
    everything = {**os.environ, **environment}
    forked = next((forked for forked in _forked if forked.can_run_in(everything)), None)
    if forked is not None:
        return Outcome(*forked.run(folder, words, everything, _PATIENCE))
    done = subprocess.run(
        [sys.executable, "-m", "napari_dinoaugseg", *words],
        cwd=folder,
        env=everything,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def with_first(folder: Path) -> dict[str, str]:
    """The variables with which modules come from a folder like `without_torch` first."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture(scope="session", autouse=True)
def _forked_commands(without_torch: Path) -> Iterator[None]:
    """Have processes to copy for what most tests run: commands as usual, and those that must not load PyTorch."""
    if sys.platform != "linux":  # Windows has no fork, and that of macOS does not get on with its own libraries
        yield
        return
    with ExitStack() as stack:
        for modules, changed in ((BEFORE + LEARNING, {}), (BEFORE, with_first(without_torch))):
            forked = Forked(modules, {**os.environ, **changed})
            stack.callback(forked.close)
            _forked.append(forked)
        yield
        _forked.clear()


@pytest.fixture(scope="session")
def alone(_forked_commands: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of an environment in which dask.distributed is not installed; commands in it start quickly."""
    folder = tmp_path_factory.mktemp("without_dask")
    (folder / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'distributed' else find(name, *rest)\n"
    )
    variables = with_first(folder)
    if sys.platform != "linux":
        yield variables
        return
    forked = Forked(BEFORE + LEARNING, {**os.environ, **variables})
    _forked.append(forked)
    yield variables
    _forked.remove(forked)
    forked.close()


@pytest.fixture
def dinoaugseg(tmp_path):
    """Run the command with arguments; relative paths are meant below ``tmp_path``."""

    def run(*arguments: object, **environment: str) -> Outcome:
        return run_command(tmp_path, *arguments, **environment)

    return run


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder with their bytes, to see that nothing was written or changed."""
    return listing


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory) -> Path:
    """A folder for PYTHONPATH in which the deep-learning libraries fail as soon as anything imports them."""
    folder = tmp_path_factory.mktemp("without_torch")
    for name in ("torch", "timm", "monai"):
        (folder / f"{name}.py").write_text("raise RuntimeError('this was imported before the input was checked')\n")
    return folder


@pytest.fixture
def refused(tmp_path, without_torch):
    """Run a command that must be refused; returns what it said.

    Checked is all that holds for every refusal: exit code 1, nothing on standard output, after any notes one or two
    lines that say what to do, no traceback, and not a byte written or changed below ``tmp_path`` or in the cache.

    Args of the fixture's function:
        arguments: of the command.
        says: a pattern that the message must match.
        names: what the message must name, usually the file.
        needs_torch: False = the refusal must come before PyTorch is imported.
    """

    def run(*arguments: object, says: str, names: str | None, needs_torch: bool = False) -> str:
        cache = Path(os.environ["DINOAUGSEG_CACHE"])
        before = listing(tmp_path)
        blocked = {} if needs_torch else with_first(without_torch)
        outcome = run_command(tmp_path, *arguments, **blocked)
        assert outcome.code == 1, outcome
        assert outcome.output == ""
        lines = outcome.errors.splitlines()
        while lines and lines[0].startswith("Note: "):
            lines.pop(0)
        message = "\n".join(lines)
        assert message.startswith("Error: "), message
        assert 1 <= len(lines) <= 2, message
        assert "Traceback" not in message
        assert "unforeseen" not in message, message
        assert re.search(says, message, re.DOTALL), message
        assert names is None or names in message, message
        assert _ADVICE.search(message), message
        assert not BUTTON.search(message), message
        assert listing(tmp_path) == before
        assert not listing(cache)
        return outcome.errors

    return run


@pytest.fixture(scope="session")
def blob_files(tmp_path_factory) -> Path:
    """A folder with image.nii.gz, next.nii.gz (another patient), truth.nii.gz, and labels.nii.gz of three slices."""
    folder = tmp_path_factory.mktemp("blobs")
    for seed, name in enumerate(("image", "next")):
        image, _ = write_case(folder, seed)
        image.rename(folder / f"{name}.nii.gz")
    painted = np.zeros(SHAPE, np.uint8)
    painted[..., LABELLED] = truth_voxels()[..., LABELLED]
    nib.save(nib.Nifti1Image(painted, AFFINE), folder / "labels.nii.gz")
    return folder


@pytest.fixture
def case(blob_files, tmp_path) -> Path:
    """The blobs in a folder of the test's own, which is where the command runs."""
    shutil.copytree(blob_files, tmp_path, dirs_exist_ok=True)
    return tmp_path


@dataclass(frozen=True)
class Segmented:
    """One good run of `segment`: the folder with its files, what it printed, and its cache."""

    folder: Path
    outcome: Outcome
    cache: Path


@pytest.fixture(scope="session")
def segmented(blob_files, tmp_path_factory) -> Segmented:
    folder = tmp_path_factory.mktemp("segmented")
    shutil.copytree(blob_files, folder, dirs_exist_ok=True)
    cache = tmp_path_factory.mktemp("kept_cache")
    outputs = ("--out", "mask.nii.gz", "--model-out", "model.safetensors", "--confidence-out", "sure.nii.gz")
    outcome = run_command(
        folder,
        *("segment", "image.nii.gz", "--labels", "labels.nii.gz", *outputs, *QUICK, "--json"),
        DINOAUGSEG_CACHE=str(cache),
    )
    assert outcome.code == 0, outcome.errors
    return Segmented(folder, outcome, cache)
