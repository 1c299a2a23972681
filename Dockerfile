# syntax=docker/dockerfile:1
# The operator: one static binary in an empty image.
#
#   docker build -t registry.example.com/poolwright:0.1.0 .
#
# No container engine was at hand when this was written, so it has not been built
# as a whole. Checked, by tests/image.sh: hadolint finds nothing; buildah puts the
# last stage together; and a program that is built like this on Debian 12 runs where
# nothing is but that stage's files, as its user, and resolves names there. All of
# that on amd64. For arm64 it is written and linted, and untried:
#
#   docker buildx build --platform linux/arm64 -t registry.example.com/poolwright:0.1.0 .

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Static with glibc, so that what is shipped is compiled like what is tested.
# The target is named so that the flags do not reach procedural macros. What is
# moved at the start is written in short form: 0.8 MB less. Kernels for arm64 have
# pages of up to 64 KiB, which the allocator must know when it is built.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi && \
    target=$(rustc --print host-tuple) && \
    RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' \
    cargo build --profile image --locked --package poolwright --target "$target" && \
    mv "target/$target/image/poolwright" /poolwright
# What it is made of, as CycloneDX: for scanners, and for whoever asks.
RUN deploy/sbom.sh /poolwright.cdx.json

FROM scratch
LABEL org.opencontainers.image.title="poolwright" \
      org.opencontainers.image.description="Scales Celery workers by queue depth and busy slots, and says why" \
      org.opencontainers.image.licenses="Apache-2.0"
# Authorities, for brokers whose certificate the world vouches for.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /poolwright /poolwright
COPY --from=build /poolwright.cdx.json /poolwright.cdx.json
# By number, since there is no passwd; above 10000, where nodes have no users.
USER 65532:65532
ENTRYPOINT ["/poolwright"]
CMD ["run"]
