# One target per image, for linux/amd64 and linux/arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target init    -t shunt-init:v0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target webhook -t shunt-webhook:v0.1.0 .

# Go compiles on the builder's own architecture and for the image's.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS source
WORKDIR /src
ENV CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-trimpath -buildvcs=false"
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .

FROM source AS build-init
ARG TARGETOS TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -ldflags "-s -w -X main.version=$VERSION" -o /out/shunt-init ./cmd/shunt-init

FROM source AS build-webhook
ARG TARGETOS TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -ldflags "-s -w -X main.version=$VERSION" -o /out/shunt-webhook ./cmd/shunt-webhook

# The init container programs netfilter with iptables, nft or legacy as the node has it: Debian's package holds both.
# It runs as root: the capabilities that a pod adds are not ambient, so another uid would not have them.
FROM debian:bookworm-slim AS init
# Not pinned: the point release of Debian's stable is what gets security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends iptables \
    && rm -rf /var/lib/apt/lists/* \
    && iptables-nft --version && iptables-legacy --version && ip6tables-nft --version && ip6tables-legacy --version
COPY --from=build-init /out/shunt-init /usr/local/bin/shunt-init
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["/usr/local/bin/shunt-init"]

# The webhook is one static program. It talks to the API server only, whose CA is mounted into the pod.
FROM scratch AS webhook
COPY --from=build-webhook /out/shunt-webhook /shunt-webhook
USER 65532:65532
EXPOSE 9443 8081 8080
ENTRYPOINT ["/shunt-webhook"]
