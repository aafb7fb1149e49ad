"""What is in the image, and what is not."""

from __future__ import annotations

import json
import re

from tests.conftest import PROGRAM
from tests.container.conftest import Image

GIGABYTE = 10**9


def test_the_image_is_no_larger_than_stated(image: Image) -> None:
    inspected = image.inspect()
    gpu = any(variable.startswith("NVIDIA_VISIBLE_DEVICES=") for variable in inspected["Config"]["Env"])
    assert inspected["Size"] < (4 if gpu else 1.2) * GIGABYTE


def test_version_and_revision_are_labels(image: Image) -> None:
    labels = image.inspect()["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"]
    assert labels["org.opencontainers.image.revision"] not in ("", "unknown")


def test_nothing_stands_between_the_signals_and_the_program(image: Image) -> None:
    config = image.inspect()["Config"]
    assert not config.get("Entrypoint")
    assert (config["Cmd"], config["WorkingDir"]) == (["train"], "/opt/program")


def test_no_compilers_installers_tests_or_addresses_are_inside(image: Image) -> None:
    for tool in ("gcc", "cc", "make", "pip", "pip3", "pytest", "jupyter", "curl"):
        done = image.run("sh", "-c", f"command -v {tool}", options=("--network", "none"))
        assert (done.returncode != 0, done.stdout) == (True, ""), f"{tool} is in the image: {done.stdout}"
    done = image.run(
        "sh", "-c", "find /etc/pip.conf /root /requirements -name '*pip*' -o -name '*.crt' -o -name '*.txt'"
    )
    assert done.stdout.strip() == ""


def test_locale_clock_and_output_are_settled(image: Image) -> None:
    program = (
        "import locale, sys, time; "
        "print(locale.getpreferredencoding(), time.tzname[0], sys.dont_write_bytecode, sys.stdout.write_through)"
    )
    done = image.run("python", "-c", program, options=("--network", "none"))
    assert done.stdout.lower().split() == ["utf-8", "utc", "true", "true"]


def test_every_library_resolves_but_for_the_driver(image: Image) -> None:
    # what lies in a wheel's *.libs finds the rest through the library that loads it
    script = "find / -xdev -name '*.so*' -type f -not -path '*.libs/*' -exec ldd {} + 2> /dev/null | grep 'not found'"
    done = image.run("sh", "-c", script, options=("--network", "none"))
    missing = {line.split()[0] for line in done.stdout.splitlines()}
    assert missing <= {"libcuda.so.1"}, missing


def test_the_bill_of_materials_names_every_package_that_is_there(image: Image) -> None:
    listed = json.loads(image.run("cat", "/opt/program/sbom.json", options=("--network", "none")).stdout)
    told = {f"{component['name']}=={component['version']}" for component in listed["components"]}
    program = "import importlib.metadata as m; print(*{f'{d.name}=={d.version}' for d in m.distributions()}, sep='\\n')"
    there = image.run("/opt/venv/bin/python", "-c", program, options=("--network", "none")).stdout.split()
    assert {name.replace("_", "-").lower() for name in told} == {name.replace("_", "-").lower() for name in there}
    assert any(re.match("mxnet(-cu112)?==", name) for name in told)


def test_licence_and_notices_are_inside(image: Image) -> None:
    for name in ("LICENSE", "NOTICE", "THIRD-PARTY.md"):
        done = image.run("cat", f"/opt/program/{name}", options=("--network", "none"))
        assert done.stdout == (PROGRAM / name).read_text()
