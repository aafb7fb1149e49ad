"""Every command of the pages names files, modules, targets and options that there are. Those that cost little are run.

What runs a job, converts or scores is run by tests/job/test_docs_jobs.py: "```sh job".
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import PROGRAM
from tests.pages import Block, blocks, commands, languages

OUTSIDE = {"docker", "git", "nvidia-smi", "pip", "pre-commit", "sudo"}
ASSIGNMENT = re.compile(r"[A-Za-z_]+=.*")
BLOCKS = blocks("sh")


@functools.cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=PROGRAM, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(words: Sequence[str]) -> list[str]:
    return [word.strip("[]").partition("=")[0] for word in words if word.strip("[").startswith("--") and len(word) > 2]


def check_make(words: Sequence[str]) -> None:
    """See that the targets and variables are there, and let make say what it would do."""
    variables = [word.partition("=")[0] for word in words if ASSIGNMENT.fullmatch(word)]
    sources = [*PROGRAM.glob("local_test/*.sh"), PROGRAM / "Makefile"]
    text = "\n".join(source.read_text() for source in sources)
    for name in variables:
        assert re.search(rf"\b{name}\b", text), f"nothing heeds {name}"
    targets = set(re.findall(r"(?m)^([\w-]+):", (PROGRAM / "Makefile").read_text()))
    unknown = {word for word in words if not ASSIGNMENT.fullmatch(word)} - targets
    assert not unknown, f"there is no make {unknown}"
    done = subprocess.run(["make", "-n", *words], cwd=PROGRAM, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def check_script(script: Path, words: Sequence[str]) -> None:
    """See that a script can be run, and that it or the module behind it knows the options."""
    assert os.access(script, os.X_OK), f"{script} cannot be run"
    text = script.read_text()
    text += "".join(help_of(module) for module in re.findall(r"-m (local_test\.\w+)", text))
    for option in options(words):
        assert option in text, f"{script} knows no {option}"


def check_python(words: Sequence[str]) -> None:
    """See that a module, or a file, is there and knows the options."""
    if words[0] == "-m":
        told = help_of(words[1])
    else:
        assert (PROGRAM / words[0]).is_file(), words[0]
        told = (PROGRAM / words[0]).read_text()
    for option in options(words):
        assert option in told, f"{words[:2]} knows no {option}"


def check(words: list[str]) -> None:
    while words and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    if "--" in words:
        check(words[words.index("--") + 1 :])
        words = words[: words.index("--")]
    if "&&" in words:
        check(words[words.index("&&") + 1 :])
        words = words[: words.index("&&")]
    program, *rest = words
    if program == "make":
        check_make(rest)
    elif program in (".venv/bin/python", "python"):
        check_python(rest)
    elif "/" in program:
        check_script(PROGRAM / program, rest)
    else:
        assert program in OUTSIDE, f"{program} is unknown here"
        if program == "docker":
            assert words[-1] in ("train", "serve"), words


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_command_is_there(block: Block) -> None:
    assert commands(block)
    for words in commands(block):
        check(words)


def test_what_could_be_a_command_says_that_it_is_one() -> None:
    assert languages() == {"", "sh", "python", "json"}
    assert {mark for block in BLOCKS for mark in block.marks} <= {"job"}


@pytest.mark.parametrize("script", sorted(PROGRAM.glob("local_test/*.sh")), ids=lambda path: path.name)
def test_every_script_can_be_read_by_its_shell(script: Path) -> None:
    subprocess.run([shutil.which("bash") or "bash", "-n", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["make", "tests"], "there is no make"),
        (["make", "test", "ARGUMENTS=x"], "nothing heeds ARGUMENTS"),
        (["local_test/predict.sh", "--color"], "knows no --color"),
        ([".venv/bin/python", "-m", "local_test.convert", "voc", "--fast"], "knows no --fast"),
        ([".venv/bin/python", "-m", "local_test.converter"], "No module named"),
        (["curl", "localhost"], "curl is unknown here"),
        (["docker", "run", "IMAGE", "learn"], "learn"),
    ],
)
def test_a_command_that_is_not_there_would_be_found(words: list[str], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(words)
