"""The scripts of local_test as a person runs them, with stand-ins for the program and for the container engine."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TRAIN = """
import json, os, pathlib
root = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
config = json.loads((root / "input/config/inputdataconfig.json").read_text())
(root / "model/model_best.params").write_text(config["train"]["TrainingInputMode"])
"""
SERVE = """
import json, os, pathlib
root = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
told = [os.environ[name] for name in ("SAGEMAKER_BIND_TO_PORT", "SERVE_UI")]
print(json.dumps([*told, sorted(p.name for p in (root / "model").iterdir())]))
"""
ENGINE = """#!/bin/sh
echo "$@" > "$ENGINE_CALL"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository whose `train` and `serve` are stand-ins."""
    root = tmp_path / "tree"
    root.mkdir()
    for name, target in (("local_test", ROOT / "local_test"), ("container", ROOT / "container"), (".venv", sys.prefix)):
        (root / name).symlink_to(target)
    (root / "train").write_text(TRAIN)
    (root / "serve").write_text(SERVE)
    return root


def run(tree: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TEST_DIR": str(tree / "job"), **variables}
    script = str(tree / "local_test" / command[0])
    return subprocess.run([script, *command[1:]], env=environment, capture_output=True, text=True, timeout=60)


def put_input(tree: Path) -> Path:
    """Write a job's smallest input; returns the job's root."""
    job = tree / "job"
    command = [sys.executable, "-m", "local_test.demo_data", "--output", str(job), "--train", "2", "--validation", "1"]
    subprocess.run(command, check=True)
    return job


def engine(tree: Path) -> dict[str, str]:
    """Put a `docker` on the path that only notes how it was called."""
    folder = tree / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "docker").write_text(ENGINE)
    (folder / "docker").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "ENGINE_CALL": str(tree / "call")}


def members(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return sorted(os.path.normpath(member.name) for member in tar if member.isfile())


def test_training_starts_from_an_empty_model_and_packs_it(tree: Path) -> None:
    job = put_input(tree)
    for stale in ("model/stale", "output/failure"):
        (job / stale).parent.mkdir(exist_ok=True)
        (job / stale).write_text("")
    answer = run(tree, "train_local.sh")
    assert answer.returncode == 0, answer.stderr
    assert members(job / "model.tar.gz") == ["model_best.params"]
    assert not (job / "output" / "failure").exists()
    assert (job / "output" / "data").is_dir()


def test_training_makes_the_demo_data_when_there_is_none(tree: Path) -> None:
    answer = run(tree, "train_local.sh")
    assert answer.returncode == 0, answer.stderr
    assert len(list((tree / "job" / "input" / "data" / "train").iterdir())) == 120


def test_pipe_mode_lasts_for_one_job(tree: Path) -> None:
    job = put_input(tree)
    config = job / "input" / "config" / "inputdataconfig.json"
    before = config.read_text()
    answer = run(tree, "train_local.sh", "--pipe")
    assert answer.returncode == 0, answer.stderr
    assert (job / "model" / "model_best.params").read_text() == "Pipe"
    assert config.read_text() == before
    assert not [path for path in (job / "input" / "data").iterdir() if path.is_fifo()]


@pytest.mark.parametrize("options", [[], ["--pipe"]])
def test_failed_job_fails_the_script_and_packs_nothing(tree: Path, options: list[str]) -> None:
    job = put_input(tree)
    (tree / "train").write_text("raise SystemExit(3)")
    answer = run(tree, "train_local.sh", *options)
    assert answer.returncode == 3
    assert not (job / "model.tar.gz").exists()


def test_image_is_run_as_the_platform_runs_it(tree: Path) -> None:
    job = put_input(tree)
    answer = run(tree, "train_local.sh", "my-image:1", **engine(tree))
    assert answer.returncode == 0, answer.stderr
    assert (tree / "call").read_text().split() == ["run", "--rm", "-v", f"{job}:/opt/ml:z", "my-image:1", "train"]
    answer = run(tree, "serve_local.sh", "my-image:1", PORT="9001", **engine(tree))
    assert answer.returncode == 0, answer.stderr
    mount = f"{job}/serve/model:/opt/ml/model:ro,z"
    options = ["-p", "9001:8080", "-e", "SERVE_UI", "-v", mount]
    assert (tree / "call").read_text().split() == ["run", "--rm", *options, "my-image:1", "serve"]


def test_serving_unpacks_the_archive(tree: Path) -> None:
    put_input(tree)
    assert run(tree, "train_local.sh").returncode == 0
    (tree / "job" / "model" / "later").write_text("not in the archive")
    answer = run(tree, "serve_local.sh", PORT="9002")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == ["9002", "1", ["model_best.params"]]
    assert "http://localhost:9002/" in answer.stderr
    answer = run(tree, "serve_local.sh", PORT="9002", SERVE_UI="0")
    assert json.loads(answer.stdout) == ["9002", "0", ["model_best.params"]] and not answer.stderr


def test_serving_without_an_archive_says_what_to_do(tree: Path) -> None:
    answer = run(tree, "serve_local.sh")
    assert answer.returncode == 1
    assert "model.tar.gz" in answer.stderr and "train_local.sh" in answer.stderr


@pytest.mark.parametrize("script", ["train_local.sh", "demo.sh"])
def test_missing_environment_is_named_with_its_remedy(tree: Path, script: str) -> None:
    (tree / ".venv").unlink()
    answer = run(tree, script)
    assert answer.returncode == 1
    assert "make setup" in answer.stderr


class Model(http.server.BaseHTTPRequestHandler):
    """Answers a 4×3 photograph with a mask of one pixel of class 2, and anything else with 415."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Type"] == "image/png" and self.headers["Accept"] == "image/png":
            with Image.open(io.BytesIO(body)) as photo:
                assert photo.size == (4, 3)
            mask = Image.new("L", (4, 3))
            mask.putpixel((1, 2), 2)
            answer = io.BytesIO()
            mask.save(answer, "PNG")
            self.reply(200, answer.getvalue())
        else:
            self.reply(415, b'{"error": "no such type"}')

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield str(server.server_port)
    server.shutdown()
    server.server_close()


