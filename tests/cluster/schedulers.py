"""A scheduler of dask.distributed with one worker, as processes that a test can kill."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Running:
    address: str
    scheduler: subprocess.Popen
    worker: subprocess.Popen


@contextmanager
def running_scheduler(
    folder: Path, *worker_options: object, protocol: str = "tcp", **environment: str
) -> Iterator[Running]:
    """Both run in the folder and log there; the environment is theirs."""
    file = folder / "scheduler.json"
    here = ("--protocol", protocol, "--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
    with ExitStack() as stack:
        command = ("scheduler", *here, "--port", 0, "--scheduler-file", file)
        scheduler = stack.enter_context(_dask_process(folder, *command, **environment))
        command = ("worker", "--scheduler-file", file, *here, "--memory-limit", "4GB", *worker_options)
        worker = stack.enter_context(_dask_process(folder, *command, **environment))
        until = time.monotonic() + 30
        while not file.exists():
            assert time.monotonic() < until, (folder / "dask.log").read_text()
            time.sleep(0.1)
        yield Running(json.loads(file.read_text())["address"], scheduler, worker)


@contextmanager
def _dask_process(folder: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    with (folder / "dask.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()


def make_certificates(folder: Path) -> dict[str, str]:
    """Dask's configuration for keys made for a test, in environment variables."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    prefix = "DASK_DISTRIBUTED__COMM__"
    files = {"CERT": str(folder / "cert.pem"), "KEY": str(folder / "key.pem")}
    roles = {f"TLS__{role}__{kind}": file for role in ("SCHEDULER", "WORKER", "CLIENT") for kind, file in files.items()}
    values = {"REQUIRE_ENCRYPTION": "true", "TLS__CA_FILE": files["CERT"], **roles}
    return {f"{prefix}{name}": value for name, value in values.items()}
