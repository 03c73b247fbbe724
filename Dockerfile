# The image of pillion. `make image` builds it, with docker, podman or buildah.
#
# Base images and the source of Go modules can be replaced by mirrors of one's own:
#   docker build --build-arg GO_IMAGE=... --build-arg BASE_IMAGE=... --build-arg GOPROXY=... .
ARG GO_IMAGE=docker.io/library/golang:1.26-bookworm
ARG BASE_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${GO_IMAGE} AS build
ARG GOPROXY
WORKDIR /src
# Modules first: layers that only a change of go.mod makes anew.
COPY go.mod go.sum ./
RUN go mod download
COPY tools/sbom/ tools/sbom/
RUN cd tools/sbom && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o /out/cyclonedx-gomod github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/pillion ./cmd/pillion
# The bill of materials, read from the program itself; without a serial number and
# the time, so that equal programs have equal ones.
RUN /out/cyclonedx-gomod bin -json -noserial -notimestamp -std -version ${VERSION} -output /out/pillion.cdx.json /out/pillion
# Distroless has no mkdir: folders that the final image takes over, and new volumes
# with their owner.
RUN mkdir -m 700 /out/state && mkdir /out/public

FROM ${BASE_IMAGE}
COPY --from=build /out/pillion /usr/local/bin/pillion
COPY --from=build /out/pillion.cdx.json /usr/share/sbom/pillion.cdx.json
COPY --from=build /src/LICENSE /usr/share/doc/pillion/LICENSE
COPY --from=build --chown=65532:65532 /out/state /var/lib/pillion
COPY --from=build --chown=65532:65532 /out/public /run/pillion/public
ENV PILLION_STATE=/var/lib/pillion
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pillion"]
CMD ["run"]
ARG BASE_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="pillion" \
      org.opencontainers.image.description="A sidecar that puts the right authorization on a connector's requests" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
