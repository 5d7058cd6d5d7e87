# Everything a developer does here. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

ARGS      ?=
TESTFLAGS ?=
BENCH     ?= .
FUZZTIME  ?= 10s
SEED      ?= 1
LENGTH    ?= 1m

.PHONY: help run check test lint work fuzz bench bench-quick microbench chaos abuse cover deps needs

help: ## list what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## serve https://localhost:8443 (ARGS='-addr :9000' for flags)
	go run ./cmd/chatd $(ARGS)

check: ## format, vet, staticcheck and the tests that need only Go: under a minute, installs nothing
	@scripts/check

test: needs ## run every module's tests with -race, two modules at a time, having installed what they need (TESTFLAGS)
	@CI=true scripts/each -j 2 go test -race -timeout 20m $(TESTFLAGS) ./...

lint: ## check format, vet, staticcheck, errcheck, bodyclose, go.mod and the list of dependencies
	@scripts/lint

work: ## write a go.work with every module, which git ignores
	@scripts/work

fuzz: ## run each fuzz target for FUZZTIME=10s
	@scripts/each fuzz $(FUZZTIME)

bench: ## measure the server and its peers, about an hour (ARGS='-rows fanout -runs 5')
	@cd test/bench && go run ./cmd/bench -out ../../docs/bench $(ARGS)

bench-quick: ## measure the two main rows of make bench, in under a minute
	@cd test/bench && go run ./cmd/bench -quick $(ARGS)

microbench: ## run the benchmarks of single functions (BENCH=regexp)
	@scripts/each go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

chaos: needs ## break a cluster of real processes under traffic; at even seeds backends lose data (SEED=1 LENGTH=1m ARGS='-history redis')
	@cd test/chaos && go run ./cmd/chaos -seed $(SEED) -length $(LENGTH) $(ARGS)

abuse: ## attack a chatd on loopback and print what others experience (ARGS='-attack login -for 5s')
	@go run ./test/abuse $(ARGS)

cover: needs ## show how much of each package the tests reach, and of all packages
	@scripts/cover

deps: ## write the root module's dependencies to deps.txt, which make lint compares
	@scripts/deps > deps.txt

needs: ## install what the tests need beside Go, where it is missing
	@scripts/needs
