# Shunt's targets. CI runs the same ones (.ci/run). Bare `make` lists them.
# Nothing but Go, bash and make is expected: a target installs or builds what else it needs, and says so.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# The version that the binaries print.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The tag of the images.
TAG ?= dev
# Nothing needs cgo, and what is compiled without it serves all targets.
export CGO_ENABLED := 0
# THOROUGH=true has the suites do all that they can: hack/suites.sh says what that is. test-all sets it.
THOROUGH ?= false
export THOROUGH
# How long each fuzz target runs, which benchmarks run, and how many rounds those of test/bench take.
FUZZTIME ?= 20s
BENCH ?= .
ROUNDS ?= 20

BINARIES := shunt shunt-init shunt-node shunt-webhook
# -buildvcs=false: go asks git about the tree otherwise, and fails where git does not trust it; VERSION says it already.
GO_BUILD = go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

##@ Start here

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Send real connections through injected pods, without a cluster (root; under 30 s once things are built).
	@hack/demo.sh

.PHONY: test
test: ## Run the tests that a change needs: unit, rules, proxy, envtest, chart (root; 8 minutes at most on two cores).
	@hack/suites.sh unit rules proxy envtest chart $(MORE_SUITES)

.PHONY: test-all
test-all: THOROUGH := true
test-all: MORE_SUITES := traffic load images picture e2e
test-all: test ## Run every suite, as CI does: the same ones, thorough, and traffic, load, images, e2e (a quarter of an hour).

.PHONY: build
build: ## Build bin/shunt, bin/shunt-init, bin/shunt-node and bin/shunt-webhook; bin/kubectl-shunt is bin/shunt, as kubectl finds it.
	@mkdir -p bin
	@hack/engine.sh
	$(GO_BUILD) -o bin/ $(BINARIES:%=./cmd/%)
	ln -f bin/shunt bin/kubectl-shunt || cp bin/shunt bin/kubectl-shunt

.PHONY: images
images: ## Build both images for amd64 and arm64 into bin/images, without a container engine; TAG is theirs.
	@VERSION='$(VERSION)' hack/images.sh --arch amd64,arm64 --tag '$(TAG)' bin/images

.PHONY: release
release: ## Make all that a release consists of into bin/release/VERSION, which is a tag such as v0.1.0; REPOSITORY is the images'.
	@REPOSITORY='$(REPOSITORY)' hack/release.sh '$(VERSION)' 'bin/release/$(VERSION)'

##@ One suite at a time

.PHONY: test-unit
test-unit: ## Run the unit tests; THOROUGH=true runs them with the race detector.
	@hack/suites.sh unit

.PHONY: test-rules
test-rules: ## Run the rule cases in real network namespaces, on iptables-nft and iptables-legacy (root).
	@hack/suites.sh rules

.PHONY: test-random
test-random: ## Hold walks to the kernel, and proofs to walks, by tens of thousands of random packets (root, minutes).
	LONG=true go test -v -count=1 -timeout 1h -run '^(TestAgreement|TestKernelRandom|TestClassesOfRandomRules|TestMutants)$$' \
		./initimage/ruleset ./initimage/prove ./test/rules

.PHONY: test-proxy
test-proxy: ## Send real traffic through real proxies, Envoy and HAProxy, in network namespaces (root).
	@hack/suites.sh proxy

.PHONY: test-traffic
test-traffic: ## Compare what Debian's clients and servers see directly and through Envoy, in network namespaces (root).
	@hack/suites.sh traffic

.PHONY: test-envtest
test-envtest: ## Run the webhook behind a real kube-apiserver and etcd.
	@hack/suites.sh envtest

.PHONY: test-load
test-load: ## Keep 2,000 reviews in flight at the webhook's server.
	@hack/suites.sh load

.PHONY: test-chart
test-chart: ## Hold the Helm chart to the manifests in config.
	@hack/suites.sh chart

