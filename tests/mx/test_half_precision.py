"""The float16 training graph of a GPU, as far as a CPU can look at it: its types, its shapes, its loss.

AMP rewrites MXNet's operators for a whole process, so the graphs are made in one of their own, by AMP's lists for
float16. Running a float16 graph takes a GPU: here it runs with every cast to float16 made one to float32.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import TrainingLoss, initialize_weights
from tests.conftest import PROGRAM

CASES = [
    (algorithm, backbone, aux_weight)
    for algorithm in ("fcn", "psp", "deeplab")
    for backbone in ("resnet-50", "resnet-101")
    for aux_weight in (0.0, 0.5)
] + [("fastscnn", "", aux_weight) for aux_weight in (0.0, 0.5)]
CONVOLUTIONS = {"fcn": 50, "psp": 50, "deeplab": 50, "fastscnn": 44}  # at least
SIZE = 40

MAKE_GRAPHS = """
import json, sys
from mxnet import sym
from mxnet.contrib import amp
folder, target, *cases = sys.argv[1:]
amp.init(target)
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import TrainingLoss
for case in cases:
    algorithm, backbone, aux_weight = case.split(",")
    network = create_network(algorithm, 3, backbone)
    graph = TrainingLoss(network, float(aux_weight))(sym.var("images"), sym.var("labels"))
    graph.save(f"{folder}/{case}.json", remove_amp_cast=False)
    names = {parameter.name: name for name, parameter in network._collect_params_with_prefix().items()}
    with open(f"{folder}/{case}.names.json", "w") as stream:
        json.dump(names, stream)
"""


def case_name(case: tuple[str, str, float]) -> str:
    return ",".join(map(str, case))


def make_graphs(folder: Path, target: str) -> Path:
    command = [sys.executable, "-c", MAKE_GRAPHS, str(folder), target, *map(case_name, CASES)]
    subprocess.run(command, check=True, cwd=PROGRAM, env={**os.environ, "PYTHONPATH": str(PROGRAM)}, timeout=120)
    return folder


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_graphs(tmp_path_factory.mktemp("graphs"), "float16")


def types_and_shapes(graph: mx.sym.Symbol) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    """Operator, type and shape of every node's first output, as training on a GPU would find them."""
    inner = graph.get_internals()
    types = {"images": "uint8", "labels": "float32"}
    types |= {name: "float32" for name in graph.list_arguments() if name not in types}
    _, found_types, _ = inner.infer_type(**types)
    _, found_shapes, _ = inner.infer_shape(images=(2, SIZE, SIZE, 3), labels=(2, SIZE, SIZE))
    found = dict(zip(inner.list_outputs(), zip(found_types, found_shapes, strict=True), strict=True))
    nodes = [node for node in json.loads(graph.tojson(remove_amp_cast=False))["nodes"] if node["op"] != "null"]
    firsts = [found.get(f"{node['name']}_output") or found[f"{node['name']}_output0"] for node in nodes]
    return [(node["op"], np.dtype(kind), shape) for node, (kind, shape) in zip(nodes, firsts, strict=True)]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_every_operator_computes_in_a_type_that_it_has(graphs: Path, case: tuple[str, str, float]) -> None:
    nodes = types_and_shapes(mx.sym.load(str(graphs / f"{case_name(case)}.json")))
    kinds = {name: [kind for operator, kind, _ in nodes if operator == name] for name, _, _ in nodes}
    assert kinds["_image_to_tensor"] == kinds["_image_normalize"] == [np.float32]  # which exist in nothing else
    assert len(kinds["Convolution"]) > CONVOLUTIONS[case[0]] and set(kinds["Convolution"]) == {np.dtype(np.float16)}
    whole = [kind for operator, kind, shape in nodes if "Bilinear" in operator and shape == (2, 3, SIZE, SIZE)]
    assert whole == [np.float32] * (2 if case[2] else 1)
    assert set(kinds["log_softmax"]) == set(kinds["pick"]) == {np.dtype(np.float32)}
    assert nodes[-1][1:] == (np.float32, (1,))


@pytest.mark.parametrize("case", [case for case in CASES if case[1:] in (("resnet-50", 0.5), ("", 0.5))], ids=case_name)
def test_the_loss_is_float32s_when_its_casts_lose_nothing(graphs: Path, case: tuple[str, str, float]) -> None:
    network = create_network(case[0], 3, case[1])
    initialize_weights(network)
    rng = np.random.default_rng(0)
    images = mx.nd.array(rng.integers(0, 256, (2, SIZE, SIZE, 3)), dtype="uint8")
    labels = mx.nd.array(rng.integers(0, 3, (2, SIZE, SIZE)))
    expected = TrainingLoss(network, 0.5)(images, labels).asscalar()
    content = json.loads((graphs / f"{case_name(case)}.json").read_text())
    casts = [node for node in content["nodes"] if node.get("attrs", {}).get("dtype") == "float16"]
    assert len(casts) > 2 * CONVOLUTIONS[case[0]]
    for node in casts:
        node["attrs"]["dtype"] = "float32"
    graph = mx.sym.load_json(json.dumps(content))
    parameters = network._collect_params_with_prefix()
    names = json.loads((graphs / f"{case_name(case)}.names.json").read_text())
    arrays = {"images": images, "labels": labels}
    # copies: after a pass in float32 MXNet cannot cast a depthwise convolution's own weights
    copies = {name: mx.nd.array(parameters[inner].data().asnumpy()) for name, inner in names.items()}
    arrays |= {name: copies[name] for name in graph.list_arguments() if name not in arrays}
    auxiliary = {name: copies[name] for name in graph.list_auxiliary_states()}
    loss = graph.bind(mx.cpu(), arrays, aux_states=auxiliary).forward(is_train=False)[0].asscalar()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_in_bfloat16_types_fit_together_too(tmp_path: Path) -> None:
    """Its lists differ from float16's; a CPU without AVX-512 can tell the types, though not compute."""
    make_graphs(tmp_path, "bfloat16")
    for case in CASES:
        nodes = types_and_shapes(mx.sym.load(str(tmp_path / f"{case_name(case)}.json")))
        kinds = [kind for operator, kind, _ in nodes if operator == "Convolution"]
        assert len(kinds) > CONVOLUTIONS[case[0]] and all(kind.names == ("bfloat16",) for kind in kinds)
