# stclip in a container; INSTALL.md, "In a container", has the commands.
#
# With the two arguments as they are it computes on the CPU. For a GPU:
#   --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 --build-arg TORCH_INDEX=https://pypi.org/simple
# BASE is any Debian or Ubuntu whose Python is 3.10 or newer.
ARG BASE=debian:13-slim
FROM ${BASE}

# OpenCV's wheel needs libGL and GLib. Versions are those of the base.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/stclip/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# By itself, so that a change of the package leaves this layer as it is.
# hadolint ignore=DL3013
RUN python3 -m venv /opt/stclip && pip install --index-url "$TORCH_INDEX" torch torchvision
RUN --mount=type=bind,target=/source pip install /source

# All downloads go to /cache, a volume. Both folders can be written to by any user, since
# `docker run --user` gives the results in /work the owner that they have outside.
ENV STCLIP_CACHE=/cache TORCH_HOME=/cache/torch HF_HOME=/cache/huggingface MPLCONFIGDIR=/tmp
RUN useradd --create-home --uid 10001 stclip && install --directory --mode=1777 /cache /work
VOLUME /cache
WORKDIR /work
USER 10001
ENTRYPOINT ["stclip"]
CMD ["--help"]
