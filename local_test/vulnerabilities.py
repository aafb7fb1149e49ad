"""Asks for the known vulnerabilities of what the images ship: `python -m local_test.vulnerabilities` (make audit).

Exit status 1: there are some. 2: the package index told of none, so that nothing is known.
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
    """Return what pip-audit says of each package of a lock; raises SystemExit with its last line when it fails."""
    options = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run([tool, *options, "--requirement", lock], capture_output=True, text=True)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise SystemExit(f"audit: {lock} could not be audited (is there a network?): {reason}") from None
    return found


def assess(lock: Path, packages: list[dict[str, Any]]) -> int:
    """Print what is known of a lock's packages; returns the exit status."""
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        told = f"{lock}: nothing was audited, as the package index tells no vulnerabilities; pypi.org does"
        print(f"audit: {told}", file=sys.stderr)
        return 2
    for package in packages:
        if "skip_reason" in package:
            print(f"{lock}: {package['name']} was not audited: {package['skip_reason']}")
        for weakness in package.get("vulns", ()):
            mended = ", ".join(weakness["fix_versions"]) or "no version"
            print(f"{lock}: {package['name']} {package['version']}: {weakness['id']}, mended in {mended}")
    weak = sum(bool(package.get("vulns")) for package in audited)
    print(f"{lock}: {weak} of {len(audited)} audited packages have known vulnerabilities")
    return 1 if weak else 0


def main() -> None:
    """Audit both images' locks; the worse status is the program's."""
    parser = argparse.ArgumentParser(description="Ask for known vulnerabilities of the packages that the images ship.")
    parser.add_argument("--tool", default=".venv-audit/bin/pip-audit", help="pip-audit (%(default)s)")
    tool = parser.parse_args().tool
    sys.exit(max(assess(lock, ask(tool, lock)) for lock in LOCKS))


if __name__ == "__main__":
    main()
