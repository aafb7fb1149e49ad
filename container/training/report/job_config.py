"""Job configuration for the report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping

from container.data.loader import Loader
from container.environment import Environment
from container.hyperparameters import Hyperparameters

_PACKAGES = ("mxnet", "mxnet-cu112", "gluoncv", "numpy", "opencv-python-headless", "pillow", "onnx", "openvino")


def configuration(job: Hyperparameters) -> dict[str, str]:
    """Return the hyperparameters by name, without the class names, which the report shows elsewhere."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in job.as_dict().items()
        if name != "_class_names"
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the metrics, without importing them."""
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sources(environment: Environment, loaders: Mapping[str, Loader]) -> dict[str, str]:
    """Return the content of each channel, and the name of the job in SageMaker AI."""
    found = {"job": environment.job_name} if environment.job_name else {}
    for channel, loader in loaders.items():
        samples = "a stream" if loader.count is None else f"{loader.count} pairs"
        label_map = {key: value for key, value in loader.label_map.content.items() if key != "names"}
        found[f"channel {channel}"] = f"{samples}, label map {json.dumps(label_map)}"
    if "model" in environment.channels:
        found["channel model"] = "weights of an earlier job"
    return found
