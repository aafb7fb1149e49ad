"""The baseline of the server benchmarks: Flask, GluonCV `predict`, Pillow, and protobuf filled value by value."""

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
    """Load the model in SAGEMAKER_BASE_DIR, which also contains record_pb2.py if protobuf is requested."""
    base = os.environ["SAGEMAKER_BASE_DIR"]
    sys.path.insert(0, base)
    model = Path(base, "model")
    num_classes = int(json.loads((model / "hyperparams.json").read_text())["num_classes"])
    network = FCN(nclass=num_classes, backbone="resnet50", pretrained_base=False)
    network.load_parameters(str(model / "model_best.params"), allow_missing=True)
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    to_input = transforms.Compose([transforms.ToTensor(), normalize])
    app = Flask(__name__)

    @app.get("/ping")
    def ping() -> Response:
        return Response()

    @app.post("/invocations")
    def invocations() -> Response:
        image = mx.nd.array(np.asarray(Image.open(io.BytesIO(request.data)).convert("RGB")), dtype="uint8")
        logits = network.predict(to_input(image).expand_dims(0))
        if request.headers["Accept"] == "image/png":
            png = io.BytesIO()
            Image.fromarray(logits.argmax(1).asnumpy()[0].astype(np.uint8)).save(png, "PNG")
            return Response(png.getvalue(), mimetype="image/png")
        from record_pb2 import Record  # type: ignore[import-not-found]

        record = Record()
        for value in logits.softmax(axis=1).asnumpy().ravel():
            record.features["target"].float32_tensor.values.append(float(value))
        record.features["shape"].int32_tensor.values.extend(logits.shape)
        return Response(record.SerializeToString(), mimetype="application/x-protobuf")

    return app
