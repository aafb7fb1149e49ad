"""The server that most people write: Flask, GluonCV's `predict`, Pillow in and out, protobuf filled value by value."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from flask import Flask, Response, request
from gluoncv.model_zoo.fcn import FCN
from mxnet.gluon.data.vision import transforms
from PIL import Image


def create_app() -> Flask:
    """Load the model of SAGEMAKER_BASE_DIR; PEER_PROTO is the folder of protobuf's classes."""
    sys.path.insert(0, os.environ["PEER_PROTO"])
    from record_pb2 import Record  # type: ignore[import-not-found]

    model = Path(os.environ["SAGEMAKER_BASE_DIR"]) / "model"
    num_classes = int(json.loads((model / "hyperparams.json").read_text())["num_classes"])
    network = FCN(nclass=num_classes, backbone="resnet50", pretrained_base=False)
    network.load_parameters(str(model / "model_best.params"), allow_missing=True)
    to_input = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    app = Flask(__name__)

    @app.get("/ping")
    def ping() -> Response:
        return Response()

    @app.post("/invocations")
    def invocations() -> Response:
        image = mx.nd.array(np.asarray(Image.open(io.BytesIO(request.data)).convert("RGB")), dtype="uint8")
        scores = network.predict(to_input(image).expand_dims(0))
        if request.headers["Accept"] == "image/png":
            target = io.BytesIO()
            Image.fromarray(scores.argmax(1).asnumpy()[0].astype(np.uint8)).save(target, "PNG")
            return Response(target.getvalue(), mimetype="image/png")
        record = Record()
        for value in scores.softmax(axis=1).asnumpy().ravel():
            record.features["target"].float32_tensor.values.append(float(value))
        record.features["shape"].int32_tensor.values.extend(scores.shape)
        return Response(record.SerializeToString(), mimetype="application/x-protobuf")

    return app
