"""PyTorch comes into the process by one way only, prepared before it is loaded."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from napari_dinoaugseg import native
from napari_dinoaugseg.cli import app

SOURCE = Path(native.__file__).parent
HEAVY = {"torch", "timm", "torchvision", "pytorch_wavelets", "triton"}
SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


# --- every import inside a function holds the lock --------------------------------------------------------------------


def modules() -> dict[str, ast.Module]:
    """All modules of the package, parsed, by name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text("utf-8"))
    return found


def imported(node: ast.stmt) -> set[str]:
    """The names of modules that a statement may import."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def bringing_torch(trees: dict[str, ast.Module]) -> set[str]:
    """The modules of the package that import PyTorch when they are imported."""
    at_once = {
        name: set().union(*(imported(node) for node in tree.body if not is_for_types(node)))
        for name, tree in trees.items()
    }
    heavy = set(HEAVY)
    while True:
        more = {
            name
            for name, targets in at_once.items()
            if any(target in heavy or target.partition(".")[0] in HEAVY for target in targets)
        }
        if more <= heavy:
            return heavy
        heavy |= more


def unguarded(tree: ast.AST, heavy: set[str], *, inside: bool = False, guarded: bool = False) -> list[int]:
    """The lines of imports inside functions that bring PyTorch without `with importing_torch():` around them."""
    lines = []
    for node in ast.iter_child_nodes(tree):
        if is_for_types(node):
            continue
        if inside and not guarded and isinstance(node, ast.Import | ast.ImportFrom):
            targets = imported(node)
            if any(target in heavy or target.partition(".")[0] in HEAVY for target in targets):
                lines.append(node.lineno)
        holds = isinstance(node, ast.With) and any(
            isinstance(item.context_expr, ast.Call)
            and isinstance(item.context_expr.func, ast.Name)
            and item.context_expr.func.id == "importing_torch"
            for item in node.items
        )
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        lines += unguarded(node, heavy, inside=inside or function, guarded=(guarded or holds) and not function)
    return lines


def test_every_lazy_import_of_pytorch_is_prepared():
    trees = modules()
    heavy = bringing_torch(trees)
    assert {"napari_dinoaugseg.model.specs", "napari_dinoaugseg.session.engine"} <= heavy
    wrong = {name: lines for name, tree in trees.items() if (lines := unguarded(tree, heavy))}
    assert wrong == {}


def test_nothing_that_a_window_loads_brings_pytorch_at_once():
    heavy = bringing_torch(modules())
    assert [name for name in heavy if name.startswith(("napari_dinoaugseg.gui", "napari_dinoaugseg.hooks"))] == []


# --- whoever asks, Triton's library is there before PyTorch -----------------------------------------------------------

# Each way runs in a copy of the process, which ends when PyTorch begins to be imported.
WAYS = """
import os, sys, threading, warnings
from pathlib import Path
import numpy as np
from napari_dinoaugseg.errors import DinoAugSegError
from napari_dinoaugseg.gui.case_section import look_for_weights
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.batch import SavedModel
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.local import engine_class, load_libraries
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.case import case_from_array
from napari_dinoaugseg.cli.encoders import run_encoders

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "torchvision", "triton") and name != "triton":
            there = "libtriton" in Path("/proc/self/maps").read_text()
            os.write(out, f"{name} {there} {os.environ.get('OMP_WAIT_POLICY')}\\n".encode())
            os._exit(0)
        return None

def session():
    made = Session(case_from_array(np.zeros((3, 16, 16), np.float32)), Settings(), ComputeConfig("cpu", cache=False))
    made.labels.add_class("square")
    made.paint(0, np.eye(16, dtype=np.uint16))
    return made

def drawn(events):
    for _ in events:
        pass

