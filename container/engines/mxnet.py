"""The engine that runs the trainer's own network, on the first GPU or else on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.contrib import amp

from container import artifacts
from container.arrays import Array, Uint8Array
from container.errors import ClientError
from container.mx.memory import image_bytes
from container.mx.network import SegmentationNetwork, load_weights

_WARM_SIZE = 240


class MXNetEngine:
    """A model directory's best weights, ready to answer.

    One lock guards the network: MXNet blocks must not be called from several threads at once. Raises ClientError
    that names the file when the weights do not fit what the directory says of its network, or the `precision` when
    this engine or device lacks it.
    """

    def __init__(self, model_dir: Path, precision: str = "auto") -> None:
        if precision not in ("auto", "float32", "float16"):
            raise ClientError(f"SERVE_PRECISION={precision} needs OpenVINO: set SERVE_ENGINE=openvino, or take auto")
        self.precision = "float16" if precision == "float16" else "float32"
        settings = artifacts.read_model_settings(model_dir)
        self.num_classes: int = settings["num_classes"]
        self._algorithm: str = settings["algorithm"]
        self._device = mx.gpu() if mx.context.num_gpus() else mx.cpu()
        if self.precision == "float16" and self._device.device_type != "gpu":
            raise ClientError("SERVE_PRECISION=float16 needs a GPU: on CPUs take auto, float32 or bfloat16")
        self._network = SegmentationNetwork(**settings)
        load_weights(self._network, model_dir / artifacts.BEST_WEIGHTS, [self._device])
        if self.precision == "float16":
            self._network._children.pop("auxlayer")  # the conversion wants every parameter to be in the graph
            self._network.hybridize(static_alloc=True)
            self._logits(np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8))  # traces the graph that is converted
            self._network = amp.convert_hybrid_block(self._network, "float16", ctx=self._device)
        self._network.hybridize(static_alloc=True)
        self._lock = threading.Lock()

    def mask(self, image: Uint8Array) -> Array:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        with self._lock:
            answer: Array = self._logits(image).argmax(axis=1).astype("uint8").asnumpy()[0]
        return answer

    def probabilities(self, image: Uint8Array) -> Array:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        with self._lock:
            answer: Array = self._logits(image).softmax(axis=1).asnumpy()[0]
        return answer

    def memory(self, pixels: int) -> int:
        """Return 0: how much MXNet takes is not known beforehand."""
        return 0

    def image_bytes(self, pixels: int) -> int:
        """Return about how many bytes such an image takes on a CPU."""
        return image_bytes(self._algorithm, self.num_classes, pixels)

    def warm(self) -> None:
        """Answer once, so that the first request does not pay for what is set up lazily."""
        self.mask(np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8))

    def _logits(self, image: Uint8Array) -> mx.nd.NDArray:
        return self._network(mx.nd.array(image[None], dtype="uint8", ctx=self._device))
