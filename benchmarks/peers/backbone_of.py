"""Take the backbone out of a model of ours, as a file for `--pretrained`: backbone_of MODEL.params BACKBONE.params."""

from __future__ import annotations

import sys

import mxnet as mx

_OTHERS = ("head.", "auxlayer.")


def main() -> None:
    """Write argv[2] from argv[1]."""
    weights = mx.nd.load(sys.argv[1])
    mx.nd.save(sys.argv[2], {name: array for name, array in weights.items() if not name.startswith(_OTHERS)})


if __name__ == "__main__":
    main()
