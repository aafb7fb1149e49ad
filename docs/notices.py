"""Print the packages in the CPU container image with their licenses: `python -m docs.notices` (in THIRD-PARTY.md).

The names are from `requirements/cpu.txt`, for the Python version of the container images. The licenses are from the
metadata of the installed packages.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path

from packaging.markers import Marker

LOCK = Path(__file__).parent.parent / "requirements" / "cpu.txt"
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2"}  # of the container images (Debian 12)
REMOVED = {"pip", "setuptools", "wheel"}  # at the end of the image build

_REQUIREMENT = re.compile(r"(?m)^(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+))?")
_SPDX = (
    (r"3-Clause BSD", "BSD-3-Clause"),
    (r"Apache", "Apache-2.0"),
    (r"Mozilla Public License 2\.0.*", "MPL-2.0"),
    (r"MIT License", "MIT"),
    (r"BSD License", "BSD"),
)


def shipped() -> list[str]:
    """Return the names of the locked packages in the CPU container image."""
    text = LOCK.read_text(encoding="utf-8")
    found = [
        match["name"]
        for match in _REQUIREMENT.finditer(text)
        if not match["marker"] or Marker(match["marker"].strip()).evaluate(PYTHON)
    ]
    return sorted({*found} - REMOVED)


def license(package: PackageMetadata) -> str:
    """Return the license of a package from its metadata, as an SPDX identifier if it is known."""
    said = _first(package, "License-Expression") or _first(package, "License")
    if not said or len(said) > 60 or said == "Dual License":
        classifiers = package.get_all("Classifier") or []
        names = (name.rpartition("::")[2].strip() for name in classifiers if name.startswith("License"))
        said = " OR ".join(map(_spdx, names))
    return _spdx(said) if " OR " not in said and " AND " not in said else said


def home(package: PackageMetadata) -> str:
    """Return the URL of the home page of a package, or an empty string."""
    named = [entry.split(", ", 1) for entry in package.get_all("Project-URL") or []]
    addresses = {name.lower(): address for name, address in named}
    wanted = ("homepage", "source", "source code", "repository", "documentation")
    found = _first(package, "Home-page") or next((addresses[name] for name in wanted if name in addresses), "")
    return re.sub("^http:", "https:", found)


def _first(package: PackageMetadata, field: str) -> str:
    return str((package.get_all(field) or [""])[0])


def _spdx(words: str) -> str:
    return next((name for pattern, name in _SPDX if re.search(pattern, words)), words)


def main() -> None:
    """Print the table."""
    print("| package | license | home |")
    print("| --- | --- | --- |")
    for name in shipped():
        package = metadata(name)
        print(f"| {name} | {license(package) or '–'} | {home(package) or f'https://pypi.org/project/{name}/'} |")


if __name__ == "__main__":
    main()
