# The images with a container engine, one target each, for linux/amd64 and linux/arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target init    -t shunt-init:v0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target init-nftables -t shunt-init-nftables:v0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target node    -t shunt-node:v0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target webhook -t shunt-webhook:v0.1.0 .
# Releases are built by hack/images.sh, without an engine: the same programs, and of Debian only what they need.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=linux GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/shunt-init ./cmd/shunt-node ./cmd/shunt-webhook

# The init container programs netfilter with iptables, nft or legacy as the node has it. It runs as root: the capabilities
# that a pod adds are not ambient, so another uid would not have them.
FROM debian:bookworm-slim AS init
RUN apt-get update && apt-get install -y --no-install-recommends iptables && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/shunt-init /usr/local/bin/shunt-init
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["/usr/local/bin/shunt-init"]

# The init container for the backend nftables needs no program beside it.
FROM scratch AS init-nftables
COPY --from=build /out/shunt-init /usr/local/bin/shunt-init
USER 0:0
ENTRYPOINT ["/usr/local/bin/shunt-init"]

# The node's agent is one static program, which writes nf_tables itself. It runs as root for its capabilities, as the init
# container does.
FROM scratch AS node
COPY --from=build /out/shunt-node /shunt-node
USER 0:0
EXPOSE 8081 8080
ENTRYPOINT ["/shunt-node"]

# The webhook is one static program. It talks to the API server only, whose CA is mounted into the pod.
FROM scratch AS webhook
COPY --from=build /out/shunt-webhook /shunt-webhook
USER 65532:65532
EXPOSE 9443 8081 8080
ENTRYPOINT ["/shunt-webhook"]
