# golden-sidecar: one binary on a small Debian, as a user without rights.
#   docker build -t golden-sidecar .
#   docker run --network container:my-service golden-sidecar --upstream http://127.0.0.1:8080

# --- Build: the toolchain that Cargo.toml names as rust-version; the same Debian as below, so that glibc fits.
FROM rust:1.95-slim-bookworm AS build
# The allocator is C.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# docker build --build-arg BUILD_REVISION=$(git rev-parse --short=12 HEAD) …
ARG BUILD_REVISION=unknown
ENV BUILD_REVISION=$BUILD_REVISION
# Dependencies alone first: this layer stays until Cargo.lock changes.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -rf src
COPY src ./src
# Newer than the stand-ins of the step above, or cargo would keep those.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked \
    && strip target/release/golden-sidecar

# --- Run: glibc and nothing else of ours. No certificates, no shell needed; health is asked by the binary itself.
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="golden-sidecar" \
      org.opencontainers.image.description="A reverse proxy beside any HTTP service that measures the four golden signals per route" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /usr/share/doc/golden-sidecar/LICENSE
COPY --from=build /build/target/release/golden-sidecar /usr/local/bin/golden-sidecar
# A number, so that Kubernetes can see that it is not root (runAsNonRoot) without reading /etc/passwd. 65532: the
# customary "nonroot" of minimal images.
USER 65532:65532
# 8000 traffic, 9900 metrics and health; both above 1024, so no capability is needed.
EXPOSE 8000 9900
# SIGTERM is the orderly end: not ready, grace, drain.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["golden-sidecar", "healthcheck"]
ENTRYPOINT ["golden-sidecar"]
