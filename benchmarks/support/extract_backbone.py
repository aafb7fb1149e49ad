"""Extract the backbone of a model of this container, as a file for `benchmarks.quality --pretrained`."""

from __future__ import annotations

import argparse

import mxnet as mx

_HEADS = ("head.", "auxlayer.")


def main() -> None:
    """Write the parameters of the backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="parameter file of a model")
    parser.add_argument("backbone", help="parameter file to write")
    arguments = parser.parse_args()
    weights = mx.nd.load(arguments.model)
    mx.nd.save(arguments.backbone, {name: array for name, array in weights.items() if not name.startswith(_HEADS)})


if __name__ == "__main__":
    main()
