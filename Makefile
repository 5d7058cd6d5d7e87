# Everything a developer does here. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

ARGS      ?=
TESTFLAGS ?=
BENCH     ?= .
FUZZTIME  ?= 10s
SEED      ?= 1
LENGTH    ?= 1m

.PHONY: help run test lint fuzz bench bench-quick microbench chaos abuse cover deps needs

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## serve https://localhost:8443 (ARGS='-addr :9000' for flags)
	go run ./cmd/chatd $(ARGS)

test: needs ## run every module's tests with -race, two modules at a time, having installed what they need (TESTFLAGS)
	@CI=true scripts/each -j 2 go test -race -timeout 10m $(TESTFLAGS) ./...

lint: ## check format, vet, staticcheck, go.mod and the list of dependencies
	@scripts/lint

fuzz: ## run each fuzz target for FUZZTIME=10s
	@scripts/each fuzz $(FUZZTIME)

bench: ## measure the server beside its peers, an hour or so (ARGS='-rows fanout -runs 5')
	@cd test/bench && go run ./cmd/bench -out ../../docs/bench $(ARGS)

bench-quick: ## the two main rows of that, in under a minute
	@cd test/bench && go run ./cmd/bench -quick $(ARGS)

microbench: ## run the benchmarks of single functions (BENCH=regexp)
	@scripts/each go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

chaos: needs ## break a cluster of real processes under traffic; at even seeds data is lost (SEED=1 LENGTH=1m ARGS='-history redis')
	@cd test/chaos && go run ./cmd/chaos -seed $(SEED) -length $(LENGTH) $(ARGS)

abuse: ## attack a chatd on loopback and print what others experience (ARGS='-attack login -for 5s')
	@go run ./test/abuse $(ARGS)

cover: needs ## show how much of each package the tests reach, and of all
	@scripts/cover

deps: ## write down the root module's dependencies, which lint compares
	@scripts/deps > deps.txt

needs: ## install what the tests need beside Go, as far as it is missing
	@scripts/needs
