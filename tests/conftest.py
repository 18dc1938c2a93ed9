"""What every test shares: no network, nothing in the person's own folders, and the developers' labelled images."""

from __future__ import annotations

import gc
import multiprocessing.dummy
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from napari_dinoaugseg.native import importing_torch, keep_llvm_apart

_loaded = 0  # modules at the last look
# How long a test takes that draws or trains, by its fixtures.
_SECONDS_WITH = {"make_napari_viewer": 2, "panel": 2, "new_session": 2, "make_store": 1}
KEPT_WINDOWS: list[Any] = []  # the window that tests of the panel share (tests/gui/kept_window.py), if there is one
REPOSITORY = Path(__file__).resolve().parent.parent

# huggingface_hub reads this once, when it is imported, and test modules import it while they are collected.
os.environ["HF_HUB_OFFLINE"] = "1"
# Neither the person's preferences nor those of other processes that test at the same time: napari reads this when it
# is imported, and then keeps preferences in memory only.
os.environ["NAPARI_CONFIG"] = ""

# A viewer makes so many objects that Python would look for garbage 250 times in a test; napari's fixture and the one
# below do it at the right moments.
gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep fixtures that outlive one test away from the person's own cache and settings."""
    keep_llvm_apart()  # a test may draw a window before another one, of the engine, imports timm
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DINOAUGSEG_CACHE", str(tmp_path_factory.mktemp("session_cache")))
        patch.setenv("DINOAUGSEG_SESSIONS", str(tmp_path_factory.mktemp("session_sessions")))
        # Features are not kept on a disk that is nearly full, as that of the machine that tests may be.
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2**40, used=0, free=2**40))
        yield


@pytest.fixture(scope="module", autouse=True)
def _module_cache(_session_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give fixtures of a module an empty cache: another module may have encoded the same images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DINOAUGSEG_CACHE", str(tmp_path_factory.mktemp("module_cache")))
        yield


@pytest.fixture(autouse=True)
def _what_is_here_is_no_garbage(request: pytest.FixtureRequest) -> None:
    """Leave out what is in memory by now when garbage is looked for, as napari does several times a test.

    It takes a seventh of a second each time with the deep-learning libraries in memory.
    """
    global _loaded
    if "make_napari_viewer" in request.fixturenames or len(sys.modules) > _loaded + 100:
        _loaded = len(sys.modules)
        gc.collect()
        gc.freeze()


def look_at_everything() -> None:
    """Look for garbage among all that is in memory, until the next test begins."""
    global _loaded
    gc.unfreeze()
    _loaded = 0


@pytest.fixture(scope="session")
def _shared_by_viewers() -> Iterator[None]:
    """Compute once what each viewer would compute again."""
    from tests.viewers import share_between_viewers

    with pytest.MonkeyPatch.context() as patch:
        share_between_viewers(patch)
        yield


@pytest.hookimpl(trylast=True)  # after the fixtures of the test
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Close the window that tests of the panel share before one that opens another, and before other tests."""
    while KEPT_WINDOWS and (nextitem is None or not _leaves_window(nextitem)):
        KEPT_WINDOWS.pop().close()


@pytest.fixture
def _live_is_off(_shared_by_viewers: None) -> Iterator[None]:
    """Switch Live off, as a person does: what a test trains is then what it says. The tests of Live switch it on."""
    from napari_dinoaugseg.gui.setup import remember_live

    remember_live(on=False)
    yield
    remember_live(on=True)


@pytest.fixture
def make_napari_viewer(_live_is_off: None, make_napari_viewer: Callable[..., object]) -> Callable[..., object]:
    """Napari's fixture, with less to do for each viewer, for a person who has switched Live off."""
    return make_napari_viewer


@pytest.fixture(scope="session")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give new folders that are not made yet: pytest's own take a look at all that it made before."""
    everything = tmp_path_factory.mktemp("own")
    return (everything / str(number) for number in count())


@pytest.fixture(autouse=True)
def _own_cache(_session_cache: None, _folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test an empty cache, so that what one test encoded cannot help the next."""
    monkeypatch.setenv("DINOAUGSEG_CACHE", str(next(_folders)))
    # Nor offer the labels that it saved.
    monkeypatch.setenv("DINOAUGSEG_SESSIONS", str(next(_folders)))
    # The panel sets it from the person's preferences; what one test prefers must not reach the next.
    monkeypatch.setenv("DINOAUGSEG_OFFLINE", "")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of the developers' labelled images, or skip: they are not ours to publish."""
    named = os.environ.get("DINOAUGSEG_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no labelled images in {folder}; name their folder in DINOAUGSEG_TEST_DATA")
    return folder


@pytest.fixture
def nnunet_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], None]:
    """Give nnU-Net's own check, which also fails on what nnU-Net merely prints."""
    with importing_torch():
        module = pytest.importorskip(
            "nnunetv2.experiment_planning.verify_dataset_integrity",
            reason="nnunetv2 is not installed: pip install --no-deps -r tools/without_dependencies.txt",
            exc_type=ImportError,
        )
    # Threads instead of processes, each of which would import PyTorch.
    monkeypatch.setattr(module.multiprocessing, "get_context", lambda _: multiprocessing.dummy)

    def check(folder: Path) -> None:
        capsys.readouterr()
        module.verify_dataset_integrity(str(folder), num_processes=1)
        printed = capsys.readouterr().out
        assert "verify_dataset_integrity Done" in printed
        assert not re.search(r"(?i)\b(warning|error(?! messages)|failed)\b", printed)

    return check


