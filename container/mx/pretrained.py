"""ImageNet weights of the backbones: find, verify, load, download.

`python -m container.mx.pretrained resnet-50 resnet-101` downloads the published weights, and writes them in the GluonCV
format. `--from FILE` converts an existing file.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from container.arrays import Array
from container.artifact import model_directory
from container.environment import Environment
from container.errors import ClientError
from container.mx.weights import zipped
from container.mx.weights.fetch import FetchError, fetch, find_converted, unfetched
from container.mx.weights.formats import read_weights
from container.mx.weights.names import check_fit, to_gluoncv
from container.mx.weights.shapes import encoder_shapes
from container.mx.weights.sources import BACKBONES, DIRECTORY_VARIABLE, address_of, pretrained_dir

CHANNEL = "pretrained"

_CLASSIFIER = "fc."  # last layer of the ImageNet model, which is not used


def find_pretrained(environment: Environment, backbone: str) -> Path:
    """Return the weight file of `backbone`: from the `pretrained` channel, or else from the container image.

    Raises ClientError with the fix if there is no file, more than one file, or a corrupt file.
    """
    if CHANNEL in environment.channels:
        return _find_given(environment, backbone)
    if found := find_converted(backbone, pretrained_dir()):
        return found
    known = BACKBONES[backbone]
    files = " or ".join(source.address for source in known.sources[:-1])
    raise ClientError(
        f"No ImageNet weights found for backbone {backbone}: {pretrained_dir()} contains no {known.gluoncv}-*.params "
        f"file. Do one of the following: (1) Add a {CHANNEL} channel that contains one of these files: {files}. "
        "(2) Set use_pretrained_model=False to train from random weights. "
        f"(3) Build the container image with PRETRAINED={backbone}. "
        f"(4) Run python -m container.mx.pretrained {backbone} to download the weights into {DIRECTORY_VARIABLE}."
    )


def _find_given(environment: Environment, backbone: str) -> Path:
    """Return the only file of the `pretrained` channel."""
    channel = environment.channels[CHANNEL]
    files = [path for path in sorted(channel.path.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if len(files) != 1:
        found = ", ".join(path.name for path in files[:5]) or "no files"
        raise ClientError(f"channel {CHANNEL} contains {found}. It must contain one weight file for {backbone}.")
    return files[0]


def read_pretrained(path: Path, backbone: str) -> dict[str, Array]:
    """Return the weights of `backbone` in `path` with GluonCV names, without the ImageNet classifier.

    Raises ClientError that names the file.
    """
    _check_published(path, backbone)
    weights = _read(path, backbone)
    return {name: weights[name] for name in encoder_shapes(backbone)}


def _check_published(path: Path, backbone: str) -> None:
    """Raise ClientError if a file has the name of a published file, but other content."""
    for source in BACKBONES[backbone].sources:
        names = {source.file, source.file.removesuffix(".zip"), f"{source.file.removesuffix('.zip')}.params"}
        algorithm, _, expected = source.digest.partition(":")
        if expected and path.name in names and (found := zipped.digest(path, algorithm)) != expected:
            raise ClientError(
                f"{path} differs from the published file {path.name}: its {algorithm.upper()} is {found} instead of "
                f"{expected}. Download it again from {source.address}. If it is a custom file, rename it."
            )


def _read(path: Path, backbone: str) -> dict[str, Array]:
    """Read a weight file of `backbone` with GluonCV names; raises ClientError that names the file."""
    raw = read_weights(path, f"Use {' or '.join(source.address for source in BACKBONES[backbone].sources[:-1])}.")
    try:
        weights = to_gluoncv(raw)
        check_fit(weights, encoder_shapes(backbone), optional=lambda name: name.startswith(_CLASSIFIER))
    except ValueError as error:
        is_whole = any(name.startswith(("head.", "final_block.")) for name in raw)
        remedy = ". Use the model channel for a complete model" if is_whole else ""
        raise ClientError(f"{path} does not contain the weights of {backbone}: {error}{remedy}") from error
    return weights


def convert(path: Path, backbone: str, directory: Path) -> Path:
    """Write the weights of `path` in the GluonCV format into `directory`; the file name contains the hash."""
    import mxnet as mx  # only this function needs it

    arrays = {name: mx.nd.array(array) for name, array in _read(path, backbone).items()}
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        written = Path(scratch) / "weights.params"
        model_directory.write_weights(written, lambda name: mx.nd.save(name, arrays))
        sha1 = zipped.digest(written, "sha1")
        return written.rename(directory / f"{BACKBONES[backbone].gluoncv}-{sha1[:8]}.params")


def _fetch(backbone: str, directory: Path) -> Path:
    """Download and convert the weights from the first source that works; raises SystemExit with all reasons."""
    reasons: dict[str, str] = {}
    for source in sorted(BACKBONES[backbone].sources, key=lambda source: not (directory / source.file).is_file()):
        try:
            fetched = fetch(source, directory)
            try:
                return convert(fetched, backbone, directory)
            finally:
                fetched.unlink()
        except (FetchError, ClientError) as error:
            reasons[address_of(source)] = str(error)
    raise SystemExit(unfetched(backbone, reasons))


def main() -> None:
    """Provide the weights of the backbones for jobs, and print the name of each file."""
    parser = argparse.ArgumentParser(description="Download, check, and convert the ImageNet weights of backbones.")
    parser.add_argument("backbones", nargs="+", choices=list(BACKBONES), metavar="BACKBONE", help=", ".join(BACKBONES))
    parser.add_argument("--directory", type=Path, default=pretrained_dir(), help="target directory (%(default)s)")
    parser.add_argument("--from", type=Path, dest="file", help="convert this file of one BACKBONE; do not download")
    arguments = parser.parse_args()
    if arguments.file and len(arguments.backbones) != 1:
        parser.error("--from accepts one BACKBONE")
    for backbone in arguments.backbones:
        try:
            if arguments.file:
                print(convert(arguments.file, backbone, arguments.directory))
            else:
                print(find_converted(backbone, arguments.directory) or _fetch(backbone, arguments.directory))
        except (ClientError, OSError) as error:
            raise SystemExit(f"{backbone}: {error}") from error


if __name__ == "__main__":
    main()
