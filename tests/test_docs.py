"""Everything that the documentation tells a person to type works as it is written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from napari_dinoaugseg.cluster import connection
from napari_dinoaugseg.learning import settings
from tests.conftest import REPOSITORY
from tests.docs.commands import (
    PACS,
    DocumentationError,
    check,
    check_dask_configuration,
    commands_in,
    is_command,
    options_of_dask,
    options_of_ours,
    stand_ins,
)
from tests.docs.pages import PAGES, Block, anchors_of, blocks_of, emphasised_in, links_of, name_of, spans_of
from tests.docs.samples import QUICK, write_samples
from tests.pacs.conftest import fill
from tests.pacs.servers import tiny_pacs, write_certificate

pytestmark = pytest.mark.slow
each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documentation names."""
    made = tmp_path_factory.mktemp("samples")
    write_samples(made)
    return made


@pytest.fixture
def folder(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that the documentation names, in which everything is run; little is learnt there."""
    shutil.copytree(samples, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    made = settings.Settings.__init__
    monkeypatch.setattr(settings, "PRESETS", dict.fromkeys(settings.PRESETS, QUICK))
    monkeypatch.setattr(settings.Settings, "__init__", lambda self, **chosen: made(self, **{**QUICK, **chosen}))
    return tmp_path


def run_block(block: Block, names: dict[str, object]) -> None:
    """Run a block, or check what cannot run in a test; a block of no known kind is an error."""
    if block.language == "python":
        # Line numbers of the page stand in a traceback.
        code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
        exec(code, names)
    elif block.language == "sh":
        for command in commands_in(block.code):
            try:
                check(command, run=True)
            except Exception as error:
                msg = f"{block.place}: {command!r} does not work: {error}"
                raise DocumentationError(msg) from error
    elif block.language == "yaml":
        check_dask_configuration(block.code)
    elif block.language in ("text", "bibtex"):  # a picture, or what a program answers
        wrong = [line for line in block.code.splitlines() if is_command(line)]
        assert not wrong, f"{block.place}: these are commands, so the block is `sh`: {wrong}"
    else:
        msg = f"{block.place}: a block of the kind {block.language!r}, of which nobody knows how to check it"
        raise DocumentationError(msg)


@pytest.fixture
def stand_in_pacs(folder: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PACS with the DICOM series, where the page has commands that ask one."""
    if f"{PACS} " not in page.read_text(encoding="utf-8"):
        yield
        return
    with tiny_pacs() as pacs:
        fill(pacs.url, sorted((folder / "ct_series").iterdir()))
        pacs.asks_for("ann", "of the tests")
        monkeypatch.setenv("DINOAUGSEG_PACS_PASSWORD", "of the tests")
        monkeypatch.setitem(stand_ins, PACS, pacs.url)
        write_certificate(folder)[0].rename(folder / "hospital.pem")
        yield


@pytest.fixture
def few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict cohorts in this process: each worker loads PyTorch again, and `tests/cli/test_cohort.py` starts some."""
    monkeypatch.setattr(connection, "is_installed", lambda: False)


@each_page
def test_every_code_block_works(page: Path, folder: Path, stand_in_pacs: None, few_processes: None):
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        run_block(block, names)


@each_page
def test_commands_and_options_in_sentences_exist(page: Path):
    for span in spans_of(page):
        if is_command(span):
            check(span, run=False)
        for option in re.findall(r"^--[a-z][a-z-]*", span):
            ours = option in options_of_ours() or f'"{option}"' in benchmark_sources()
            assert ours or option in options_of_dask(), f"nothing has {option}"


@each_page
def test_modules_in_sentences_exist(page: Path):
    """By their path from here, from the package or from the benchmarks, or by their name alone."""
    folders = [REPOSITORY / name for name in ("", "src/napari_dinoaugseg", "benchmarks")]
    for span in spans_of(page):
        if re.fullmatch(r"[\w./]+\.py", span):
            where = span if "/" in span else f"**/{span}"
            assert any(any(folder.glob(where)) for folder in folders[1:] + folders[:1]), f"there is no {span}"


@each_page
def test_links_lead_somewhere(page: Path):
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue  # no test reaches the network
        target, _, anchor = unquote(link).partition("#")
        path = page if not target else page.parent / target
        assert path.exists(), f"{name_of(page)}: there is no {link}"
        assert not anchor or anchor in anchors_of(path), f"{name_of(page)}: there is no {link}"


def test_the_site_builds_without_a_warning(tmp_path: Path):
    """With the navigation of mkdocs.yml: a page that is missing there, or a link that leads nowhere, is a warning."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("case.opening.open_case", "session.session.Session.train", "learning.settings.Settings"):
        assert f'id="napari_dinoaugseg.{name}"' in page


def test_the_tutorial_calls_things_as_the_window_does():
    folder = REPOSITORY / "src" / "napari_dinoaugseg"
    files = [*(folder / "gui").glob("*.py"), folder / "napari.yaml", folder / "case" / "intensity.py"]
    window = "".join(path.read_text(encoding="utf-8") for path in files)
    words = [word.strip() for found in emphasised_in(REPOSITORY / "docs" / "tutorial.md") for word in found.split("→")]
    assert len(words) > 40
    # napari writes the name of the plugin behind that of its panel; N is a number.
    words = [word.removesuffix(" (DINO-AugSeg)").partition(" N ")[0] for word in words]
    assert not [word for word in words if word not in window and word not in ("Plugins", "Preferences")]


_SHARES = {1 / 3: "a third of the steps"}


def test_the_method_page_tells_the_presets_as_they_are():
    page = (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in page.splitlines()}
    presets = [settings.Settings.of_preset(name) for name in settings.PRESETS]
    widths = ["as wide as the encoder" if one.width is None else f"{one.width} channels" for one in presets]
    assert rows["input"] == [f"{one.input_size} x {one.input_size}" for one in presets]
    assert rows["decoder"] == widths
    assert rows["steps of a first training"] == [str(one.steps) for one in presets]
    views = [f"{one.views}, then new ones" if one.adaptation else str(one.views or "none") for one in presets]
    assert rows["augmented views of a labelled slice"] == views
    learns = [f"learns after {_SHARES[one.adaptation.after]}" if one.adaptation else "frozen" for one in presets]
    assert rows["encoder"] == learns
    assert rows["neighbouring slices"] == ["where alike" if one.context is None else "none" for one in presets]
    scaled = {"window": "one window for all slices", "slice": "each slice by itself"}
    assert rows["grey values"] == [scaled[one.scaling] for one in presets]
    below = {"squares": "sums of squares", "sums": "plain sums"}
    assert rows["Dice loss divides by"] == [below[one.dice] for one in presets]
    longest = ["any" if one.clip_gradient is None else f"{one.clip_gradient:g}" for one in presets]
    assert rows["longest gradient"] == longest
    assert [numbers == "single precision" for numbers in rows["numbers"]] == [
        one.precision == "float32" for one in presets
    ]
    assert ["nearest" in chosen for chosen in rows["class of a pixel chosen"]] == [
        one.resize == "nearest" for one in presets
    ]


def benchmark_sources() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "benchmarks").rglob("*.py")))


# --- the checks themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("", "dinoaugseg encoders"),
        ("yaml", "a: 1"),
        ("python", "import napari_dinoaugseg.nothing"),
        ("text", "make test"),
        ("sh", "make tea"),
        ("sh", "dinoaugseg segmnet"),
        ("sh", "dinoaugseg segment ct.nii.gz --label painted.nii.gz --out mask.nii.gz"),
        ("sh", "dinoaugseg predict nothing.nii.gz --model nothing.safetensors --out mask.nii.gz"),
        ("sh", 'pip install "napari-dinoaugseg[pyqt4]"'),
        ("sh", 'uvx --from ".[pyqt6,nothing]" dinoaugseg demo'),
        ("sh", 'uvx --from ".[pyqt6]" napari'),
        ("sh", "python -m benchmarks.tables --nothing"),
        ("sh", "NOTHING_READS_ME=1 make test"),
        ("sh", "no-such-program --help"),
    ],
)
def test_what_does_not_work_is_noticed(language: str, code: str, folder: Path):
    block = Block(REPOSITORY / "README.md", 1, language, code)
    with pytest.raises((AssertionError, ImportError)):
        run_block(block, {})