.PHONY: test-picture
test-picture: ## Open the page of shunt trace -o html in a headless Chromium, and hold it to the command line (root, to install that).
	@hack/suites.sh picture

.PHONY: test-images
test-images: ## Make a release and hold all that is in it to its word; run the init image in network namespaces (root).
	@hack/suites.sh images

.PHONY: test-e2e
test-e2e: ## Install Shunt with cert-manager on a Kubernetes node made here: both modes, probes, rotation (root, minutes).
	@hack/suites.sh e2e

.PHONY: e2e
e2e: ## The same, and workloads, failures, upgrade, scale; in the cluster of KUBECONFIG where that is set.
	@hack/e2e.sh

##@ Before a change is sent

.PHONY: verify
verify: ## Check formatting, linters, imports, modules, generated files, scripts and races; change nothing.
	@hack/verify.sh

.PHONY: lint
lint: ## Run golangci-lint alone; LINT_ARGS=--fix mends what it can.
	@"$$(hack/tool.sh golangci-lint)" run $(LINT_ARGS) ./...

.PHONY: fmt
fmt: ## Format the Go files in place.
	@"$$(hack/tool.sh golangci-lint)" fmt ./...

.PHONY: generate
generate: ## Write the generated files anew.
	go generate ./...

.PHONY: picture
picture: ## Take the README's pictures of the page of shunt trace -o html anew (root, to install a browser).
	@hack/picture.sh

.PHONY: bench
bench: ## Run the benchmarks, 6 minutes, and write their tables into docs; BENCH is a pattern (root, two CPUs).
	@((EUID)) || hack/deps.sh iptables-nft iptables-legacy haproxy wrk
	go test -run='^$$' -bench='$(BENCH)' -benchmem $$(go list ./... | grep -v /test/)
	PATH=$$PATH:/usr/local/sbin:/usr/sbin:/sbin ENVOY=$$(hack/envoy.sh) SHUNT_BENCH_DOCS='$(CURDIR)/docs' \
		go test -run='^$$' -bench='$(BENCH)' -benchtime=$(ROUNDS)x -timeout=30m ./test/bench

.PHONY: fuzz
fuzz: ## Fuzz each fuzz target for FUZZTIME.
	@hack/fuzz.sh $(FUZZTIME)

.PHONY: cross
cross: ## Build all binaries for linux/amd64 and arm64, and shunt for macOS and Windows, into bin/<os>-<arch>/.
	@hack/engine.sh
	@for platform in linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64; do \
		packages=./cmd/shunt; \
		[[ $$platform != linux-* ]] || packages='$(BINARIES:%=./cmd/%)'; \
		echo "cross: $$platform: $$packages"; \
		mkdir -p "bin/$$platform"; \
		GOOS=$${platform%-*} GOARCH=$${platform#*-} $(GO_BUILD) -o "bin/$$platform/" $$packages; \
		for program in "bin/$$platform"/shunt{,.exe}; do \
			plugin=$${program%/*}/kubectl-$${program##*/}; \
			[[ ! -e $$program ]] || ln -f "$$program" "$$plugin" || cp "$$program" "$$plugin"; \
		done; \
	done

##@ Tools and leftovers

.PHONY: install-tools
install-tools: ## Make ready what the other targets need: packages, golangci-lint, Envoy, kube-apiserver and etcd.
	@hack/deps.sh ip nft sysctl iptables-nft iptables-legacy haproxy gcc shellcheck dpkg-deb chromium-headless-shell
	@hack/tool.sh golangci-lint
	@hack/tool.sh actionlint
	@hack/tool.sh h2spec
	@hack/envoy.sh
	@hack/mitmproxy.sh
	@hack/axe.sh
	@hack/envtest.sh
	@hack/node-binaries.sh
	@hack/certmanager.sh

.PHONY: clean
clean: ## Remove bin/. The cache of tools and test binaries, ~/.cache/shunt, stays.
	rm -rf bin
