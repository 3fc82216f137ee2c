# A board. From the top of a clone, on the board or on a machine like it:
#   docker build -f deploy/containers/board.Dockerfile -t braid-board .
#
# The installer takes the torch that serves the machine that builds. For another kind of board, or for one image that
# several kinds run, name the row of edge_client/host/torch_build/builds.json:
#   --build-arg TORCH_BUILD=armv8.0       every Raspberry Pi
#   --build-arg TORCH_BUILD=jetpack-7     a Jetson with JetPack 7
#   --build-arg TORCH_BUILD=jetpack-6.1 --build-arg BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
#                                         a Jetson with JetPack 6.1 or 6.2: CUDA, cuDNN and Python 3.10 are NVIDIA's
# The state folder is the volume, the text is mounted at /data; docs/guide/containers.md has the commands.
ARG BASE=python:3.12-slim
# hadolint ignore=DL3006  # the base is an argument, tagged
FROM ${BASE} AS build
ARG TORCH_BUILD=
# Ubuntu's Python, as NVIDIA's images have it, cannot make virtual environments by itself.
# hadolint ignore=DL3008  # the image's own release says which version
RUN python3 -c 'import ensurepip, venv' 2>/dev/null || \
    { apt-get update && apt-get install --yes --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*; }
COPY . /src
RUN /src/deploy/install-board.sh --no-service --no-doctor ${TORCH_BUILD:+--build "${TORCH_BUILD}"}

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=build /opt/braid /opt/braid
# The numbers are fixed: a folder of the host that is mounted in the volume's place is given to them. A Jetson's GPU
# belongs to the group video.
RUN groupadd --gid 8471 braid && \
    useradd --uid 8471 --gid braid --groups video --no-create-home --home-dir /var/lib/braid --shell /usr/sbin/nologin braid && \
    install -d -o braid -g braid -m 700 /var/lib/braid
# glibc's arenas would add tens of megabytes to a process that waits.
ENV PATH=/opt/braid/venv/bin:$PATH \
    BRAID_STATE=/var/lib/braid \
    BRAID_DATA=/data \
    HF_HOME=/var/lib/braid/huggingface \
    MALLOC_ARENA_MAX=2 \
    PYTHONUNBUFFERED=1
USER 8471:8471
VOLUME /var/lib/braid
# A board whose server is away is not healthy, and goes on by itself; docker knows the statuses 0 and 1 alone.
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s \
    CMD ["sh", "-c", "edge-client status --check || exit 1"]
ENTRYPOINT ["edge-client"]
CMD ["join", "--wait"]
