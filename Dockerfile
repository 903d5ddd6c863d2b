# What every node of a cluster runs, with GPUs or without: torch's wheels for Linux bring CUDA's libraries along, and do
# without where there is no driver. A torch without them would be another than the locked one.
# Pin the base by its digest with --build-arg BASE=python:3.11.13-slim-bookworm@sha256:…
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS packages
WORKDIR /build
COPY requirements.lock pyproject.toml ./
# What pyproject.toml wants for running, without developers' tools, in the versions and with the hashes of the lock.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
 && python -m venv /uv \
 && /uv/bin/python -m pip install --no-cache-dir --require-hashes -r uv.txt \
 && python -m venv --without-pip /opt/celebvision \
 && /uv/bin/uv pip install --python /opt/celebvision/bin/python --no-cache --compile-bytecode --require-hashes \
      -r pyproject.toml -c requirements.lock
COPY README.md LICENSE ./
COPY celebvision celebvision
# A layer of its own, so that a change of our code moves kilobytes and not CUDA.
RUN /uv/bin/uv pip install --python /opt/celebvision/bin/python --no-cache --compile-bytecode --no-deps \
      --build-constraint requirements.lock --prefix /build/ours .

FROM ${BASE} AS run
# The head's autoscaler reaches workers by ssh and puts files into containers by rsync; Kubernetes' probes use wget.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openssh-client rsync wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 --shell /bin/bash ray \
 && echo 'export PATH=/opt/celebvision/bin:$PATH' > /etc/profile.d/celebvision.sh
ENV PATH=/opt/celebvision/bin:$PATH \
    HOME=/home/ray \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages /opt/celebvision /opt/celebvision
COPY --from=packages /build/ours /opt/celebvision
WORKDIR /app
COPY jobs jobs
COPY configs configs
COPY cluster/aws/share_token.py cluster/aws/share_token.py
USER ray
CMD ["celebvision", "--help"]
