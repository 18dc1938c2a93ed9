"""Nothing leaves the machine, nothing is started, and no code is read from data: what the interpreter itself reports.

Audit hooks of Python see every socket, process, unpickled name and compiled text, whichever library asks for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from tests.blobs import AFFINE, LABELLED, SHAPE, truth_voxels, write_case
from tests.case.builders import write_dicom
from tests.pacs.conftest import fill
from tests.pacs.servers import Pacs, tiny_pacs

WATCH = """
import json, os, sys

NETWORK = {
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
    "socket.getnameinfo", "socket.sendto", "socket.sendmsg", "http.client.connect", "urllib.Request", "ftplib.connect",
}
PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn"}
HARMLESS = {"ldconfig", "uname"}  # ctypes looks for a library, and platform for the kind of processor
FOLDER = sys.argv[1]
seen = []


def local(event, arguments):
    if event not in ("socket.connect", "socket.bind"):
        return False
    address = arguments[1]
    # urllib3 tries, when it is imported, whether it may open a port of this machine for itself.
    return isinstance(address, (str, bytes)) or (event == "socket.bind" and address[0] in ("::1", "127.0.0.1"))


def hook(event, arguments):
    if event in NETWORK and not local(event, arguments):
        seen.append(["network", event, repr(arguments)[:200]])
    elif event in PROCESSES and os.path.basename(str(arguments[0])) not in HARMLESS:
        seen.append(["process", event, repr(arguments)[:200]])
    elif event == "pickle.find_class":
        seen.append(["pickle", event, repr(arguments)])
    elif event in ("exec", "compile"):
        name = arguments[0].co_filename if event == "exec" else arguments[1]
        if str(name).startswith(FOLDER):
            seen.append(["code", event, str(name)])


sys.addaudithook(hook)
"""

LOOP = """
from napari_dinoaugseg.cli.app import app

QUICK = "--preset fast --input-size 64 --encoder efficientnet-lite0 --device cpu --json".split()
for line in (
    "segment image.nii.gz --labels labels.nii.gz --out mask.nii.gz --model-out m.safetensors QUICK",
    "predict image.nii.gz --model m.safetensors --out predicted.nii.gz --device cpu --json",
    "evaluate mask.nii.gz truth.nii.gz --json",
    "simulate image.nii.gz --truth truth.nii.gz --rounds 1 --slices-per-round 2 QUICK",
    "encoders --check auto --offline --json",
):
    arguments = []
    for word in line.split():
        arguments += QUICK if word == "QUICK" else [word]
    app(arguments, standalone_mode=False)
print(json.dumps(seen), file=sys.stderr)
"""

PACS = """
import os
from napari_dinoaugseg.cli.app import app
from napari_dinoaugseg.errors import PacsError

url = os.environ["TESTED_PACS"]
for line in (
    f"pacs find {url} --json",
    f"pacs get {url} --study 1.2.3 --out fetched --json",
    f"pacs send {url} fetched_mask.dcm --json",
):
    try:
        app(line.split(), standalone_mode=False)
    except PacsError as error:
        seen.append(["refused", str(error)])
print(json.dumps(seen), file=sys.stderr)
"""

IMPORTS = """
import importlib, pkgutil
import napari_dinoaugseg

for module in pkgutil.walk_packages(napari_dinoaugseg.__path__, "napari_dinoaugseg."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(seen), file=sys.stderr)
"""

PANEL = """
import time
from pathlib import Path
import napari, numpy as np
from qtpy.QtWidgets import QApplication
from napari_dinoaugseg.gui.panel import Panel
from napari_dinoaugseg.case import open_case

viewer = napari.Viewer()
panel = Panel(viewer)
viewer.window.add_dock_widget(panel)
control = panel.controller
control.setup.change(encoder="efficientnet-lite0", input_size=64, steps=20, views=1)
control.setup.use_device("cpu")
control.cases.open_path(Path("image.nii.gz"), background=False, plane="axial")
labels = control.session.case.read_labels(Path("labels.nii.gz"), None)
layer = control.layers.manual
moved = np.moveaxis(layer.data, control.layers.axis, 0)
for index, values in labels.items():
    moved[index, : values.shape[0], : values.shape[1]] = values
layer.refresh()
control.flush()
control.jobs.train()
until = time.monotonic() + 120
while control.jobs.busy and time.monotonic() < until:
    QApplication.processEvents()
    time.sleep(0.01)
