# One target per image, for linux/amd64 and linux/arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target init    -t shunt-init:v0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v0.1.0 --target webhook -t shunt-webhook:v0.1.0 .
# What is in them is what hack/images.sh puts together, which needs no engine; docs/images.md has the list.

# On the builder's own architecture, and for the image's: nothing of the image is run to build it.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS images
WORKDIR /src
ENV GOTOOLCHAIN=local
COPY go.mod go.sum ./
COPY hack/images/go.mod hack/images/go.sum hack/images/
RUN --mount=type=cache,target=/go/pkg/mod go mod download && cd hack/images && go mod download
COPY . .
ARG TARGETARCH VERSION=dev SOURCE_DATE_EPOCH=0
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache \
    hack/images.sh --arch "$TARGETARCH" --folders /out

# The init container programs netfilter with iptables, nft or legacy as the node has it. It runs as root: the capabilities
# that a pod adds are not ambient, so another uid would not have them.
FROM scratch AS init
ARG TARGETARCH
COPY --from=images /out/shunt-init-$TARGETARCH/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["/usr/local/bin/shunt-init"]

# The webhook is one static program. It talks to the API server only, whose CA is mounted into the pod.
FROM scratch AS webhook
ARG TARGETARCH
COPY --from=images /out/shunt-webhook-$TARGETARCH/ /
USER 65532:65532
EXPOSE 9443 8081 8080
ENTRYPOINT ["/shunt-webhook"]