ways = {
    "look for an encoder": lambda: look_for_weights("auto", None, "cpu"),
    "load the libraries": lambda: load_libraries("efficientnet-lite0"),
    "engine": engine_class,
    "train": lambda: drawn(session().train()),
    "load a model": lambda: session().load_model(Path("model.safetensors")),
    "use a saved model": lambda: SavedModel(Path("model.safetensors")).load(),
    "list the encoders": lambda: run_encoders(None, None, "cpu", as_json=True),
}
for name, way in ways.items():
    inner, out = os.pipe()
    if os.fork() == 0:
        sys.meta_path.insert(0, Watch())
        thread = threading.Thread(target=way)
        thread.start()
        thread.join()
        os._exit(1)
    os.close(out)
    print(name, "|", os.read(inner, 200).decode().strip())
    os.close(inner)
    os.wait()
"""


@pytest.mark.skipif(
    not hasattr(os, "RTLD_DEEPBIND") or find_spec("triton") is None, reason="no Triton whose LLVM could clash"
)
def test_whoever_asks_for_pytorch_the_two_copies_of_llvm_are_apart():
    environment = {name: value for name, value in os.environ.items() if name not in SPINNING}
    done = subprocess.run(
        [sys.executable, "-c", WAYS], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert [line for line in lines if not line.endswith("| torch True PASSIVE")] == []


# --- the window goes on while PyTorch is loaded -----------------------------------------------------------------------

# Counts the turns of another thread while the libraries of PyTorch's extension are loaded; ends before PyTorch runs.
TURNS = """
import os, sys, threading, time
from pathlib import Path
from napari_dinoaugseg import native

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch._C":
            print("libtorch_python" in Path("/proc/self/maps").read_text(), turns, flush=True)
            os._exit(0)

def go_on():
    global turns
    while True:
        time.sleep(0.001)
        turns += counting

class Counting(native._Libraries):
    def find_spec(self, name, path=None, target=None):
        global counting
        counting = name == "torch._C"
        super().find_spec(name, path, target)
        counting = False

turns, counting = 0, False
native._Libraries = Counting
threading.Thread(target=go_on, daemon=True).start()
sys.meta_path.insert(0, Watch())
with native.importing_torch():
    import torch
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what a process has loaded")
def test_other_threads_go_on_while_the_libraries_of_pytorch_are_loaded():
    done = subprocess.run([sys.executable, "-c", TURNS], capture_output=True, text=True, check=False, timeout=120)
    loaded, turns = done.stdout.split()
    assert loaded == "True"
    assert int(turns) > 5


# --- how threads wait -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ("PASSIVE", "10000", "1")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None, None)),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, ("PASSIVE", None, None)),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7", "1")),
        ({"KMP_BLOCKTIME": "0"}, ("PASSIVE", "10000", "0")),
    ],
)
def test_threads_spin_briefly_unless_the_person_said_otherwise(monkeypatch, said, expected):
    for name in SPINNING:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # the second time changes nothing
        native.limit_spinning()
        assert tuple(os.environ.get(name) for name in SPINNING) == expected
    for name in SPINNING:  # also what was set beside monkeypatch
        os.environ.pop(name, None)


def test_no_garbage_is_looked_for_during_an_import_and_again_after_it():
    assert gc.isenabled()
    with native.importing_torch():
        with native.importing_torch():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), native.importing_torch():
        raise ImportError
    assert gc.isenabled()
    gc.disable()  # the choice of whoever runs the program
    try:
        with native.importing_torch():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("kind", "frozen"), [("nanobind", []), ("pybind11_builtins", [True])])
def test_the_command_leaves_garbage_only_where_triton_counts_no_leaks(
    monkeypatch: pytest.MonkeyPatch, kind: str, frozen: list[bool]
) -> None:
    library = ModuleType("triton._C.libtriton")
    library.getenv = type("nb_func", (), {"__module__": kind})()
    monkeypatch.setitem(sys.modules, library.__name__, library)
    found: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: found.append(True))
    app._collect_no_more()
    assert found == frozen
