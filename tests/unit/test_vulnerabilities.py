"""make audit, with a stand-in for pip-audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROGRAM

SOUND: dict[str, Any] = {"name": "flask", "version": "3.1.3", "vulns": []}
WEAK: dict[str, Any] = {
    "name": "numpy",
    "version": "1.23.5",
    "vulns": [{"id": "CVE-1", "fix_versions": ["1.24"]}, {"id": "CVE-2", "fix_versions": []}],
}
SKIPPED: dict[str, Any] = {"name": "mxnet", "skip_reason": "it is not on the index"}


def audit(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    tool = folder / "pip-audit"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    command = [sys.executable, "-m", "local_test.vulnerabilities", "--tool", str(tool)]
    return subprocess.run(command, cwd=PROGRAM, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([SOUND], 0, "requirements/gpu.txt: 0 of 1 audited packages have known vulnerabilities"),
        ([SOUND, WEAK], 1, "requirements/cpu.txt: numpy 1.23.5: CVE-1, fixed in 1.24"),
        ([SOUND, WEAK], 1, "requirements/cpu.txt: numpy 1.23.5: CVE-2, fixed in no version"),
        ([SOUND, SKIPPED], 0, "requirements/cpu.txt: mxnet was not audited: it is not on the index"),
        ([SKIPPED], 2, "requirements/cpu.txt was not audited, because the package index provides no"),
    ],
)
def test_what_is_known_is_told(tmp_path: Path, packages: list[dict[str, Any]], status: int, told: str) -> None:
    done = audit(tmp_path, f"echo '{json.dumps({'dependencies': packages})}'; exit {status}")
    assert done.returncode == status, done.stderr
    assert told in done.stdout + done.stderr


def test_without_a_network_nothing_is_known(tmp_path: Path) -> None:
    done = audit(tmp_path, "echo 'Traceback…' >&2; echo 'ConnectionError: unreachable' >&2; exit 1")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "audit: requirements/cpu.txt could not be audited. Make sure that the network is available: "
        "ConnectionError: unreachable"
    ]