def test_prediction_writes_mask_and_overlay(tree: Path, port: str) -> None:
    Image.new("RGB", (4, 3), (10, 20, 30)).save(tree / "photo.png")
    answer = run(tree, "predict.sh", str(tree / "photo.png"), PORT=port)
    assert answer.returncode == 0, answer.stderr
    mask, overlay = (Path(line) for line in answer.stdout.splitlines())
    assert np.asarray(Image.open(mask)).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]]
    assert Image.open(mask).convert("RGB").getpixel((1, 2)) == (0, 128, 0)
    with Image.open(overlay) as picture:
        assert picture.width == 480 and picture.height > 360
        assert picture.getpixel((0, 0)) == (10, 20, 30)


def test_prediction_shows_the_servers_reason(tree: Path, port: str) -> None:
    Image.new("RGB", (4, 3)).save(tree / "photo.png")
    answer = run(tree, "predict.sh", str(tree / "photo.png"), "image/gif", PORT=port)
    assert answer.returncode == 1
    assert "415" in answer.stderr and "no such type" in answer.stderr and "Traceback" not in answer.stderr


def test_prediction_without_a_server_says_what_to_do(tree: Path) -> None:
    Image.new("RGB", (4, 3)).save(tree / "photo.png")
    answer = run(tree, "predict.sh", str(tree / "photo.png"), PORT="1")
    assert answer.returncode == 1
    assert "serve_local.sh" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize(("least", "code"), [("0.5", 0), ("0.51", 1)])
