"""ImageNet weights of the backbones: where they lie, how they are checked, loaded and fetched.

`python -m container.mx.pretrained resnet-50 resnet-101` fetches them from GluonCV's model store.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from gluoncv.model_zoo import model_store, resnetv1b
from gluoncv.utils import check_sha1

from container.errors import ClientError
from container.mx.network import SegmentationNetwork

DIRECTORY_VARIABLE = "PRETRAINED_DIR"

_MODELS = {"resnet-50": "resnet50_v1s", "resnet-101": "resnet101_v1s"}
_STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")


def pretrained_dir() -> Path:
    """Return the directory of the weights: PRETRAINED_DIR, or `pretrained` beside the program."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or Path(__file__).parents[2] / "pretrained")


def find_pretrained(backbone: str) -> Path:
    """Return the checked parameter file of `backbone`; raises ClientError saying what to do when there is none."""
    name = _MODELS[backbone]
    path = pretrained_dir() / f"{name}-{model_store.short_hash(name)}.params"
    if not path.is_file():
        raise ClientError(
            f"the ImageNet weights of {backbone} are missing: {path} is not there. Put GluonCV's file into that "
            f"directory (python -m container.mx.pretrained {backbone} fetches it), point {DIRECTORY_VARIABLE} to "
            "where it is, or train without it by use_pretrained_model=False"
        )
    if not check_sha1(str(path), model_store._model_sha1[name]):
        raise ClientError(f"{path} is damaged: its SHA-1 is not the model store's; fetch it again")
    return path


def load_pretrained(network: SegmentationNetwork, backbone: str, path: Path) -> None:
    """Copy the ImageNet weights of `path` into the network's encoder, which must be initialised on the CPU."""
    imagenet = getattr(resnetv1b, _MODELS[backbone])(pretrained=False, dilated=True)
    imagenet.load_parameters(str(path))
    for stage in _STAGES:
        source = getattr(imagenet, stage)._collect_params_with_prefix()
        for name, parameter in getattr(network, stage)._collect_params_with_prefix().items():
            parameter.set_data(source[name].data())


def main() -> None:
    """Fetch the named backbones' weights, and check each against the model store's SHA-1."""
    parser = argparse.ArgumentParser(description="Fetch and check ImageNet weights from GluonCV's model store.")
    parser.add_argument("backbones", nargs="+", choices=sorted(_MODELS), metavar="BACKBONE", help=", ".join(_MODELS))
    parser.add_argument("--directory", type=Path, default=pretrained_dir(), help="where to put them (%(default)s)")
    arguments = parser.parse_args()
    for backbone in arguments.backbones:
        try:
            print(model_store.get_model_file(_MODELS[backbone], root=str(arguments.directory)))
        except Exception as error:  # requests', zipfile's and the store's own
            raise SystemExit(
                f"{backbone} could not be fetched: {error}. MXNET_GLUON_REPO names another store"
            ) from error


if __name__ == "__main__":
    main()
