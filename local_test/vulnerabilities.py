"""List known vulnerabilities of the packages in the images: `python -m local_test.vulnerabilities` (make audit).

Exit status 1: there are vulnerabilities. 2: the package index provides no vulnerability data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCKS = (Path("requirements/cpu.txt"), Path("requirements/gpu.txt"))


def ask(tool: str, lock: Path) -> list[dict[str, Any]]:
    """Return the results of pip-audit for a lock file; raises SystemExit with its last line if it fails."""
    options = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run([tool, *options, "--requirement", lock], capture_output=True, text=True)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip() or "it printed no error").splitlines()[-1]
        raise SystemExit(
            f"audit: {lock} could not be audited. Make sure that the network is available: {reason}"
        ) from None
    return found


def assess(lock: Path, packages: list[dict[str, Any]]) -> int:
    """Print the vulnerabilities of the packages of a lock file; returns the exit status."""
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        reason = "the package index provides no vulnerability data. Use pypi.org"
        print(f"audit: {lock} was not audited, because {reason}", file=sys.stderr)
        return 2
    for package in packages:
        if "skip_reason" in package:
            print(f"{lock}: {package['name']} was not audited: {package['skip_reason']}")
        for weakness in package.get("vulns", ()):
            fixed = ", ".join(weakness["fix_versions"]) or "no version"
            print(f"{lock}: {package['name']} {package['version']}: {weakness['id']}, fixed in {fixed}")
    weak = sum(bool(package.get("vulns")) for package in audited)
    print(f"{lock}: {weak} of {len(audited)} audited packages have known vulnerabilities")
    return 1 if weak else 0


def main() -> None:
    """Audit the lock files of both images, and exit with the higher status."""
    parser = argparse.ArgumentParser(description="List known vulnerabilities of the packages in the images.")
    parser.add_argument("--tool", default=".venv-audit/bin/pip-audit", help="pip-audit (%(default)s)")
    tool = parser.parse_args().tool
    sys.exit(max(assess(lock, ask(tool, lock)) for lock in LOCKS))


if __name__ == "__main__":
    main()
