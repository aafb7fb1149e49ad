"""Prints the packages that the CPU image ships, with their licenses: `python -m docs.notices` (in THIRD-PARTY.md).

The names are those of `requirements/cpu.txt` that apply to the images' Python, the licenses what the installed packages
say of themselves.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path

from packaging.markers import Marker

LOCK = Path(__file__).parent.parent / "requirements" / "cpu.txt"
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2"}  # the images', Debian 12's
REMOVED = {"pip", "setuptools", "wheel"}  # at the end of an image's build

_REQUIREMENT = re.compile(r"(?m)^(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+))?")
_SPDX = (
    (r"3-Clause BSD", "BSD-3-Clause"),
    (r"Apache", "Apache-2.0"),
    (r"Mozilla Public License 2\.0.*", "MPL-2.0"),
    (r"MIT License", "MIT"),
    (r"BSD License", "BSD"),
)


def shipped() -> list[str]:
    """Name the locked packages that are in the CPU image."""
    text = LOCK.read_text(encoding="utf-8")
    found = [
        match["name"]
        for match in _REQUIREMENT.finditer(text)
        if not match["marker"] or Marker(match["marker"].strip()).evaluate(PYTHON)
    ]
    return sorted({*found} - REMOVED)


def license(package: PackageMetadata) -> str:
    """Return what a package says of its license, in SPDX's words where it uses others."""
    said = _first(package, "License-Expression") or _first(package, "License")
    if not said or len(said) > 60 or said == "Dual License":
        classifiers = package.get_all("Classifier") or []
        names = (name.rpartition("::")[2].strip() for name in classifiers if name.startswith("License"))
        said = " OR ".join(map(_spdx, names))
    return _spdx(said) if " OR " not in said and " AND " not in said else said


def home(package: PackageMetadata) -> str:
    """Return the address of a package's home, if it says one."""
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
