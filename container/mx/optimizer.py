"""The optimizers, with the parameters that each of them heeds."""

from __future__ import annotations

import logging
from typing import Any

import mxnet as mx
from mxnet import gluon

from container.hyperparameters import Hyperparameters

LOG = logging.getLogger(__name__)


def create_optimizer(
    parameters: gluon.ParameterDict, hyperparameters: Hyperparameters, devices: list[mx.Context]
) -> gluon.Trainer:
    """Create the optimizer of `parameters`; gradients of several devices are summed by the kvstore."""
    return gluon.Trainer(
        parameters,
        hyperparameters.optimizer,
        _settings(hyperparameters),
        kvstore=hyperparameters.kvstore if len(devices) > 1 else None,
        update_on_kvstore=False,
    )


def _settings(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """Return MXNet's settings of the optimizer; as in the built-in, only sgd decays weights."""
    name = hyperparameters.optimizer
    settings: dict[str, Any] = {"learning_rate": hyperparameters.learning_rate, "wd": 0.0}
    if name in ("sgd", "nag"):
        settings["momentum"] = hyperparameters.momentum
    if name == "sgd":
        settings["wd"] = hyperparameters.weight_decay
    if name == "rmsprop":  # only the centered form has a momentum
        settings |= {"gamma1": hyperparameters.gamma1, "gamma2": hyperparameters.gamma2, "centered": True}
    if name == "adadelta":
        LOG.warning("adadelta sets its own step sizes: learning_rate and lr_scheduler have no effect on it")
    return settings
