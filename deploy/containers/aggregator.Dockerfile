# The server. From the top of a clone:
#   docker build -f deploy/containers/aggregator.Dockerfile -t braid-aggregator .
# It holds no torch. Its folder is the volume; docs/guide/containers.md has the commands. Podman and buildah: with
# `--format docker`, for the health check.
ARG BASE=python:3.12-slim
# hadolint ignore=DL3006  # the base is an argument, tagged
FROM ${BASE} AS build
COPY . /src
RUN python3 -m venv /opt/braid/venv && \
    /opt/braid/venv/bin/pip install --quiet --no-cache-dir --constraint /src/constraints.txt '/src[server,hub]'

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=build /opt/braid /opt/braid
# The numbers are fixed: a folder of the host that is mounted in the volume's place is given to them.
RUN groupadd --gid 8470 braid && \
    useradd --uid 8470 --gid braid --no-create-home --home-dir /var/lib/braid-aggregator --shell /usr/sbin/nologin braid && \
    install -d -o braid -g braid -m 700 /var/lib/braid-aggregator
# One thread of BLAS: the merge is small algebra, and more threads only wait for each other.
ENV PATH=/opt/braid/venv/bin:$PATH \
    OPENBLAS_NUM_THREADS=1 \
    PYTHONUNBUFFERED=1
USER 8470:8470
VOLUME /var/lib/braid-aggregator
EXPOSE 8470
# Status 9 where no server answers; docker knows 0 and 1 alone.
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s \
    CMD ["sh", "-c", "aggregator status /var/lib/braid-aggregator >/dev/null || exit 1"]
ENTRYPOINT ["aggregator"]
CMD ["serve", "/var/lib/braid-aggregator", "--host", "0.0.0.0"]
