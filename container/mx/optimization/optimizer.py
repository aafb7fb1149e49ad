"""The optimizers and their parameters."""

from __future__ import annotations

import logging
from typing import Any

import mxnet as mx
from mxnet import gluon

from container.hyperparameters import Hyperparameters
from container.mx.optimization.adamw import AdamW
from container.schema import read_schema

LOG = logging.getLogger(__name__)

_ON_ONE_HOST = {"dist_sync": "local", "dist_device_sync": "device"}  # where those would wait for others


def create_optimizer(
    parameters: gluon.ParameterDict, hyperparameters: Hyperparameters, devices: list[mx.Context], store: Any = None
) -> gluon.Trainer:
    """Create the optimizer of `parameters`; gradients of several devices are summed by the kvstore.

    `store` is the one that sums over hosts, where there are several.
    """
    named = hyperparameters.kvstore
    kvstore = store or (_ON_ONE_HOST.get(named, named) if len(devices) > 1 else None)
    if hyperparameters.optimizer == "adamw":
        rule = AdamW(hyperparameters.weight_decay, learning_rate=hyperparameters.learning_rate)
        return gluon.Trainer(parameters, rule, kvstore=kvstore, update_on_kvstore=False)
    return gluon.Trainer(
        parameters,
        hyperparameters.optimizer,
        _settings(hyperparameters),
        kvstore=kvstore,
        update_on_kvstore=False,
    )


def _settings(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """Return the MXNet settings of the optimizer.

    As in the built-in algorithm, only sgd uses weight decay. The centered form of rmsprop, which the built-in algorithm
    does not document, uses it too.
    """
    name = hyperparameters.optimizer
    settings: dict[str, Any] = {"learning_rate": hyperparameters.learning_rate, "wd": 0.0}
    if name in ("sgd", "nag"):
        settings["momentum"] = hyperparameters.momentum
    if name == "sgd" or (name == "rmsprop" and hyperparameters.rmsprop_centered):
        settings["wd"] = hyperparameters.weight_decay
    if name == "rmsprop":
        settings |= {"gamma1": hyperparameters.gamma1, "gamma2": hyperparameters.gamma2}
        settings["centered"] = hyperparameters.rmsprop_centered
    return settings


def scales_like_gluoncv(hyperparameters: Hyperparameters) -> bool:
    """Tell whether gradients are scaled as GluonCV does; adaptive optimizers do not care for their scale."""
    return hyperparameters.optimizer in ("sgd", "nag") and hyperparameters.gradient_scale == "gluoncv"


def explain_optimizer(job: Hyperparameters, devices: int) -> None:
    """Log, once a job, what the optimizer makes of settings that do not act as one would think."""
    if not job.sets_rate:
        LOG.warning("adadelta sets its own step sizes: learning_rate and lr_scheduler have no effect on it")
    if job.optimizer == "rmsprop" and job.rmsprop_centered:
        LOG.info(
            "rmsprop in its centered form: gamma1=%s, and gamma2=%s as momentum; weight_decay=%s",
            job.gamma1,
            job.gamma2,
            job.weight_decay,
        )
    elif job.optimizer == "rmsprop":
        LOG.info(
            "rmsprop in its plain form: gamma1=%s; gamma2=%s has no effect, it is the momentum of the centered form "
            "(_rmsprop_centered=True)",
            job.gamma1,
            job.gamma2,
        )
    if devices == 1 and job.kvstore != read_schema()["properties"]["_kvstore"]["default"]:
        LOG.info("_kvstore=%s has no effect: there is one device, so no gradients are summed", job.kvstore)
    if job.accumulate > 1:
        LOG.info(
            "_accumulate=%d: each update uses the gradients of %d images, the last one of an epoch fewer",
            job.accumulate,
            job.accumulate * job.mini_batch_size,
        )
    if scales_like_gluoncv(job):
        rate = job.learning_rate * devices / (job.mini_batch_size * job.accumulate)
        LOG.info(
            "%s steps as in GluonCV and the built-in algorithm: learning_rate %g with mini_batch_size %d on %d "
            "device%s is %g by the mean over the batch (_gradient_scale=mean). _aux_weight applies to the logged loss, "
            "not to the gradient",
            job.optimizer,
            job.learning_rate,
            job.mini_batch_size,
            devices,
            "" if devices == 1 else "s",
            rate,
        )
