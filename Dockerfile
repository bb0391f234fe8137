# A static binary in an empty image, by `make image`.
#
# The binaries come from the stage `binary`, or from a folder that was built outside
# (`tools/image build`), which a context of the same name puts in the stage's place, so that no
# base image is needed: `--build-context binary=FOLDER`.
#
# No root certificates: the sidecar speaks TLS to the API server alone, whose authority comes with
# the pod's service account, and roots that nobody updates are a finding. Only `ebbtide rehearse`
# of an https URL wants some: mount them, and let SSL_CERT_FILE name the file.
#
# The SBOM is in the image (/sbom.cdx.json), because scanners cannot look into a static binary,
# and so that it goes wherever the image goes.

FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-slim-bookworm AS builder
RUN apt-get update && apt-get install -y --no-install-recommends \
      gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-x86-64-linux-gnu libc6-dev-amd64-cross \
 && cargo install --locked cargo-cyclonedx@0.5.9
WORKDIR /ebbtide
COPY . .
# Cross-compiled, never emulated.
ARG TARGETARCH
RUN tools/image build /out "$TARGETARCH"

FROM scratch AS binary
COPY --from=builder /out /

FROM scratch
ARG TARGETARCH
COPY --from=binary /${TARGETARCH}/ /
USER 65532:65532
EXPOSE 7070 7071
ENTRYPOINT ["/ebbtide"]
CMD ["run"]
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="ebbtide" \
      org.opencontainers.image.description="A sidecar reverse proxy that lets any MCP server pod be rolled without a client noticing" \
      org.opencontainers.image.source="https://github.com/ebbtide/ebbtide" \
      org.opencontainers.image.documentation="https://github.com/ebbtide/ebbtide/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
