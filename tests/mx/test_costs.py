"""What a server is told that a model and its images take, beside what they do take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from container.environment import processor_has
from container.mx.export import export_onnx
from tests.mx.test_export import PROGRAM, build_network

# The peak of one image, with the model loaded and the network's memory given back before.
MEASURE = """
import sys
from pathlib import Path
import numpy as np
from container.engines.openvino import OpenVinoEngine
def megabytes(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) / 1024
graph, precision, needs, height, width = sys.argv[1:]
others = OpenVinoEngine(Path(graph), precision, threads=2)
others.warm()  # what is set up once in a process
before = megabytes("VmRSS")
engine = OpenVinoEngine(Path(graph), precision, threads=2)
engine.warm()
loaded = megabytes("VmRSS") - before
image = np.zeros((int(height), int(width), 3), np.uint8)
open("/proc/self/clear_refs", "w").write("5")
answer = getattr(engine, needs)(image)
peak = megabytes("VmHWM") - before
plan = engine.planner.plan(*image.shape[:2], 2**40, answer.nbytes if needs == "probabilities" else 0, needs)
stated = plan.memory + engine.planner.loaded + engine.standing
print(loaded, engine.planner.loaded / 2**20, peak, stated / 2**20, engine.planner.packed / 2**20)
"""


@pytest.mark.parametrize(
    ("algorithm", "backbone", "precision", "needs"),
    [
        ("fcn", "resnet-18", "float32", "mask"),
        ("fcn", "resnet-50", "float32", "probabilities"),
        ("deeplab", "resnet-18", "float32", "probabilities"),
        ("fastscnn", "", "float32", "mask"),
    ],
)
def test_memory_of_model_and_image_is_within_the_estimate(
    algorithm: str, backbone: str, precision: str, needs: str, tmp_path: Path
) -> None:
    export_onnx(build_network(algorithm, backbone), tmp_path / "model.onnx")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "model.onnx"), precision, needs, "640", "800"]
    printed = subprocess.run(command, cwd=PROGRAM, check=True, capture_output=True, text=True)
    loaded, stated_loaded, peak, stated, packed = map(float, printed.stdout.split())
    assert 0.8 * stated_loaded < loaded < 1.1 * stated_loaded
    assert 0.8 * (stated - packed) < peak < 1.05 * stated  # weights are packed anew for further sizes, not for one


# What a model holds once it has seen images of many sizes, for which OpenVINO packs weights anew.
MEASURE_SIZES = """
import ctypes
import sys
from pathlib import Path
import numpy as np
from container.engines.openvino import OpenVinoEngine
def megabytes():
    ctypes.CDLL(None).malloc_trim(0)
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
graph, precision = sys.argv[1:]
others = OpenVinoEngine(Path(graph), precision, threads=2)
others.warm()
before = megabytes()
engine = OpenVinoEngine(Path(graph), precision, threads=2)
engine.warm()
rng = np.random.default_rng(0)
for _ in range(40):
    engine.mask(np.zeros((*rng.integers(16, 200, 2), 3), np.uint8))
engine.release()
print(megabytes() - before, engine.memory / 2**20)
"""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_after_many_sizes_is_within_the_estimate(precision: str, tmp_path: Path) -> None:
    if precision == "bfloat16" and not processor_has("avx512_bf16"):
        pytest.skip("this processor does not compute in bfloat16")
    export_onnx(build_network("fcn", "resnet-18"), tmp_path / "model.onnx")
    command = [sys.executable, "-c", MEASURE_SIZES, str(tmp_path / "model.onnx"), precision]
    printed = subprocess.run(command, cwd=PROGRAM, check=True, capture_output=True, text=True)
    held, stated = map(float, printed.stdout.split())
    assert 0.4 * stated < held < stated
