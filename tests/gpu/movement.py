"""How the first update moves every parameter, compared with float32 gradients that autograd computes without a trainer.

AMP changes MXNet's operators for a whole process, so `python -m tests.gpu.movement DEVICES FILE` trains in mixed
precision in a process of its own. DEVICES are GPUs if there are any.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

from container.data.batches import Batch
from container.hyperparameters import Hyperparameters, load
from container.mx.checkpoint import load_arrays, save_arrays
from container.mx.devices import resolve_precision
from container.mx.networks.architectures import create_network
from container.mx.networks.segmentation import SegmentationNetwork, initialize_weights
from container.mx.optimization.freeze import freeze_layers
from container.mx.optimization.losses import choose_criterion, cross_entropy
from container.mx.trainer import Trainer
from tests.conftest import PROGRAM
from tests.mx.tiny import TinyNetwork

CLASSES, RATE, EMA = 3, 1.0, 0.5
SIDES = {"tiny": 32}  # of the images, in pixels; else 64
SAMPLE = 1000  # values of a parameter that are compared
SIZES = (4, 3, 4)  # images of an iteration: two devices get unequal numbers of images
CHOICES: dict[str, tuple[Any, ...]] = {
    "_loss": ("ce", "focal", "ohem", "ce+dice", "ce+lovasz"),
    "_accumulate": (1, 2, 3),
    "_clip_norm": (None, 0.01),
    "_ema": (0, EMA),
    "frozen": (None, "_freeze_batchnorm", "_freeze_backbone"),
    "_class_weights": (None, [1, 2, 5], [0, 1, 1]),
    "_hybrid": (False, True),
    "_gradient_scale": ("mean", "gluoncv"),
    "_aux_loss": (True, False),
    "devices": (1, 2),
}
PLAIN: dict[str, Any] = {"network": "tiny"} | {name: values[0] for name, values in CHOICES.items()} | {"_accumulate": 2}
NETWORKS: tuple[dict[str, Any], ...] = (
    {**PLAIN, "network": "fcn", "_hybrid": True, "_clip_norm": 0.01, "devices": 2},
    {**PLAIN, "network": "psp", "_accumulate": 3},
    {**PLAIN, "network": "deeplab", "_loss": "ce+lovasz", "_ema": EMA},
    {**PLAIN, "network": "fastscnn", "frozen": "_freeze_batchnorm", "_class_weights": [1, 2, 5]},
)
Case = dict[str, Any]
Arrays = dict[str, np.ndarray]


def all_cases() -> list[Case]:
    """Return the cases: every pair of choices with a tiny network, and each algorithm once."""
    return [{"network": "tiny", **case} for case in pairwise(CHOICES)] + list(NETWORKS)


def pairwise(choices: dict[str, Sequence[Any]]) -> list[Case]:
    """Return cases in which every two values of different choices occur together, each time the best of 50 cases."""
    names = list(choices)
    left = {
        (one, two, a, b)
        for one, two in itertools.combinations(names, 2)
        for a in range(len(choices[one]))
        for b in range(len(choices[two]))
    }
    rng = np.random.default_rng(0)
    cases = []
    while left:
        one, two, a, b = min(left)
        best: set[tuple[str, str, int, int]] = set()
        for _ in range(50):
            drawn = {name: int(rng.integers(len(choices[name]))) for name in names} | {one: a, two: b}
            covered = {(x, y, drawn[x], drawn[y]) for x, y in itertools.combinations(names, 2)} & left
            if len(covered) > len(best):
                best, chosen = covered, drawn
        left -= best
        cases.append({name: choices[name][number] for name, number in chosen.items()})
    return cases


def job_of(case: Case, precision: str = "float32") -> Hyperparameters:
    """Return the case's job. Its optimizer is sgd, almost without momentum and weight decay."""
    own = {name: value for name, value in case.items() if name.startswith("_") and value is not None}
    network = {} if case["network"] == "tiny" else {"algorithm": case["network"]}
    network |= {"backbone": "resnet-18"} if case["network"] in ("fcn", "psp", "deeplab") else {}
    frozen = {case["frozen"]: True} if case["frozen"] else {}
    fixed = {"num_classes": CLASSES, "num_training_samples": 12, "mini_batch_size": 4, "crop_size": 64}
    rule = {"optimizer": "sgd", "momentum": 1e-9, "weight_decay": 1e-12, "precision_dtype": precision}
    return load({**fixed, **rule, **network, **frozen, **own})


