"""Which devices a job computes on."""

from __future__ import annotations

import logging

import mxnet as mx

from container.errors import ClientError

LOG = logging.getLogger(__name__)


def choose_devices() -> list[mx.Context]:
    """Return all GPUs, or the CPU with a warning when there is none; log the built-in's line either way.

    Raises ClientError when the GPU is of a kind that MXNet 1.9.1 holds no code for.
    """
    count = mx.context.num_gpus()
    LOG.info("Number of GPUs being used: %d", count)
    if not count:
        LOG.warning("there is no GPU: training runs on the CPU, which is much slower")
        return [mx.cpu()]
    devices = [mx.gpu(index) for index in range(count)]
    try:
        for device in devices:
            (mx.nd.ones((1,), ctx=device) + 1).wait_to_read()
    except mx.MXNetError as error:
        raise ClientError(
            "MXNet 1.9.1 cannot run on this GPU: it holds code for compute capability 5.0 to 8.9 "
            f"(p3, p4d, g4dn, g5, g6 instances), not for Hopper or later (p5): {str(error).splitlines()[0]}"
        ) from error
    return devices
