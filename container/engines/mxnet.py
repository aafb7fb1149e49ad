"""The engine that runs the trainer's own network, on the first GPU or else on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path

import mxnet as mx
import numpy as np

from container import artifacts
from container.mx.network import SegmentationNetwork, load_weights

_WARM_SIZE = 240


class MXNetEngine:
    """A model directory's best weights, ready to answer.

    One lock guards the network: MXNet blocks must not be called from several threads at once. Raises ClientError
    that names the file when the weights do not fit what the directory says of its network.
    """

    def __init__(self, model_dir: Path) -> None:
        settings = artifacts.read_model_settings(model_dir)
        self.num_classes: int = settings["num_classes"]
        self._device = mx.gpu() if mx.context.num_gpus() else mx.cpu()
        self._network = SegmentationNetwork(**settings)
        load_weights(self._network, model_dir / artifacts.BEST_WEIGHTS, [self._device])
        self._network.hybridize(static_alloc=True)
        self._lock = threading.Lock()

    def mask(self, image: np.ndarray) -> np.ndarray:
        """Return the likeliest class of every pixel: uint8 RGB (H, W, 3) to uint8 (H, W)."""
        with self._lock:
            answer: np.ndarray = self._logits(image).argmax(axis=1).astype("uint8").asnumpy()[0]
        return answer

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return the probability of every class at every pixel: uint8 RGB (H, W, 3) to float32 (num_classes, H, W)."""
        with self._lock:
            answer: np.ndarray = self._logits(image).softmax(axis=1).asnumpy()[0]
        return answer

    def warm(self) -> None:
        """Answer once, so that the first request does not pay for what is set up lazily."""
        self.mask(np.zeros((_WARM_SIZE, _WARM_SIZE, 3), np.uint8))

    def _logits(self, image: np.ndarray) -> mx.nd.NDArray:
        return self._network(mx.nd.array(image[None], dtype="uint8", ctx=self._device))
