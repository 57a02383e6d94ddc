# The tasks of this repository. `make` lists them.
GO         ?= go
FUZZTIME   ?= 10s
TIMEOUT    ?= 30m
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
VENV       := $(CURDIR)/.venv
STATICCHECK = $(GO) tool -modfile=tools.mod staticcheck

# Real clients are found beside the tests' own virtual environment.
export CHANTAL_VENV = $(VENV)

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help build run test race faults fuzz e2e fire kill lint check bench cover package deps fmt

help: ## list these targets
	@awk -F':.*## ' '/^[a-z0-9]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/chantal, static
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/chantal ./cmd/chantal

run: build ## build and serve on the defaults (http://127.0.0.1:8180)
	bin/chantal serve

test: deps lint race faults fuzz ## everything: installs what tests need, lint, all tests, fuzzing

deps:
	packaging/test-deps.sh $(VENV)

race: ## all tests with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout $(TIMEOUT) ./...

faults: ## every fault of an upstream, in every situation (under race only one in four)
	$(GO) test -count=1 -timeout $(TIMEOUT) -run TestEveryFault ./proxy

fuzz: ## each fuzz target for FUZZTIME
	packaging/fuzz.sh $(FUZZTIME)

e2e: deps build ## only the tests with real apt, dnf, pip and uv
	$(GO) test -count=1 -timeout $(TIMEOUT) ./e2e/...

fire: deps ## real clients, hundreds of times, while upstream publishes (an hour)
	CHANTAL_FIRE=full CI=true $(GO) test -count=1 -timeout 90m -v -run WhileUpstreamPublishes ./e2e

kill: ## a thousand kill -9 under load (ten minutes)
	CHANTAL_FIRE=full $(GO) test -count=1 -timeout 60m -v -run TestKilledAtRandom ./e2e

fmt:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; fi

lint: fmt ## gofmt, go vet, staticcheck
	$(GO) vet ./...
	$(STATICCHECK) ./...

check: fmt ## under a minute, no network: gofmt, go vet, the layers, tests without clients
	$(GO) vet ./...
	$(GO) test -short -timeout 50s $$($(GO) list ./... | grep -v /e2e)

bench: build ## hot hits beside nginx, and full mirrors beside aptly, as ratios
	$(GO) run ./e2e/bench
	$(GO) run ./e2e/bench -sync 60000

cover: ## test coverage by package, and bin/cover.html
	@mkdir -p bin
	$(GO) test -timeout $(TIMEOUT) -coverprofile=bin/cover.out ./...
	$(GO) tool cover -html=bin/cover.out -o bin/cover.html

package: build ## dist/chantal-VERSION.tar.gz with the binary and the systemd unit
	@mkdir -p dist
	tar -czf dist/chantal-$(VERSION).tar.gz --owner=0 --group=0 LICENSE -C packaging chantal.service -C ../bin chantal
