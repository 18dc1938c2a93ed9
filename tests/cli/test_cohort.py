"""`predict` on a cohort, as a person uses it: on workers, one of which dies, and on a scheduler with certificates."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from dask.system import CPU_COUNT

from napari_dinoaugseg.session.batch import BatchPlan, fingerprint_of, predict_here
from napari_dinoaugseg.session.cohort import place_results
from napari_dinoaugseg.session.compute import ComputeConfig
from tests.blobs import write_case
from tests.case.builders import listing
from tests.cli.conftest import run_command
from tests.cluster.schedulers import make_certificates, running_scheduler

CASES = 12
PREDICT = ("predict", "cohort", "--model", "model.safetensors", "--device", "cpu", "--no-cache")


@pytest.fixture(scope="module")
def cohort_files(segmented, tmp_path_factory) -> Path:
    """A folder with a model, and in ``cohort`` 12 cases."""
    folder = tmp_path_factory.mktemp("cohort_files")
    shutil.copy(segmented.folder / "model.safetensors", folder)
    (folder / "cohort").mkdir()
    for number in range(CASES):
        image, truth = write_case(folder, number)
        image.rename(folder / "cohort" / f"patient {number}.nii.gz")
    truth.unlink()
    return folder


@pytest.fixture
def cohort(cohort_files, tmp_path) -> Path:
    """The same in a folder of the test's own."""
    shutil.copytree(cohort_files, tmp_path, dirs_exist_ok=True)
    return tmp_path


def keep(folder: Path, count: int) -> None:
    for number in range(count, CASES):
        (folder / "cohort" / f"patient {number}.nii.gz").unlink()


def masks(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in listing(folder).items() if name.endswith(".nii.gz")}