def network_of(case: Case, job: Hyperparameters, devices: list[mx.Context]) -> SegmentationNetwork:
    """Return a network that has the same weights every time, without dropout."""
    mx.random.seed(3)
    np.random.seed(3)
    if case["network"] == "tiny":
        network: SegmentationNetwork = TinyNetwork()
        network.initialize(mx.init.Xavier())
    else:
        network = create_network(job.algorithm, job.num_classes, job.backbone)
        initialize_weights(network)
    network.apply(_without_dropout)
    freeze_layers(network, job, loaded=set(network._collect_params_with_prefix()))
    network.collect_params().reset_ctx(devices)
    return network


def _without_dropout(block: gluon.Block) -> None:
    if isinstance(block, gluon.nn.Dropout):
        block._rate = 0.0


def batches_of(case: Case) -> list[Batch]:
    """Return the batches of the first update: images of 16 colors, labels that follow them, some of them ignored."""
    rng = np.random.default_rng(1)
    side = SIDES.get(case["network"], 64)
    found = []
    for size in SIZES[: case["_accumulate"]]:
        coarse = rng.integers(0, 256, (size, 4, 4, 3)).astype(np.uint8)
        images = coarse.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
        images = np.clip(images.astype(int) + rng.integers(-20, 20, images.shape), 0, 255).astype(np.uint8)
        labels = (images[..., 0] // 86).astype(np.uint8)
        labels[0, : side // 2] = 255
        found.append(Batch(images, labels))
    return found


def moved(case: Case, devices: list[mx.Context], precision: str) -> Arrays:
    """Return how far the first update moves every parameter, and with `_ema` its average (`NAME:average`)."""
    job = job_of(case, precision)
    devices = devices[: case["devices"]]
    network = network_of(case, job, devices)
    network.hybridize()
    trainer = Trainer(network, job, devices)
    parameters = {name: each for name, each in network._collect_params_with_prefix().items() if "running" not in name}
    before = {name: each.data(devices[0]).asnumpy() for name, each in parameters.items()}
    for batch in batches_of(case):
        trainer.step(batch, RATE)
    mx.nd.waitall()
    assert trainer.updates == 1
    found = {name: sample(each.data(devices[0]).asnumpy() - before[name]) for name, each in parameters.items()}
    if trainer.averages:
        arrays = trainer.averages.arrays
        found |= {f"{name}:average": sample(arrays[name].asnumpy() - before[name]) for name in parameters}
    return found


def sample(array: np.ndarray) -> np.ndarray:
    """Return some values of an array, evenly spaced."""
    return array.ravel()[:: max(1, array.size // SAMPLE)]


def moved_twice(device: mx.Context, precision: str, folder: Path, resumes: bool) -> Arrays:
    """Return how far 2 updates of 2 iterations move every parameter; `resumes` from a checkpoint amid the first."""
    case = PLAIN
    job = job_of(case, precision)
    trainer = Trainer(network_of(case, job, [device]), job, [device])
    before = {name: array.asnumpy() for name, array in trainer.own_weights().items()}
    batches = batches_of(case) * 2
    trainer.step(batches[0], RATE)
    if resumes:
        numbers = json.loads(json.dumps(save_arrays(trainer, folder / "weights", folder / "optimizer")))
        trainer = Trainer(network_of(case, job, [device]), job, [device])
        load_arrays(trainer, folder / "weights", folder / "optimizer", numbers)
    for batch in batches[1:]:
        trainer.step(batch, RATE)
    assert trainer.updates == 2
    weights = trainer.own_weights().items()
    return {name: array.asnumpy() - before[name] for name, array in weights if "running" not in name}


def moved_in_mixed_precision(count: int, path: Path) -> tuple[list[Arrays], Arrays, Arrays]:
    """Return `moved` of every case, and `moved_twice` without and with a checkpoint, in mixed precision.

    They come from a process that trains on `count` devices. A case that needs more devices has no arrays.
    """
    command = [sys.executable, "-m", "tests.gpu.movement", str(count), str(path)]
    subprocess.run(command, check=True, cwd=PROGRAM, env={**os.environ, "PYTHONPATH": str(PROGRAM)}, timeout=600)
    found: dict[str, Arrays] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            kind, name = key.split("/", 1)
            found.setdefault(kind, {})[name] = arrays[key]
    return [found.get(str(number), {}) for number in range(len(all_cases()))], found["through"], found["resumed"]


def expected(case: Case) -> Arrays:
    """Return the first update of a float32 network on the CPU, from autograd's gradients of each device's images."""
    job = job_of(case)
    network = network_of(case, job, [mx.cpu()])
    parameters = {name: each for name, each in network._collect_params_with_prefix().items() if "running" not in name}
    weighing = np.zeros(256)
    weighing[:CLASSES] = job.class_weights or [1.0] * CLASSES
    count = case["devices"]
    gradients, masses = _gradients(network, job, batches_of(case), parameters, count, weighing)
    total = {name: np.zeros(each.shape) for name, each in parameters.items()}
    for device in range(count):
        if job.gradient_scale == "gluoncv":
            scale = masses[device] * job.mini_batch_size * job.accumulate
        else:
            scale = sum(masses)
        for name, gradient in gradients[device].items():
            total[name] += gradient / scale
    norm = np.sqrt(sum((gradient**2).sum() for gradient in total.values()))
    factor = 1.0 if job.clip_norm is None else min(1.0, job.clip_norm / norm)
    return {name: sample(-RATE * parameters[name].lr_mult * factor * gradient) for name, gradient in total.items()}


def _gradients(
    network: SegmentationNetwork,
    job: Hyperparameters,
    batches: list[Batch],
    parameters: dict[str, gluon.Parameter],
    count: int,
    weighing: np.ndarray,
) -> tuple[list[Arrays], list[float]]:
    """Return the gradient of the summed loss, and the mass of the labels, of each device's images."""
    criterion = choose_criterion(job) or (lambda F, logits, labels, weights: cross_entropy(F, logits, labels))
    weights = None if job.class_weights is None else mx.nd.array(weighing[:CLASSES])
    aux_weight = 1.0 if job.gradient_scale == "gluoncv" else job.aux_weight
    gradients: list[Arrays] = [{} for _ in range(count)]
    masses = [0.0] * count
    for batch in batches:
        shares = zip(np.array_split(batch.images, count), np.array_split(batch.labels, count), strict=True)
        for device, (images, labels) in enumerate(shares):
            masses[device] += weighing[labels].sum()
            truth = mx.nd.array(labels)
            with autograd.record():
                main, auxiliary = network.both_heads(mx.nd, mx.nd.array(images, dtype="uint8"))
                loss = criterion(mx.nd, main, truth, weights)
                if job.aux_loss:
                    loss = loss + aux_weight * criterion(mx.nd, auxiliary, truth, weights)
            loss.backward()
            for name, parameter in parameters.items():
                unused = not job.aux_loss and name.startswith("auxlayer.")
                if parameter.grad_req != "null" and not unused:
                    own = gradients[device]
                    own[name] = own.get(name, 0.0) + parameter.grad().asnumpy().astype(np.float64)
    return gradients, masses


def direction(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Return the cosine between two movements, and the ratio of their lengths."""
    size, other = np.linalg.norm(found), np.linalg.norm(wanted)
    return float((found * wanted).sum() / max(size * other, 1e-30)), float(size / max(other, 1e-30))


def check_movement(case: Case, found: Arrays, wanted: Arrays, exact: bool) -> None:
    """Check that every trained parameter moves as in `wanted`, and no other moves; rounded to 8 bits unless `exact`."""
    names = [name for name in wanted if wanted[name].any()]
    longest = max(np.linalg.norm(wanted[name]) for name in names)
    for name, movement in wanted.items():
        if name not in names:
            assert not found[name].any(), f"{name} moves"
        elif np.linalg.norm(movement) > 1e-3 * longest:  # not a bias that batch normalization subtracts again
            cosine, length = direction(found[name], movement)
            deep = case["network"] != "tiny" and not exact  # rounding and the statistics of few images add up
            assert cosine > (0.3 if deep else 0.999 if exact else 0.98), f"{name}: {cosine}"
            assert length == pytest.approx(1, rel=0.8 if deep else 0.01 if exact else 0.05), name
        if case["_ema"] and name in names:  # the decay of the first update is (1 + 1) / (10 + 1)
            np.testing.assert_allclose(found[f"{name}:average"], found[name] * 9 / 11, rtol=1e-3, atol=1e-5)
    every = [np.concatenate([arrays[name] for name in names]) for arrays in (found, wanted)]
    assert direction(*every) == pytest.approx((1, 1), abs=0.001 if exact else 0.03)


def main() -> None:
    """Write `moved` of every case in mixed precision."""
    count, path = int(sys.argv[1]), Path(sys.argv[2])
    kind = mx.gpu if mx.context.num_gpus() else mx.cpu
    devices = [kind(number) for number in range(count)]
    if resolve_precision(job_of(PLAIN, "float16"), devices).precision_dtype != "float16":
        raise SystemExit("these devices do not compute in mixed precision")
    arrays = {}
    for number, case in enumerate(all_cases()):
        if case["devices"] > count:
            continue
        found = moved(case, devices, "float16")
        arrays |= {f"{number}/{name}": array for name, array in found.items()}
    for kind in ("through", "resumed"):
        found = moved_twice(devices[0], "float16", path.parent, resumes=kind == "resumed")
        arrays |= {f"{kind}/{name}": array for name, array in found.items()}
    np.savez(path, **arrays)


if __name__ == "__main__":
    main()
