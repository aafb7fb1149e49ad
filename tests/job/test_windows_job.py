"""A job whose images are larger than its windows: scored, archived and served in windows."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from PIL import Image

from container.artifact import model_directory
from container.engines.loading import load_engine
from container.environment import Environment
from container.geometry.windows import Windows
from container.serving.settings import ServeSettings
from container.training.run import run as run_job
from tests.conftest import JobFactory, write_pair


@pytest.mark.parametrize("validation", ["crop", "full"])
def test_a_job_scores_and_serves_in_windows(make_job: JobFactory, validation: str) -> None:
    root = make_job(
        train=2, validation=1, algorithm="fastscnn", _window="64", _overlap="0.5", _validation=validation,
        _quantize="True", _quantize_tolerance="1",
    )  # fmt: skip
    write_pair(root, "validation", "wide", np.random.default_rng(1), (70, 150))
    run_job(Environment.read(root), threading.Event())
    model = root / "model"
    assert model_directory.read_windows(model) == Windows(64, 0.5)
    report = json.loads((root / "output/data/report.json").read_text())
    scored = np.sum(report["validation"]["confusion"]) if "validation" in report else None
    # every labeled pixel of both images: the first row of each is ignored
    assert scored == 39 * 48 + 69 * 150
    assert not report.get("failed")
    image = np.asarray(Image.open(root / "input/data/validation/wide.jpg"))
    answers = []
    for precision, engine in (("float32", "openvino"), ("int8", "openvino"), ("float32", "mxnet")):
        opened = load_engine(model, ServeSettings(model, precision=precision, engine=engine))
        assert opened.planner.plan(70, 150, 2**30).pixels == 2 * 4 * 64 * 64
        answers.append(opened.probabilities(image))
    np.testing.assert_allclose(answers[2], answers[0], atol=1e-4)
    assert answers[1].shape == answers[0].shape == (2, 70, 150)