from qtpy.QtWidgets import QFileDialog
from napari_dinoaugseg.gui import export_section
export_section.chosen, export_section.confirmed = lambda *_: 0, lambda *_: True
for write, name in (
    (panel.export.export_mask, "mask.nii.gz"),
    (panel.export.export_report, "report.json"),
    (panel.export.save_model, "model.safetensors"),
):
    QFileDialog.getSaveFileName = lambda *_, name=name, **__: (str(Path(name).absolute()), "")
    write()
    while control.jobs.busy:
        QApplication.processEvents()
        time.sleep(0.01)
    assert Path(name).exists(), name
predicted = len(control.session.labels.confidence)

# Qt and the drivers are no Python: what they have open, the system tells.
import os
inodes = set()
for handle in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        continue
    if target.startswith("socket:["):
        inodes.add(target[8:-1])
for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
    table = Path(f"/proc/self/net/{kind}")
    for line in table.read_text().splitlines()[1:] if table.exists() else []:
        if line.split()[9] in inodes:
            seen.append(["network", kind, line.strip()])
print(json.dumps([*seen, ["predicted", predicted]]), file=sys.stderr)
sys.stderr.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """image.nii.gz, truth.nii.gz, and labels.nii.gz with three painted slices."""
    made = tmp_path_factory.mktemp("trusted")
    image, _ = write_case(made)
    image.rename(made / "image.nii.gz")
    painted = np.zeros(SHAPE, np.uint8)
    painted[..., LABELLED] = truth_voxels()[..., LABELLED]
    nib.save(nib.Nifti1Image(painted, AFFINE), made / "labels.nii.gz")
    return made


def watched(folder: Path, script: str, **environment: str) -> list[list[str]]:
    """What the interpreter reported while the script ran in a process that no variable keeps from the network."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "DINOAUGSEG_OFFLINE")
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCH + script, str(folder)],
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


def test_the_hook_sees_a_connection_a_process_a_pickle_and_code(folder):
    script = """
import pickle, socket, subprocess
try:
    socket.create_connection(("127.0.0.1", 9), timeout=0.1)
except OSError:
    pass
subprocess.run([sys.executable, "-c", ""])
pickle.loads(pickle.dumps(json.JSONDecoder))
exec(compile("1", FOLDER + "/model.py", "exec"))
print(json.dumps(seen), file=sys.stderr)
"""
    assert {kind for kind, *_ in watched(folder, script)} == {"network", "process", "pickle", "code"}


@pytest.mark.slow
def test_the_commands_use_no_network_start_nothing_and_run_no_code_from_files(folder):
    assert watched(folder, LOOP) == []


@pytest.fixture
def pacs(folder: Path) -> Iterator[Pacs]:
    """A PACS with a series, of which the folder has a mask."""
    with tiny_pacs() as made:
        paths = write_dicom(folder / "of_the_pacs", np.zeros((3, 16, 16), np.int16))
        fill(made.url, paths)
        case = open_case(folder / "of_the_pacs")
        case.write_mask(folder / "fetched_mask.dcm", np.ones((3, 16, 16), np.uint16).__getitem__)
        made.asked.clear()
        yield made


@pytest.mark.slow
def test_a_pacs_is_the_only_one_that_is_contacted_and_only_when_it_is_asked(folder, pacs):
    found = watched(folder, PACS, TESTED_PACS=pacs.url)
    assert {kind for kind, *_ in found} == {"network"}
    port = pacs.url.split(":")[2].split("/")[0]
    assert [entry for entry in found if port not in entry[2]] == []
    assert any(entry.startswith("POST") for entry in pacs.asked)


@pytest.mark.slow
def test_offline_no_pacs_is_contacted(folder, pacs):
    found = watched(folder, PACS, TESTED_PACS=pacs.url, DINOAUGSEG_OFFLINE="1")
    assert [kind for kind, *_ in found] == ["refused"] * 3
    assert pacs.asked == []


@pytest.mark.slow
def test_importing_every_module_uses_no_network(folder):
    found = watched(folder, IMPORTS, QT_QPA_PLATFORM="offscreen")
    assert [entry for entry in found if entry[0] in ("network", "code")] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_panel_opens_trains_predicts_and_exports_without_the_network(folder):
    *found, (_, predicted) = watched(folder, PANEL)
    assert predicted == SHAPE[2] - len(LABELLED)
    assert [entry for entry in found if entry[0] in ("network", "code")] == []
