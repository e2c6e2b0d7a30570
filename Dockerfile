# The image of the exporter. Builds with BuildKit (`docker build .`) and with Buildah.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" -t gaussdb-mysql-backup-exporter .
#
# Behind a mirror of PyPI, lend pip's settings to the build; they do not enter the image:
#   docker build --secret id=pip.conf,src=/etc/pip.conf ...
#
# Any Debian-like base does that has Python 3.11 or later as `python3`, with venv.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS builder
WORKDIR /build

# Two environments: `tools` builds, `exporter` is all that leaves this stage, and has no pip.
COPY requirements.lock requirements-build.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        --only-binary :all: -r requirements-build.lock \
    && python3 -m venv --without-pip /opt/exporter \
    && tools/bin/pip --python /opt/exporter/bin/python3 install --no-cache-dir \
        --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY exporter exporter
COPY docs/runbooks docs/runbooks
COPY helm/gaussdb-mysql-backup-exporter/files helm/gaussdb-mysql-backup-exporter/files
# --no-index: all that is needed is here by now, checked by its hash.
RUN tools/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-index --no-deps \
        --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /opt/exporter/bin/python3 install --no-cache-dir \
        --disable-pip-version-check --no-index --no-deps dist/*.whl
COPY docker/healthcheck.py /opt/exporter/healthcheck.py
# Only what runs: no other programs, no sources of compiled modules, no types.
RUN find /opt/exporter/bin -type f ! -name gaussdb-mysql-backup-exporter -delete \
    && find /opt/exporter/lib -type f \
        \( -name '*.c' -o -name '*.h' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.pyx' \) -delete \
    && rm -rf /opt/exporter/include

FROM ${BASE_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
# Address of the repository; and the base, whose name a build argument may pin: NAME@sha256:...
ARG SOURCE
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="gaussdb-mysql-backup-exporter" \
      org.opencontainers.image.description="Prometheus exporter for the incremental backups of Huawei Cloud GaussDB(for MySQL) / TaurusDB" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# The same base as the builder's, so the environment's link to the interpreter holds.
COPY --from=builder /opt/exporter /opt/exporter
ENV PATH="/opt/exporter/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REVISION="${REVISION}"

# Numeric, so that Kubernetes can see for itself that it is not root.
USER 65532:65532
WORKDIR /
EXPOSE 10042
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python3", "/opt/exporter/healthcheck.py"]
ENTRYPOINT ["gaussdb-mysql-backup-exporter"]
