# The CUDA image: `docker run IMAGE train` and `docker run IMAGE serve`, as SageMaker runs them. `make image` builds it.
# It runs without a GPU, too. Dockerfile.cpu is the same program with the dependencies of the CPU alone.
#
# PRETRAINED names the backbones whose ImageNet weights are baked in: resnet-18, -34, -50, -101, with commas, or none.
# They come from ./pretrained, or from where they are published (PRETRAINED_MIRROR names another place).
ARG BASE_IMAGE=debian:bookworm-20250520-slim

# The weights come first: a build that cannot get them ends here, before anything large is installed.
FROM ${BASE_IMAGE} AS fetched
WORKDIR /opt/program
COPY container/__init__.py container/errors.py container/
COPY container/mx/__init__.py container/mx/
COPY container/mx/weights/__init__.py container/mx/weights/fetch.py container/mx/weights/sources.py container/mx/weights/zipped.py container/mx/weights/
COPY pretrained/ pretrained/
ARG PRETRAINED=resnet-50,resnet-101
ARG PRETRAINED_MIRROR
# hadolint ignore=SC2046,DL4006
RUN if [ "$PRETRAINED" != none ]; then \
        apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            python3-requests python3-tqdm ca-certificates \
        && python3 -m container.mx.weights.fetch $(echo "$PRETRAINED" | tr , ' '); \
    fi

FROM ${BASE_IMAGE} AS python
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3.11 libgomp1 libquadmath0 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENV PATH=/opt/venv/bin:$PATH LANG=C.UTF-8 TZ=UTC

FROM python AS builder
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3.11-venv ca-certificates
RUN python3.11 -m venv /opt/venv
COPY requirements/build.txt /requirements/
RUN pip install --no-deps --require-hashes -r /requirements/build.txt
COPY requirements/gpu.txt /requirements/
# sagemaker-training compiles a library for MPI jobs, which nothing here loads: CC=true does without a compiler.
RUN CC=true pip install --no-deps --require-hashes --no-build-isolation -r /requirements/gpu.txt
# Without the NVIDIA driver, the CUDA build of MXNet cannot be loaded. The library of its CPU build is next to it.
COPY requirements/cpu.txt /requirements/
RUN sed -n '/^mxnet==/,/[^\\]$/p' /requirements/cpu.txt > /requirements/mxnet.txt \
    && pip install --no-deps --require-hashes --target /mxnet -r /requirements/mxnet.txt \
    && mkdir /opt/mxnet-cpu \
    && cp /mxnet/mxnet/lib*.so* /opt/mxnet-cpu/
# What neither entrypoint can use: the toolkit's own `train`, installers, other accelerators' plugins, packages' tests.
RUN rm /opt/venv/bin/train \
    && pip uninstall --yes --quiet setuptools wheel pip \
    && cd /opt/venv/lib/python3.11/site-packages \
    && rm -r openvino/libs/libopenvino_intel_[gn]pu_plugin.so openvino/libs/cache.json tests \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && rm -r nvidia/*/include \
    && cd nvidia \
    && rm ./*/lib/libcusolverMg.so.* ./*/lib/libcudnn_adv_*.so.* ./*/lib/libnvblas.so.* ./*/lib/libcufftw.so.* ./*/lib/libOpenCL.so.*

# The bill of materials: all remaining Python packages with their versions and licenses.
FROM builder AS described
COPY requirements/audit.txt /requirements/
RUN python3.11 -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-deps --require-hashes -r /requirements/audit.txt \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /sbom.json /opt/venv/bin/python

FROM builder AS pretrained
WORKDIR /opt/program
COPY container/ container/
COPY --from=fetched /opt/program/pretrained pretrained/
ARG PRETRAINED=resnet-50,resnet-101
ENV MXNET_LIBRARY_PATH=/opt/mxnet-cpu/libmxnet.so
# hadolint ignore=SC2046,DL4006
RUN mkdir /pretrained \
    && if [ "$PRETRAINED" != none ]; then \
        python -m container.mx.pretrained $(echo "$PRETRAINED" | tr , ' ') > /files \
        && xargs cp -t /pretrained < /files; \
    fi

FROM python
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /opt/mxnet-cpu /opt/mxnet-cpu
RUN ls -d /opt/venv/lib/python3.11/site-packages/nvidia/*/lib > /etc/ld.so.conf.d/nvidia-wheels.conf && ldconfig
COPY --from=pretrained /pretrained /opt/program/pretrained
COPY --from=described /sbom.json /opt/program/
WORKDIR /opt/program
COPY LICENSE NOTICE THIRD-PARTY.md train serve hyperparameters.schema.json ./
COPY container/ container/
# The packages' bytecode is in the image (a second less at every start); at run time none is written, so that the root
# file system may be read-only and holds the same before and after.
RUN python -m compileall -q container
ENV PATH=/opt/program:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    MXNET_CPU_LIBRARY=/opt/mxnet-cpu/libmxnet.so \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="semantic-segmentation" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.multi-models="true"
EXPOSE 8080
# Without a command, newer clients of SageMaker AI expect `train`. The exec form lets signals reach the program.
CMD ["train"]
