# Both base images can be replaced by a mirror of one's own:
#   docker build --build-arg GO_IMAGE=... --build-arg BASE_IMAGE=... .
ARG GO_IMAGE=docker.io/library/golang:1.26-bookworm
ARG BASE_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${GO_IMAGE} AS build
WORKDIR /src
# Modules first: a layer that only a change of go.mod makes anew.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/pillion ./cmd/pillion
# Distroless has no mkdir: an empty folder that the final image takes over.
RUN mkdir -p /out/state

FROM ${BASE_IMAGE}
COPY --from=build /out/pillion /usr/local/bin/pillion
COPY --from=build --chown=65532:65532 /out/state /var/lib/pillion
ENV PILLION_STATE=/var/lib/pillion
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pillion"]
CMD ["run"]
