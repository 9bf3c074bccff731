# docker build -t selftaught .                                              # for a CPU
# docker build -t selftaught --build-arg BACKEND=cu128 .                    # for CUDA 12.8
# docker run --rm -v "$PWD:/data" --shm-size 8g selftaught pretrain photos/ # runs/ appears beside photos/
#
# BASE is any image with Python 3.11 or later and a C++ compiler for the views; BACKEND names the build
# of PyTorch as uv does (cpu, cu126, cu128, rocm6.4 ...). CUDA's libraries come with PyTorch: the base
# needs none, and the machine its driver and the NVIDIA container toolkit (`docker run --gpus all`).
ARG BASE=python:3.12-bookworm
FROM ${BASE}
ARG BACKEND=cpu
ARG EXTRAS=curate,onnx,remote,search,sound,video

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /selftaught
# hadolint ignore=DL3013
RUN python3 -m pip install --no-cache-dir uv
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN SELFTAUGHT_REQUIRE_NATIVE=1 python3 -m uv pip install --system --no-cache --torch-backend "${BACKEND}" ".[${EXTRAS}]"

# a run belongs to whoever starts it: `docker run --user "$(id -u):$(id -g)"`
ENV HOME=/data
WORKDIR /data
ENTRYPOINT ["selftaught"]
CMD ["--help"]