@pytest.hookimpl(trylast=True)  # when those that are not wanted have left
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that in the end neither process waits for the other.

    Those of the panel come first, one after the other: each test of something else closes the window that they share.
    Within a file, the tests that share it come last, so that none of the others closes it.
    """
    seconds: Counter[Path] = Counter()
    for item in items:
        seconds[item.path] += _usual_seconds(item)
    panel = REPOSITORY / "tests" / "gui"
    items.sort(
        key=lambda item: (item.path.parent != panel, -seconds[item.path], str(item.path), shares_window(item)),
    )


def shares_window(item: pytest.Item) -> bool:
    """Whether a test is marked to share the window of the tests before it, and asks for no more than the case in it.

    A test that closes it is marked with False.
    """
    names = {*getattr(item, "fixturenames", ())}
    wanted = {"panel", "case"} <= names and "make_napari_viewer" not in names
    marker = item.get_closest_marker("shared_window")
    return wanted and marker is not None and marker.args != (False,)


def _leaves_window(item: pytest.Item) -> bool:
    """Whether the shared window may stay open: a test of the panel uses it, or opens none."""
    opens = {"make_napari_viewer", "panel"} & {*getattr(item, "fixturenames", ())}
    return shares_window(item) or (item.path.parent.name == "gui" and not opens)


def _usual_seconds(item: pytest.Item) -> float:
    """About how long a test takes, by its mark and what it asks for."""
    if item.get_closest_marker("slow"):
        return 40 if item.get_closest_marker("timeout") else 5
    if shares_window(item):
        return 1
    return max(_SECONDS_WITH.get(name, 0.1) for name in ("", *getattr(item, "fixturenames", ())))


_SLOW_LEFT_OUT = pytest.StashKey[int]()  # how many slow tests of those that were named


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the slow tests that were left out."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.config.stash[_SLOW_LEFT_OUT] = item.config.stash.get(_SLOW_LEFT_OUT, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the process that sums up know of them, where the tests run in others."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["slow_left_out"] = session.config.stash.get(_SLOW_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_testnodedown(node: Any) -> None:
    """Hear of them."""
    node.config.stash[_SLOW_LEFT_OUT] = getattr(node, "workeroutput", {}).get("slow_left_out", 0)


_FIGURES = {"fuzz": "fuzz", "figures": "attacks survived"}  # what tests record of long runs, and how it is headed


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Say at the end why nothing ran, or what the attacks did."""
    slow = config.stash.get(_SLOW_LEFT_OUT, 0)
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and slow:
        terminalreporter.line(f"All {slow} chosen tests are slow: run `make test-slow` with the same ARGS.", red=True)
    reports = [report for group in ("passed", "failed") for report in terminalreporter.getreports(group)]
    recorded = [entry for report in reports for entry in report.user_properties]
    for key, title in _FIGURES.items():
        lines = [str(value) for name, value in recorded if name == key]
        if lines:
            terminalreporter.section(title)
            terminalreporter.write("\n".join([*lines, ""]))
