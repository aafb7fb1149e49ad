"""Arrays of a checkpoint: weights and optimizer states, by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from container.artifact import model_directory
from container.errors import ClientError, last_line
from container.mx.disk_estimate import weight_bytes
from container.mx.optimization.gradients import Accumulation
from container.mx.trainer import Trainer

_OWN, _GRADIENT = "own", "gradient"  # kinds of arrays
_SCALER = ("_loss_scale", "_next_loss_scale", "_unskipped")  # state of the AMP loss scaler


def save_arrays(trainer: Trainer, weights: Path, optimizer: Path) -> dict[str, Any]:
    """Write both files; returns the other numbers that the optimizer needs, for JSON.

    Arrays of the optimizer have the names `<parameter>:<number>`, and accumulated gradients
    `<parameter>:gradient<device>`. With `_ema`, the weights file contains the averages, and the optimizer file contains
    the weights as `<parameter>:own`. Trainer.save_states is not used because it pickles, and unpickling can execute
    code.
    """
    trainer.save_weights(weights)
    names = _names(trainer)
    arrays = {
        f"{names[index]}:{number}": part
        for index, state in trainer.optimizer._updaters[0].states.items()
        for number, part in enumerate(_parts(state))
    }
    if trainer.averages:
        arrays |= {f"{name}:{_OWN}": array for name, array in trainer.own_weights().items()}
    gathered = trainer.accumulation
    if gathered and gathered.made:
        known = _by_id(trainer)
        arrays |= {
            f"{known[id(parameter)]}:{_GRADIENT}{device}": array
            for parameter, totals in zip(gathered.parameters, gathered.sums, strict=True)
            for device, array in enumerate(totals)
        }
    model_directory.write_weights(optimizer, lambda name: mx.nd.save(name, arrays), sum(map(_bytes, arrays.values())))
    scaler = getattr(trainer.optimizer, "_amp_loss_scaler", None)
    return {
        "updates": trainer.updates,
        "accumulated": gathered.numbers() if gathered and gathered.made else None,
        "loss_scaler": None if scaler is None else {name: getattr(scaler, name) for name in _SCALER},
    }


def checkpoint_bytes(trainer: Trainer) -> int:
    """Return the approximate maximum bytes of a checkpoint: both files of `save_arrays` and the best weights."""
    weights = weight_bytes(trainer.network)
    total = weights * (3 if trainer.averages else 2)
    optimizer = trainer.optimizer._optimizer
    for index, parameter in enumerate(trainer.optimizer._params):
        if parameter.grad_req != "null":
            data = parameter.list_data()[0]
            total += sum(map(_bytes, _parts(optimizer.create_state_multi_precision(index, data))))
            total += _bytes(data) * len(trainer.devices) * (trainer.accumulation is not None)
    return total


def load_arrays(trainer: Trainer, weights: Path, optimizer: Path, numbers: Mapping[str, Any]) -> None:
    """Load the files and the numbers of `save_arrays`; every device gets separate arrays.

    Raises ClientError that names the directory if the arrays belong to another model or optimizer.
    """
    try:
        trainer.load_weights(weights)
        arrays = mx.nd.load(str(optimizer)) if numbers["updates"] or trainer.averages or trainer.accumulation else {}
        if trainer.averages:
            trainer.set_own_weights(_take(arrays, _OWN))
        if trainer.accumulation and numbers.get("accumulated"):
            _restore_gradients(trainer, trainer.accumulation, numbers["accumulated"], arrays)
        if numbers["updates"]:
            _fill(trainer, arrays)
    except (ValueError, KeyError, TypeError, AssertionError, mx.MXNetError) as error:
        raise ClientError(
            f"the checkpoint {weights.parent} does not match the model of this job: {last_line(error)}. Set "
            "_resume=restart to train from scratch, or use another checkpoint_s3_uri."
        ) from error
    inner = trainer.optimizer._optimizer
    inner.begin_num_update = inner.num_update = int(numbers["updates"])
    scaler = getattr(trainer.optimizer, "_amp_loss_scaler", None)
    if scaler is not None and numbers["loss_scaler"]:
        for name in _SCALER:
            setattr(scaler, name, numbers["loss_scaler"][name])


def _restore_gradients(
    trainer: Trainer, gathered: Accumulation, numbers: Mapping[str, Any], arrays: dict[str, mx.nd.NDArray]
) -> None:
    """Restore accumulated gradients, on as many devices as before."""
    places = {name: number for number, name in enumerate(_by_id(trainer)[id(each)] for each in gathered.parameters)}
    gradients: dict[tuple[int, int], mx.nd.NDArray] = {}
    for device in range(len(numbers["masses"])):
        found = _take(arrays, f"{_GRADIENT}{device}")
        if found.keys() != places.keys():
            raise ValueError("it contains accumulated gradients of another model")
        gradients |= {(places[name], device): array for name, array in found.items()}
    if trainer.hosts.first:
        gathered.restore(numbers, gradients)
    else:  # the checkpoint contains one sum for all hosts, which the first host restores
        gathered.restore({"made": numbers["made"], "masses": []}, {})


def _take(arrays: dict[str, mx.nd.NDArray], kind: str) -> dict[str, mx.nd.NDArray]:
    """Remove the arrays of one kind from `arrays`, and return them by parameter."""
    names = [name for name in arrays if name.endswith(f":{kind}")]
    return {name.removesuffix(f":{kind}"): arrays.pop(name) for name in names}


def _fill(trainer: Trainer, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Create the optimizer state on every device, and set it from `arrays`."""
    names = _names(trainer)
    used = set()
    for device, updater in zip(trainer.devices, trainer.optimizer._updaters, strict=True):
        for index, parameter in enumerate(trainer.optimizer._params):
            if parameter.grad_req == "null":
                continue
            state = updater.optimizer.create_state_multi_precision(index, parameter.data(device))
            for number, part in enumerate(_parts(state)):
                key = f"{names[index]}:{number}"
                if arrays[key].shape != part.shape:
                    raise ValueError(f"{key} has the shape {arrays[key].shape} instead of {part.shape}")
                arrays[key].copyto(part)
                used.add(key)
            updater.states[index] = state
            updater.states_synced[index] = True
    if unused := sorted(set(arrays) - used):
        raise ValueError(f"{unused[0]} is not an array of this optimizer")


def _names(trainer: Trainer) -> list[str]:
    """Return the names of the optimizer parameters in parameter files, in the order of the optimizer."""
    names = _by_id(trainer)
    return [names[id(parameter)] for parameter in trainer.optimizer._params]


def _by_id(trainer: Trainer) -> dict[int, str]:
    return {id(parameter): name for name, parameter in trainer.network._collect_params_with_prefix().items()}


def _bytes(array: mx.nd.NDArray) -> int:
    return int(array.size) * np.dtype(array.dtype).itemsize


def _parts(state: Any) -> tuple[mx.nd.NDArray, ...]:
    """Return the arrays of one parameter's state: none, one, or a tuple of them."""
    return tuple(state) if isinstance(state, (tuple, list)) else () if state is None else (state,)
