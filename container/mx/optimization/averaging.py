"""Moving average of the weights and batch normalization statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mxnet as mx

from container.mx.networks.segmentation import SegmentationNetwork


class WeightAverages:
    """Follows `network` after every update: average ← average + (1 − decay) × (weight − average).

    The decay begins small, (1 + n) / (10 + n) for update n, so that the average forgets where training began. Of the
    statistics, which every device gathers by itself, those of the first device count.
    """

    def __init__(self, network: SegmentationNetwork, decay: float, static: bool) -> None:
        self._parameters = network._collect_params_with_prefix()
        self._decay = decay
        self._static = static  # statistics are then written behind the engine's back
        self.arrays: dict[str, mx.nd.NDArray] = {}
        self.begin()

    def begin(self) -> None:
        """Restart the average from the weights of the network."""
        self.arrays = {name: parameter.list_data()[0].copy() for name, parameter in self._parameters.items()}

    def update(self, updates: int) -> None:
        """Take in the weights after so many updates."""
        if self._static:
            mx.nd.waitall()
        share = 1 - min(self._decay, (1 + updates) / (10 + updates))
        for name, parameter in self._parameters.items():
            average = self.arrays[name]
            average += share * (parameter.list_data()[0] - average)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Let the network answer with the averages on all devices; afterwards it has its own weights again."""
        mx.nd.waitall()
        own = {name: [array.copy() for array in each.list_data()] for name, each in self._parameters.items()}
        for name, parameter in self._parameters.items():
            parameter.set_data(self.arrays[name])
        try:
            yield
        finally:
            mx.nd.waitall()
            for name, parameter in self._parameters.items():
                for array, weight in zip(parameter.list_data(), own[name], strict=True):
                    weight.copyto(array)