def test_score_is_held_against_the_bound(tmp_path: Path, least: str, code: int) -> None:
    report = {"validation": {"mIOU": 0.5, "pixel_accuracy": 0.75, "iou": [0.25, None, 0.75]}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    command = [sys.executable, "-m", "local_test.score", str(tmp_path / "report.json"), "--least", least]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == code
    assert "mIOU 0.500" in answer.stdout and "class 1" in answer.stdout and "absent" in answer.stdout


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"validation": {"mIOU": None, "reason": "the time was up"}}, "has no metrics of full images: the time was up"),
        ({"failed": {"validation": "the job was stopped first"}}, "has no metrics of full images: the job was stop"),
        ({"failed": {}}, "has no metrics of full images: _report_minutes is 0"),
    ],
)
def test_a_report_without_a_score_says_why(tmp_path: Path, report: dict[str, object], said: str) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report))
    command = [sys.executable, "-m", "local_test.score", str(tmp_path / "report.json")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 1
    assert said in answer.stderr and "Traceback" not in answer.stderr


class Setup:
    """A copy of setup.sh, and a PATH with nothing but what is put there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        (root / "local_test").mkdir()
        shutil.copy(ROOT / "local_test" / "setup.sh", root / "local_test")
        for tool in ("bash", "dirname", "uname", "env", "mktemp", "rm", "mkdir", "cp"):
            (root / "bin" / tool).symlink_to(str(shutil.which(tool)))

    def add(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.unlink(missing_ok=True)  # it can be a link to the tool of this machine
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        variables["PATH"] = str(self.root / "bin")
        script = str(self.root / "local_test" / "setup.sh")
        return subprocess.run([script], env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_setup_without_a_python_names_packages(setup: Setup) -> None:
    answer = setup.run()
    assert answer.returncode == 1
    assert "no Python 3.10 or 3.11 found" in answer.stderr and "apt-get install python3.11-venv" in answer.stderr
    assert "no Python here can create virtual environments. Run" in answer.stderr


# A Python 3.12 whose pip installs a uv that creates Python 3.11, or fails; each logs its arguments.
PYTHON_3_12 = r"""
case "$*" in
*"(3, 10)"*) exit 1;;
*"(3, 8)"*) exit 0;;
"-m venv "*) mkdir "$3/bin"; cp "$0" "$3/bin/python"; exit;;
esac
echo "pip: $*" >> "$CALLS"
[ -z "$PIP_FAILS" ] || { echo "no route to the index" >&2; exit 1; }
cp "$UV" "${0%/*}/uv"
"""
UV = r"""#!/bin/sh
echo "uv: $*" >> "$CALLS"
[ -z "$UV_FAILS" ] || { echo "no route to GitHub" >&2; exit 2; }
folder="$UV_PYTHON_INSTALL_DIR/cpython-3.11/bin"
case "$*" in
"python install"*) mkdir -p "$folder"; cp "$FETCHED" "$folder/python3.11";;
"python find"*) echo "$folder/python3.11";;
esac
"""


@pytest.fixture
def fetching(setup: Setup) -> dict[str, str]:
    """Put Python 3.12, which can fetch Python 3.11, on the path; returns the variables of the programs."""
    setup.add("python3", PYTHON_3_12)
    (setup.root / "uv").write_text(UV)
    runs = f'case "$*" in *sys.exit*|--version) exec {sys.executable} "$@";; esac'
    (setup.root / "fetched").write_text(f'#!/bin/sh\n{runs}\necho "started $0 $*"; exit 9\n')
    for name in ("uv", "fetched"):
        (setup.root / name).chmod(0o755)
    (setup.root / "tmp").mkdir()
    paths = {"CALLS": "calls", "UV": "uv", "FETCHED": "fetched", "TMPDIR": "tmp"}
    return {name: str(setup.root / path) for name, path in paths.items()}


def test_setup_fetches_python_through_the_locked_uv(setup: Setup, fetching: dict[str, str]) -> None:
    answer = setup.run(**fetching)
    python = f"{setup.root}/.venv-python/cpython-3.11/bin/python3.11"
    assert answer.returncode == 9
    assert "fetching Python 3.11 into .venv-python: uv from the package index" in answer.stderr
    assert f"started {python} -m venv --clear .venv" in answer.stdout
    pip, install, _ = (setup.root / "calls").read_text().splitlines()
    assert pip.startswith("pip: -m pip install ") and pip.endswith(" --require-hashes -r requirements/uv.pin")
    assert install.startswith("uv: python install ") and install.endswith(" 3.11")
    assert not list((setup.root / "tmp").iterdir())
    again = setup.run(**fetching)  # from what is already there
    assert again.returncode == 9 and "fetching" not in again.stderr
    assert len((setup.root / "calls").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("fault", "reason"), [("PIP_FAILS", "no route to the index"), ("UV_FAILS", "no route to GitHub")]
)
def test_setup_that_cannot_fetch_python_logs_reason_and_advice(
    setup: Setup, fetching: dict[str, str], fault: str, reason: str
) -> None:
    answer = setup.run(**fetching, **{fault: "1"})
    assert answer.returncode == 1
    lines = answer.stderr.splitlines()
    assert lines[lines.index(reason) + 1] == "setup: Python 3.11 cannot be fetched. The lines above contain the reason."
    assert "apt-get install python3.11-venv" in answer.stderr and "UV_PYTHON_INSTALL_MIRROR" in lines[-1]
    assert not answer.stdout and not list((setup.root / "tmp").iterdir())


def test_setup_fetches_nothing_for_a_given_interpreter(setup: Setup, fetching: dict[str, str]) -> None:
    answer = setup.run(**fetching, PYTHON="python3")
    assert answer.returncode == 1
    assert "no Python 3.10 or 3.11 found as python3." in answer.stderr and not (setup.root / "calls").exists()


def test_setup_passes_over_interpreters_that_do_not_run(setup: Setup) -> None:
    setup.add("python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    setup.add("python3.10", "exit 1")
    runs = f'case "$*" in *sys.exit*) exec {sys.executable} "$@";; esac'
    setup.add("python3", f'{runs}; echo "made by $0 $*"; exit 9')
    answer = setup.run()
    assert answer.returncode == 9
    assert f"creating .venv with {setup.root}/bin/python3 " in answer.stdout
    assert f"made by {setup.root}/bin/python3 -m venv --clear .venv" in answer.stdout


def test_setup_names_the_package_that_python_lacks(setup: Setup) -> None:
    lacks = 'case "$*" in *ensurepip*) exit 1;; *"%d.%d"*) echo 3.10; exit;; esac'
    setup.add("python3.10", f'{lacks}; exec {sys.executable} "$@"')
    answer = setup.run()
    assert answer.returncode == 1
    assert "apt-get install python3.10-venv" in answer.stderr


def test_setup_takes_the_python_it_is_given(setup: Setup) -> None:
    answer = setup.run(PYTHON="/no/python")
    assert answer.returncode == 1
    assert "no Python 3.10 or 3.11 found as /no/python" in answer.stderr


def test_setup_on_arm64_names_the_container_image(setup: Setup) -> None:
    setup.add("uname", "echo Darwin arm64")
    done = setup.run()
    assert done.returncode == 1
    assert "exists only for Linux on x86-64. This machine is Darwin arm64." in done.stderr
    assert "make image-cpu" in done.stderr and "linux/amd64" in done.stderr