def worker_processes(program: psutil.Process) -> list[psutil.Process]:
    return [child for child in program.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_worker_that_is_killed_costs_nothing(cohort):
    """12 cases, 2 workers, one killed in the middle: the masks are those of one process, and are not made twice."""
    command = [sys.executable, "-m", "napari_dinoaugseg", *PREDICT, "--out", "out", "--json"]
    two = min(2, CPU_COUNT)
    killed = None
    with subprocess.Popen(
        [*command, "--workers", str(two)], cwd=cohort, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        for line in program.stderr:
            if line.startswith("4/12") and killed is None:
                workers = worker_processes(psutil.Process(program.pid))
                assert len(workers) == two
                killed = max(workers, key=lambda worker: worker.cpu_times().user)
                killed.send_signal(signal.SIGKILL)
        result = json.loads(program.stdout.read())
    assert killed is not None
    assert not killed.is_running()
    assert program.returncode == 0
    assert (result["done"], result["present"], result["failed"]) == (CASES, 0, 0)
    cases = [cohort / "cohort" / f"patient {number}.nii.gz" for number in range(CASES)]
    (cohort / "alone").mkdir()
    model = cohort / "model.safetensors"
    plan = BatchPlan(model, fingerprint_of(model), compute=ComputeConfig("cpu", cache=False))
    assert all(outcome.reason is None for _, outcome in predict_here(place_results(cases, cohort / "alone"), plan))
    assert masks(cohort / "out") == masks(cohort / "alone")
    assert len(masks(cohort / "out")) == CASES
    before = {path: path.stat().st_mtime_ns for path in (cohort / "out").iterdir()}
    again = run_command(cohort, *PREDICT, "--out", "out", "--json")
    assert (again.json["done"], again.json["present"]) == (0, CASES)
    assert "12 were there already, 0 to predict" in again.errors
    assert {path: path.stat().st_mtime_ns for path in (cohort / "out").iterdir()} == before


@pytest.mark.slow
def test_a_mask_of_a_cohort_is_that_of_the_case_alone(cohort, alone):
    keep(cohort, 2)
    many = run_command(cohort, *PREDICT, "--out", "out", **alone)
    assert many.code == 0, many.errors
    assert 'cases are predicted one after the other; for parallel workers use pip install "napari' in many.errors
    assert [line.split()[:3] for line in many.output.splitlines()[1:3]] == [["patient", n, "done"] for n in ("0", "1")]
    assert many.output.splitlines()[3].startswith("2 done, 0 failed, 0 were there already; ")
    one = ("predict", "cohort/patient 1.nii.gz", *PREDICT[2:], "--out", "one.nii.gz")
    assert run_command(cohort, *one).code == 0
    assert (cohort / "one.nii.gz").read_bytes() == (cohort / "out" / "patient 1.nii.gz").read_bytes()


@pytest.mark.slow
def test_a_broken_case_is_told_and_predicted_when_it_is_mended(cohort, alone):
    keep(cohort, 2)
    good = (cohort / "cohort" / "patient 0.nii.gz").read_bytes()
    (cohort / "cohort" / "patient 0.nii.gz").write_bytes(good[:500])
    outcome = run_command(cohort, *PREDICT, "--out", "out", "--json", **alone)
    assert outcome.code == 1
    result = json.loads(outcome.output)
    assert set(result) == {"model", "out", "cases", "done", "present", "failed", "seconds"}
    assert [entry["state"] for entry in result["cases"]] == ["failed", "done"]
    assert "damaged or cut off" in result["cases"][0]["reason"]
    assert set(listing(cohort / "out")) == {"patient 1.nii.gz", "patient 1.json"}
    (cohort / "cohort" / "patient 0.nii.gz").write_bytes(good)
    again = run_command(cohort, *PREDICT, "--out", "out", "--json", **alone).json
    assert [entry["state"] for entry in again["cases"]] == ["done", "present"]


@pytest.mark.slow
def test_masks_of_another_model_are_replaced_only_when_it_is_said(cohort, alone):
    keep(cohort, 1)
    assert run_command(cohort, *PREDICT, "--out", "out", **alone).code == 0
    before = listing(cohort)
    other = run_command(cohort, *PREDICT, "--out", "out", "--window", "0,900", **alone)
    assert (other.code, listing(cohort)) == (1, before)
    assert "patient 0.nii.gz is there already, of other options" in other.errors
    replaced = run_command(cohort, *PREDICT, "--out", "out", "--window", "0,900", "--overwrite", "--json", **alone)
    assert replaced.json["done"] == 1


def test_one_name_for_two_cases_is_refused(refused, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.move(write_case(tmp_path / folder)[0], tmp_path / folder / "scan.nii.gz")
    (tmp_path / "list.txt").write_text("a/scan.nii.gz\nb/scan.nii.gz\n")
    (tmp_path / "m.safetensors").write_bytes(b"model")
    refused(
        *("predict", "list.txt", "--model", "m.safetensors", "--out", "out"), says="Rename one", names="b/scan.nii.gz"
    )


def test_workers_without_the_extra_are_refused(cohort, alone):
    outcome = run_command(cohort, *PREDICT, "--out", "out", "--workers", 1, **alone)
    assert outcome.code == 1
    assert 'not installed. Use pip install "napari-dinoaugseg[cluster]"' in outcome.errors
    assert not (cohort / "out").exists()


@pytest.mark.parametrize("option", [("--workers", 2), ("--scheduler", "tls://nowhere:1"), ("--overwrite",)])
def test_options_of_cohorts_are_refused_for_one_case(option, dinoaugseg, tmp_path):
    image, _ = write_case(tmp_path)
    outcome = dinoaugseg("predict", image.name, "--model", "m.safetensors", "--out", "mask.nii.gz", *option)
    assert outcome.code == 2
    assert "one case" in outcome.errors


def test_a_wrong_model_is_refused_before_any_case(cohort, alone):
    (cohort / "model.safetensors").write_bytes(b"hello")
    outcome = run_command(cohort, *PREDICT, "--out", "out", **alone)
    assert outcome.code == 1
    assert "not a model saved by napari-dinoaugseg" in outcome.errors
    assert outcome.output == ""


# --- on a scheduler -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, str]:
    """Dask's configuration for keys made for this test, in environment variables."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def scheduler(certificates, tmp_path_factory):
    """A scheduler with certificates and one worker with a graphics card, so it says, and four threads."""
    folder = tmp_path_factory.mktemp("scheduler")
    with running_scheduler(folder, "--nthreads", 4, "--resources", "GPU=1", protocol="tls", **certificates) as running:
        yield running.address, running.scheduler


@pytest.mark.slow
def test_a_cohort_is_predicted_on_a_scheduler_with_certificates(cohort, scheduler, certificates):
    keep(cohort, 3)
    address, _ = scheduler
    assert address.startswith("tls://127.0.0.1:")
    outcome = run_command(cohort, *PREDICT, "--out", "out", "--scheduler", address, "--json", **certificates)
    assert outcome.json["done"] == 3, outcome.errors
    assert "not encrypted" not in outcome.errors
    (cohort / "out" / "patient 0.nii.gz").unlink()
    stranger = run_command(cohort, *PREDICT, "--out", "out", "--scheduler", address)
    assert stranger.code == 1
    assert "names no certificates for a client" in stranger.errors
    assert "Traceback" not in stranger.errors
    plain = address.replace("tls://", "tcp://")
    refused = run_command(cohort, *PREDICT, "--out", "out", "--scheduler", plain, **certificates)
    assert refused.code == 1
    assert "begins with tls://" in refused.errors


@pytest.mark.slow
def test_when_the_scheduler_is_lost_what_is_done_stays(cohort, scheduler, certificates):
    address, process = scheduler
    command = [sys.executable, "-m", "napari_dinoaugseg", *PREDICT, "--out", "out", "--scheduler", address, "--json"]
    environment = {**os.environ, **certificates}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=cohort, env=environment, **pipes) as program:
        errors = []
        for line in program.stderr:
            errors.append(line)
            if line.startswith("2/12"):
                process.kill()
        result = json.loads(program.stdout.read())
    assert program.returncode == 1
    assert "The connection to the scheduler" in "".join(errors)
    assert "Traceback" not in "".join(errors)
    states = [entry["state"] for entry in result["cases"]]
    assert states.count("done") >= 2
    assert {entry["reason"] for entry in result["cases"] if entry["state"] == "failed"} == {
        "not predicted: the scheduler was lost"
    }
