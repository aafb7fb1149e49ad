"""The files, modules, targets, and options of all commands in the pages exist.

tests/job/test_docs_jobs.py runs the commands that train, convert, or evaluate ("```sh job").
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
def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"], cwd=PROGRAM, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(words: Sequence[str]) -> list[str]:
    return [word.strip("[]").partition("=")[0] for word in words if word.strip("[").startswith("--") and len(word) > 2]


def check_make(words: Sequence[str]) -> None:
    """Check that the targets and variables exist, and that make accepts them."""
    variables = [word.partition("=")[0] for word in words if ASSIGNMENT.fullmatch(word)]
    sources = [*PROGRAM.glob("local_test/*.sh"), PROGRAM / "Makefile"]
    text = "\n".join(source.read_text() for source in sources)
    for name in variables:
        assert re.search(rf"\b{name}\b", text), f"{name} is not used"
    targets = set(re.findall(r"(?m)^([\w-]+):", (PROGRAM / "Makefile").read_text()))
    unknown = {word for word in words if not ASSIGNMENT.fullmatch(word)} - targets
    assert not unknown, f"make has no target {unknown}"
    done = subprocess.run(["make", "-n", *words], cwd=PROGRAM, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def check_script(script: Path, words: Sequence[str]) -> None:
    """Check that a script is executable, and that the script or its module has the options."""
    assert os.access(script, os.X_OK), f"{script} is not executable"
    text = script.read_text()
    text += "".join(help_of(module) for module in re.findall(r"-m (local_test\.\w+)", text))
    for option in options(words):
        assert option in text, f"{script} has no option {option}"


def check_python(words: Sequence[str]) -> None:
    """Check that a module or file exists and has the options."""
    if words[0] == "-m":
        text = help_of(words[1])
        if len(words) > 2 and words[2] in re.findall(r"\w+", text.partition("{")[2].partition("}")[0]):
            text = help_of(*words[1:3])  # of the subcommand
    else:
        assert (PROGRAM / words[0]).is_file(), words[0]
        text = (PROGRAM / words[0]).read_text()
    for option in options(words):
        assert option in text, f"{words[:2]} has no option {option}"


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
        assert program in OUTSIDE, f"{program} is not a known program"
        if program == "docker":
            assert words[-1] in ("train", "serve"), words


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_command_exists(block: Block) -> None:
    assert commands(block)
    for words in commands(block):
        check(words)


def test_every_block_has_a_known_language_and_mark() -> None:
    assert languages() == {"", "sh", "python", "json"}
    assert {mark for block in BLOCKS for mark in block.marks} <= {"job"}


@pytest.mark.parametrize("script", sorted(PROGRAM.glob("local_test/*.sh")), ids=lambda path: path.name)
def test_every_script_has_valid_syntax(script: Path) -> None:
    subprocess.run([shutil.which("bash") or "bash", "-n", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["make", "tests"], "make has no target"),
        (["make", "test", "ARGUMENTS=x"], "ARGUMENTS is not used"),
        (["local_test/predict.sh", "--color"], "has no option --color"),
        ([".venv/bin/python", "-m", "local_test.convert", "voc", "--fast"], "has no option --fast"),
        ([".venv/bin/python", "-m", "local_test.converter"], "No module named"),
        (["curl", "localhost"], "curl is not a known program"),
        (["docker", "run", "IMAGE", "learn"], "learn"),
    ],
)
def test_wrong_command_is_found(words: list[str], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(words)
