"""Locations of ImageNet weights: download sources in order of preference, and the environment variables for them.

The weights of a backbone are the same in every source: those of GluonCV, in three file formats. This module needs only
the standard library, so that the build of a container image can use it before packages are installed.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

DIRECTORY_VARIABLE = "PRETRAINED_DIR"
MIRROR_VARIABLE = "PRETRAINED_MIRROR"
GLUON_STORE_VARIABLE = "MXNET_GLUON_REPO"  # also used by GluonCV

_IMGCLSMOB = "https://github.com/osmr/imgclsmob/releases/download/v0.0.296/"
_TIMM = "https://huggingface.co/timm/"
_GLUON_STORE = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/"


@dataclasses.dataclass(frozen=True)
class Source:
    """Published file. `digest` (`sha1:…`, `sha256:…`, or empty) is that of the weights, extracted from their zip."""

    file: str  # name on a mirror, and in the target directory
    address: str
    digest: str

    @property
    def published(self) -> str:
        """Name of the file at its published URL."""
        return self.address.rsplit("/", 1)[-1]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Name of a backbone in GluonCV, SHA-1 of the GluonCV weight file, and the sources."""

    gluoncv: str
    sha1: str
    sources: tuple[Source, ...]


def _imgclsmob(file: str, sha1: str) -> Source:
    return Source(file, _IMGCLSMOB + file, f"sha1:{sha1}")


def _timm(name: str, sha256: str = "") -> Source:
    address = f"{_TIMM}{name}/resolve/main/model.safetensors"
    return Source(f"{name}.safetensors", address, f"sha256:{sha256}" if sha256 else "")


def _backbone(gluoncv: str, sha1: str, *sources: Source) -> Backbone:
    file = f"{gluoncv}-{sha1[:8]}.zip"  # the GluonCV store is last: it has not responded since February 2024
    return Backbone(gluoncv, sha1, (*sources, Source(file, f"{_GLUON_STORE}gluon/models/{file}", f"sha1:{sha1}")))


BACKBONES = {
    "resnet-18": _backbone(
        "resnet18_v1b",
        "2d9d980c990442f826f20781ed039851e78dabe3",
        _timm("resnet18.gluon_in1k", "6991fcc0c58379a8496f6273b2f211e492f6af6494041fded649a482772ad2bf"),
    ),
    "resnet-34": _backbone("resnet34_v1b", "8e16b84814e84f64d897854003f049872991eaa6", _timm("resnet34.gluon_in1k")),
    "resnet-50": _backbone(
        "resnet50_v1s",
        "25a187fa281ddc98afbcd0cc0f0646885b874b80",
        _imgclsmob("resnetd50b-0549-17d6004b.params.zip", "17d6004b5c6c1b97cfb47377ae5076810c5d88be"),
        _timm("resnet50s.gluon_in1k"),
    ),
    "resnet-101": _backbone(
        "resnet101_v1s",
        "bd93a83c05f709a803b1221aeff0b028e6eebb03",
        _imgclsmob("resnetd101b-0461-fead1bcb.params.zip", "fead1bcb86bba2be4ed7f0033fa972dc613e3280"),
        _timm("resnet101s.gluon_in1k", "71b3a168cb34fe67abf5e19d1f80f7f893675d7ef7006b6561f2e536cb07b924"),
    ),
}


def pretrained_dir() -> Path:
    """Return the directory of the weights: PRETRAINED_DIR, or `pretrained` next to the program."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or Path(__file__).parents[3] / "pretrained")


def address_of(source: Source) -> str:
    """Return the URL of `source`: its published URL, or if PRETRAINED_MIRROR is set, its file on the mirror."""
    if mirror := os.environ.get(MIRROR_VARIABLE):
        return f"{mirror.rstrip('/')}/{source.file}"
    if (store := os.environ.get(GLUON_STORE_VARIABLE)) and source.address.startswith(_GLUON_STORE):
        return f"{store.rstrip('/')}/{source.address.removeprefix(_GLUON_STORE)}"
    return source.address


def remedies(backbone: str) -> str:
    """Return instructions to get the weights without a network: the files, and two ways to provide them."""
    files = " or ".join(source.address for source in BACKBONES[backbone].sources[:-1])
    return (
        f"Without a network, download {files} on another machine. Then do one of the following: (1) Convert the file "
        f"with python -m container.mx.pretrained {backbone} --from FILE. (2) Upload the file to S3 and use it as the "
        "pretrained channel of the job."
    )
