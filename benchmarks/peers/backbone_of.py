"""Take the backbone out of a model of ours, as a file for `--pretrained`."""

from __future__ import annotations

import argparse

import mxnet as mx

_OTHERS = ("head.", "auxlayer.")


def main() -> None:
    """Write the one file from the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="parameter file of a model")
    parser.add_argument("backbone", help="parameter file to write")
    given = parser.parse_args()
    weights = mx.nd.load(given.model)
    mx.nd.save(given.backbone, {name: array for name, array in weights.items() if not name.startswith(_OTHERS)})


if __name__ == "__main__":
    main()
