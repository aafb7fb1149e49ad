"""ImageNet weights of the backbones: find, verify, load, download.

`python -m container.mx.pretrained resnet-50 resnet-101` fetches them from where they are published, and writes each in
GluonCV's own form; `--from FILE` converts a file that is there.
"""

from __future__ import annotations

import argparse
import os
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
from container.mx.weights.sources import BACKBONES, address_of

DIRECTORY_VARIABLE = "PRETRAINED_DIR"
CHANNEL = "pretrained"

_CLASSIFIER = "fc."  # ImageNet's own last layer, of no use here


def pretrained_dir() -> Path:
    """Return the directory of the weights: PRETRAINED_DIR, or `pretrained` beside the program."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or Path(__file__).parents[2] / "pretrained")


def find_pretrained(environment: Environment, backbone: str) -> Path:
    """Return the file of `backbone`'s weights: the channel `pretrained`'s, or else the image's own.

    Raises ClientError saying what to do when there is none, several, or one that is damaged.
    """
    if CHANNEL in environment.channels:
        return _find_given(environment, backbone)
    if found := find_converted(backbone, pretrained_dir()):
        return found
    known = BACKBONES[backbone]
    files = " or ".join(source.address for source in known.sources[:-1])
    raise ClientError(
        f"the ImageNet weights of {backbone} are missing: give the job a channel {CHANNEL} with one file of them "
        f"({files}), train without them by use_pretrained_model=False, or have them in the image "
        f"(PRETRAINED={backbone} when it is built) or in {DIRECTORY_VARIABLE}, where "
        f"python -m container.mx.pretrained {backbone} puts them. {pretrained_dir()} holds no {known.gluoncv}-*.params"
    )


def _find_given(environment: Environment, backbone: str) -> Path:
    """Return the one file of the channel `pretrained`."""
    channel = environment.channels[CHANNEL]
    files = [path for path in sorted(channel.path.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if len(files) != 1:
        found = ", ".join(path.name for path in files[:5]) or "nothing"
        raise ClientError(f"channel {CHANNEL} must hold one file of {backbone}'s weights; it holds {found}")
    return files[0]


def read_pretrained(path: Path, backbone: str) -> dict[str, Array]:
    """Return the weights of `backbone` in `path` under GluonCV's names, without ImageNet's classifier.

    Raises ClientError that names the file.
    """
    _check_published(path, backbone)
    weights = _read(path, backbone)
    return {name: weights[name] for name in encoder_shapes(backbone)}


def _check_published(path: Path, backbone: str) -> None:
    """Raise ClientError when a file that is called as a published one is not that file."""
    for source in BACKBONES[backbone].sources:
        names = {source.file, source.file.removesuffix(".zip"), f"{source.file.removesuffix('.zip')}.params"}
        algorithm, _, expected = source.digest.partition(":")
        if expected and path.name in names and (found := zipped.digest(path, algorithm)) != expected:
            raise ClientError(
                f"{path} is not what was published as {path.name}: its {algorithm.upper()} is {found} instead of "
                f"{expected}; get it again from {source.address}, or give a file of your own another name"
            )


def _read(path: Path, backbone: str) -> dict[str, Array]:
    """Read a file of `backbone`'s weights under GluonCV's names; raises ClientError that names it."""
    raw = read_weights(path, f"take {' or '.join(source.address for source in BACKBONES[backbone].sources[:-1])}")
    try:
        weights = to_gluoncv(raw)
        check_fit(weights, encoder_shapes(backbone), optional=lambda name: name.startswith(_CLASSIFIER))
    except ValueError as error:
        is_whole = any(name.startswith(("head.", "final_block.")) for name in raw)
        remedy = "; a whole network belongs into channel model" if is_whole else ""
        raise ClientError(f"{path} does not hold the weights of {backbone}: {error}{remedy}") from error
    return weights


def convert(path: Path, backbone: str, directory: Path) -> Path:
    """Write the weights of `path` in GluonCV's form into `directory`, named by their hash; returns the file."""
    import mxnet as mx  # nothing else here needs it

    arrays = {name: mx.nd.array(array) for name, array in _read(path, backbone).items()}
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        written = Path(scratch) / "weights.params"
        model_directory.write_weights(written, lambda name: mx.nd.save(name, arrays))
        sha1 = zipped.digest(written, "sha1")
        return written.rename(directory / f"{BACKBONES[backbone].gluoncv}-{sha1[:8]}.params")


def _fetch(backbone: str, directory: Path) -> Path:
    """Fetch and convert the weights from the first source that gives them; SystemExit with every reason otherwise."""
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
    """Put the named backbones' weights where jobs find them, and print each file."""
    parser = argparse.ArgumentParser(description="Fetch, check and convert the backbones' ImageNet weights.")
    parser.add_argument("backbones", nargs="+", choices=list(BACKBONES), metavar="BACKBONE", help=", ".join(BACKBONES))
    parser.add_argument("--directory", type=Path, default=pretrained_dir(), help="where to put them (%(default)s)")
    parser.add_argument("--from", type=Path, dest="file", help="convert this file of the one BACKBONE; fetch nothing")
    arguments = parser.parse_args()
    if arguments.file and len(arguments.backbones) != 1:
        parser.error("--from takes one BACKBONE")
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
