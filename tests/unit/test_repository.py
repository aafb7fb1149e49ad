"""What stands around the program: licenses, notices, pins, and what others run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.notices import REMOVED, shipped
from tests.conftest import PROGRAM
from tests.pages import quoted, table_after

LOCKS = sorted((PROGRAM / "requirements").glob("*.txt"))


def pins(lock: Path) -> set[str]:
    return set(re.findall(r"(?m)^([a-z0-9._-]+==\S+)", lock.read_text()))


def names(lock: Path) -> set[str]:
    return {pin.partition("==")[0] for pin in pins(lock)}


def test_the_licence_is_whole() -> None:
    text = (PROGRAM / "LICENSE").read_text()
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert text.rstrip().endswith("limitations under the License.")


def test_what_only_the_cuda_image_ships_is_named() -> None:
    rows = table_after(PROGRAM / "THIRD-PARTY.md", "## Also in the CUDA image")
    told = {name for row in rows for name in row[0].split(", ")}
    lock = PROGRAM / "requirements"
    assert told == names(lock / "gpu.txt") - names(lock / "cpu.txt") - REMOVED


def test_what_both_images_ship_is_in_the_table() -> None:
    rows = table_after(PROGRAM / "THIRD-PARTY.md", "<!-- rendered by: .venv/bin/python -m docs.notices -->")
    assert [row[0] for row in rows] == shipped()
    assert {"mxnet", "pillow", "flask"} <= {*shipped()} <= names(PROGRAM / "requirements/cpu.txt")
    assert all(row[1] != "–" and row[2].startswith("https://") for row in rows)


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.cpu"])
def test_licence_notices_and_bill_of_materials_are_in_the_images(dockerfile: str) -> None:
    text, sent = (PROGRAM / dockerfile).read_text(), (PROGRAM / ".dockerignore").read_text().splitlines()
    final = text.rpartition("\nFROM ")[2]
    assert "COPY --from=described /sbom.json /opt/program/" in final
    for name in ("LICENSE", "NOTICE", "THIRD-PARTY.md"):
        assert (PROGRAM / name).is_file()
        assert f"!{name}" in sent
        assert re.search(rf"(?m)^COPY .*\b{re.escape(name)} .*\./$", final)


def test_the_pins_that_are_explained_are_those_of_the_locks() -> None:
    locked = set.union(*(pins(lock) for lock in LOCKS))
    told = {pin for row in table_after(PROGRAM / "SECURITY.md", "<!-- tested: pins -->") for pin in quoted(row[0])}
    assert {pin.replace(" ", "==") for pin in told} <= locked
    written = "\n".join((PROGRAM / "requirements" / name).read_text() for name in ("common.in", "cpu.in"))
    for pin in re.findall(r"(?m)^(\S+==\S+)", written):  # what a person has pinned has a reason
        assert pin.replace("==", " ") in told


def test_every_lock_is_resolved_by_make_lock() -> None:
    (listed,) = re.findall(r"(?m)^LOCKS := (.+)$", (PROGRAM / "Makefile").read_text())
    assert {lock.stem for lock in LOCKS} == set(listed.split())


def test_others_run_what_is_run_here() -> None:
    assert "entry: make lint" in (PROGRAM / ".pre-commit-config.yaml").read_text()
    assert "- run: .ci/run" in (PROGRAM / ".github/workflows/ci.yml").read_text()
    assert {"failure", "audit"} <= set(
        re.findall(r"(?m)^    id: (\w+)$", (PROGRAM / ".github/ISSUE_TEMPLATE/problem.yml").read_text())
    )
