"""What only a trained model can show, on the one that `make demo` left: what its answers lose in lower precisions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.engines.onnx_model import prepare_model
from container.engines.openvino import OpenVinoEngine
from container.environment import cpu_count
from container.errors import ClientError
from container.metrics import ConfusionMatrix
from tests.conftest import PROGRAM

pytestmark = pytest.mark.demo

DEMO = PROGRAM / os.environ.get("TEST_DIR", "local_test/test_dir") / "demo"
CLASSES = 5


def load(model_dir: Path, precision: str) -> OpenVinoEngine:
    return OpenVinoEngine(prepare_model(model_dir, precision, model_dir), precision, threads=cpu_count())


def answers(engine: OpenVinoEngine) -> np.ndarray:
    """The masks of all validation pictures, which have one size: (N, H, W)."""
    paths = sorted((DEMO / "input/data/validation").iterdir())
    assert len(paths) > 10
    return np.stack([engine.mask(np.asarray(Image.open(path).convert("RGB"))) for path in paths])


def truth() -> np.ndarray:
    paths = sorted((DEMO / "input/data/validation_annotation").iterdir())
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def miou(masks: np.ndarray) -> float:
    confusion = ConfusionMatrix(CLASSES)
    confusion.update(truth(), masks)
    return confusion.miou


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    return answers(load(DEMO / "model", "float32"))


def test_the_served_graph_scores_what_the_demo_promises(exact: np.ndarray) -> None:
    assert miou(exact) >= 0.75


def test_bfloat16_agrees_on_nearly_all_pixels(exact: np.ndarray) -> None:
    try:
        engine = load(DEMO / "model", "bfloat16")
    except ClientError as error:
        pytest.skip(str(error))
    share = (answers(engine) == exact).mean()
    print(f"bfloat16 agrees with float32 on {share:.4%} of the pixels")
    assert share >= 0.995


def test_the_commands_int8_graph_keeps_the_quality(exact: np.ndarray, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO / "model", model)
    command = [sys.executable, "-m", "container.engines.quantize", str(model), str(DEMO / "input/data/train")]
    subprocess.run(command, cwd=PROGRAM, check=True, timeout=300)
    masks = answers(load(model, "int8"))
    drop = miou(exact) - miou(masks)
    print(f"int8 agrees with float32 on {(masks == exact).mean():.4%} of the pixels; its mIOU is {drop:.4f} lower")
    assert drop <= 0.01
