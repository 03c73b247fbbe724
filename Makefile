# pillion. `make help` lists the targets; what they do beyond one command stands in scripts/.
.DEFAULT_GOAL := help

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# How long `make fuzz` stays with each target.
FUZZTIME ?= 5m

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/pillion
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/pillion ./cmd/pillion

.PHONY: run
run: build ## start pillion and a demonstration origin on loopback
	@exec scripts/run-local.sh

.PHONY: vault
vault: ## start a real Vault on loopback, with policies, logins and an example credential
	@exec scripts/vault.sh

.PHONY: image
image: ## build the image, with docker, podman or buildah: pillion:VERSION, or IMAGE=NAME:TAG
	VERSION='$(VERSION)' scripts/image.sh

.PHONY: image-test
image-test: test-deps ## build the image twice, the second time from nothing, and run it, alone and in a pod
	PILLION_IMAGE_COLD=1 CI=true $(GO) test -count=1 -timeout 30m -v ./deploy/image/

.PHONY: test
test: test-deps ## run all tests (installs what they need)
	scripts/test.sh

.PHONY: test-deps
test-deps: ## install the Debian packages that the tests need
	scripts/deps.sh test

.PHONY: soak
soak: build ## run what takes long: gigabytes streamed, thousands of tunnels, writers killed, half an hour of mixed load
	PILLION_SOAK=1 $(GO) test -count=1 -timeout 2h -v -run 'Soak|Count|Contract|Killed|CacheSees|H2ManyStreams|H2Differential' ./...
	cd bench && $(GO) run . soak -pillion ../bin/pillion -out ../docs

.PHONY: fleet
fleet: test-deps ## 200 sidecars in 8 processes over a real Vault and a real OpenID provider; prints a table
	PILLION_FLEET=1 $(GO) test -count=1 -timeout 1h -v -run FleetTable ./creds/credstest/fleet/

.PHONY: e2e-kubernetes
e2e-kubernetes: ## what is shipped for clusters, before a real API server of Kubernetes
	scripts/deps.sh kubernetes
	PILLION_KUBERNETES=1 $(GO) test -count=1 -timeout 1h -v -run Kubernetes ./creds/credstest/ ./cmd/pillion/

.PHONY: pictures
pictures: test-deps ## each page in Chromium, wide and narrow, light and dark, with scripts and without: .test/screenshots
	PILLION_PICTURES=1 $(GO) test -count=1 -run InChromium ./creds/console/

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (default 5m)
	scripts/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: build ## measure pillion beside its peers; writes docs/performance.md
	scripts/deps.sh bench
	cd bench && $(GO) run . -pillion ../bin/pillion -out ../docs

.PHONY: scale
scale: ## simulate fleets of up to 10,000 sidecars; writes the table and the plot of docs/tokens.md
	PILLION_SCALE=$(CURDIR)/docs $(GO) test -count=1 -timeout 2h -v -run ScaleTable ./creds/token/

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, golangci-lint
	scripts/lint.sh

.PHONY: clean
clean: ## remove what the targets made (not the state of make run)
	rm -rf bin .test
