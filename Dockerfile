# Two images: `muelle` (the default; every role) and `slim` (serves ONNX bundles, has no scikit-learn). `make image`
# builds both. What changes least comes first: an edit of code installs no package anew.
ARG PYTHON_IMAGE=python:3.13-slim

# ---- packages: from wheels only, so that no compiler is needed; each file checked against the lock's hashes

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Without pip in it: the base image's own pip installs into it from outside, and nothing is left to remove.
RUN python3 -m venv --without-pip /opt/muelle/venv
WORKDIR /src

FROM build AS locked-all
COPY requirements/all.txt requirements/
RUN python3 -m pip --python /opt/muelle/venv install --quiet --no-compile --only-binary :all: \
    --require-hashes -r requirements/all.txt

FROM build AS locked-serve
COPY requirements/serve.txt requirements/
RUN python3 -m pip --python /opt/muelle/venv install --quiet --no-compile --only-binary :all: \
    --require-hashes -r requirements/serve.txt

# ---- the same without what never runs, and with bytecode: the file system is read-only at run time
# Tests and C headers; Arrow's RPC (no other part of it links that); Kubernetes' second, asynchronous client; setuptools.
# Bytecode is not compared with its source again, as neither changes any more. Licences stay.

FROM locked-all AS packages-all
RUN cd /opt/muelle/venv/lib/python3*/site-packages \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && rm -rf onnx/backend/test pyarrow/include pyarrow/src pyarrow/*flight* kubernetes/aio \
    && rm -rf setuptools setuptools-*.dist-info _distutils_hack distutils-precedence.pth \
    && /opt/muelle/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .

FROM locked-serve AS packages-serve
RUN cd /opt/muelle/venv/lib/python3*/site-packages \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && /opt/muelle/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .

# ---- code: laid over the packages by both images

FROM locked-all AS code
COPY pyproject.toml README.md LICENSE ./
COPY training training
COPY muelle muelle
COPY service service
RUN python3 -m pip --python /opt/muelle/venv install --quiet --no-deps --no-build-isolation --prefix /code . \
    && /opt/muelle/venv/bin/python -m compileall -q -f --invalidation-mode checked-hash /code/lib

# ---- demo models: what the image serves when it is given nothing

FROM packages-all AS demo
COPY --from=code /code /opt/muelle/venv
RUN /opt/muelle/venv/bin/muelle train all --repository /opt/muelle/demo \
    && echo iris > /opt/muelle/demo/default-model

# ---- what both images are at run time

FROM ${PYTHON_IMAGE} AS runtime
# Nothing is installed at run time. And some base images come without the standard library's bytecode, which would be
# made anew at each start.
RUN rm -rf "$(python3 -c 'import pip; print(*pip.__path__)')"* "$(dirname "$(command -v pip3)")"/pip* \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
    -x '/(site-packages|dist-packages|test|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
ENV PATH=/opt/muelle/venv/bin:$PATH \
    # Whatever uid the platform chooses has no home of its own.
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    MUELLE_MODELS=/models:/opt/muelle/demo
# A number, so that Kubernetes can see that it isn't root; any other will do as well.
USER 65532:65532
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["muelle"]
CMD ["serve"]

FROM runtime AS slim
COPY --from=packages-serve /opt/muelle/venv /opt/muelle/venv
COPY --from=demo /opt/muelle/demo /opt/muelle/demo
COPY --from=code /code /opt/muelle/venv
ARG PYTHON_IMAGE VERSION=unknown REVISION=unknown
LABEL org.opencontainers.image.title="muelle" \
    org.opencontainers.image.description="Serves ONNX bundles of scikit-learn-class models" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

FROM runtime AS muelle
COPY --from=packages-all /opt/muelle/venv /opt/muelle/venv
COPY --from=demo /opt/muelle/demo /opt/muelle/demo
COPY --from=code /code /opt/muelle/venv
ARG PYTHON_IMAGE VERSION=unknown REVISION=unknown
LABEL org.opencontainers.image.title="muelle" \
    org.opencontainers.image.description="Trains, bundles and serves scikit-learn-class models" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
