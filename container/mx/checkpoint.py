"""The arrays of a checkpoint: the network's weights and what its optimizer has gathered, each by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx

from container import artifacts
from container.errors import ClientError, last_line
from container.mx.trainer import Trainer

_SCALER = ("_loss_scale", "_next_loss_scale", "_unskipped")  # what AMP's loss scaler remembers


def save_arrays(trainer: Trainer, weights: Path, optimizer: Path) -> dict[str, Any]:
    """Write both files; returns what the optimizer needs besides: numbers that JSON holds.

    Arrays of the optimizer are called `<parameter>:<number>`. Trainer.save_states would pickle them, and unpickling
    runs what the file says.
    """
    trainer.save_weights(weights)
    names = _names(trainer)
    arrays = {
        f"{names[index]}:{number}": part
        for index, state in trainer.optimizer._updaters[0].states.items()
        for number, part in enumerate(_parts(state))
    }
    artifacts.write_weights(optimizer, lambda name: mx.nd.save(name, arrays))
    scaler = getattr(trainer.optimizer, "_amp_loss_scaler", None)
    return {
        "updates": trainer.updates,
        "loss_scaler": None if scaler is None else {name: getattr(scaler, name) for name in _SCALER},
    }


def load_arrays(trainer: Trainer, weights: Path, optimizer: Path, numbers: Mapping[str, Any]) -> None:
    """Load what `save_arrays` wrote and returned; every device gets arrays of its own.

    Raises ClientError that names the directory when its arrays are not this network's and this optimizer's.
    """
    try:
        trainer.load_weights(weights)
        if numbers["updates"]:
            _fill(trainer, mx.nd.load(str(optimizer)))
    except (ValueError, KeyError, TypeError, AssertionError, mx.MXNetError) as error:
        raise ClientError(
            f"the checkpoint {weights.parent} does not fit this job's network: {last_line(error)}; set "
            "_resume=restart to train anew, or give another checkpoint_s3_uri"
        ) from error
    inner = trainer.optimizer._optimizer
    inner.begin_num_update = inner.num_update = int(numbers["updates"])
    scaler = getattr(trainer.optimizer, "_amp_loss_scaler", None)
    if scaler is not None and numbers["loss_scaler"]:
        for name in _SCALER:
            setattr(scaler, name, numbers["loss_scaler"][name])


def _fill(trainer: Trainer, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Make the optimizer's state on every device, and fill it from `arrays`."""
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
    """Return the optimizer's parameters in its order, by the names that parameter files give them."""
    names = {id(parameter): name for name, parameter in trainer.network._collect_params_with_prefix().items()}
    return [names[id(parameter)] for parameter in trainer.optimizer._params]


def _parts(state: Any) -> tuple[mx.nd.NDArray, ...]:
    """Return the arrays of one parameter's state: none, one, or a tuple of them."""
    return tuple(state) if isinstance(state, (tuple, list)) else () if state is None else (state,)
