.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/.ready: requirements.txt operator/pyproject.toml producer_sdk/pyproject.toml aggregator/pyproject.toml \
    producer_sdk/setup.py $(wildcard producer_sdk/c/*)
	@command -v python3 >/dev/null || { echo "python3 (3.11 or newer) is missing: install it from your distribution"; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is $$(python3 -V), 3.11 or newer is needed"; exit 1; }
	@echo "installing the Python packages into .venv (two minutes or so)"
	@test -x $(PY) || python3 -m venv .venv
	@set -o pipefail; $(PY) -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements.txt \
	    | awk -v all=$$(grep -c '^[a-zA-Z].*==' requirements.txt) \
	        '/^Collecting/ && ++n % 10 == 0 {print "  downloading: " n " of " all} /^Installing/ {print "  installing what was downloaded"} {fflush()}'
	@echo "  building hotkey's own packages"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    -e producer_sdk -e operator -e aggregator
	@touch $@

.PHONY: venv
venv: .venv/.ready ## install the Python packages into .venv

.PHONY: demo
demo: venv ## the whole story on local processes (TRACE=file.csv SPEED=n replays a stream, KEEP=1 leaves it up)
	@$(PY) -m examples.demo $(if $(TRACE),--trace "$(TRACE)") $(if $(SPEED),--speed $(SPEED)) $(if $(KEEP),--keep)

.PHONY: demo-picture
demo-picture: venv ## run the demo and save its picture as docs/img/demo.svg
	@$(PY) -m examples.demo --picture docs/img/demo.svg

.PHONY: up
up: venv ## start Kafka, the Kubernetes API and Valkey as local processes (ARGS="--brokers 3")
	@$(PY) -m devstack up $(ARGS)

.PHONY: down
down: venv ## stop them, and what a demo with KEEP=1 left up
	@$(PY) -m devstack down
	@if test -d .demo; then $(PY) -m devstack --root .demo down; fi

.PHONY: status
status: venv ## what of the stack is running
	@$(PY) -m devstack status

.PHONY: lint
lint: venv ## ruff, mypy --strict, import-linter
	@$(PY) -m tests.run lint

.PHONY: format
format: venv ## format the code and fix what ruff can fix
	@.venv/bin/ruff check --fix --quiet .
	@.venv/bin/ruff format --quiet .

.PHONY: test
test: venv ## lint and every test but the slow ones, part by part with times (PARTS="unit stack": only these)
	@$(PY) -m tests.run $(PARTS)

.PHONY: test-all
test-all: venv ## the same with the slow tests
	@$(PY) -m tests.run --all $(PARTS)

.PHONY: simulate
simulate: venv ## run seeds in virtual time (SEEDS=n FROM=k JOBS=processes)
	@nice $(PY) -m tests.simulation --seeds $(or $(SEEDS),100) --from $(or $(FROM),0) $(if $(JOBS),--jobs $(JOBS))

.PHONY: mutants
mutants: venv ## break each invariant in turn and see it found (MUTANTS="NAME ..." SEEDS=n JOBS=n; DOCS=1 writes docs/invariants.md)
	@nice $(PY) -m tests.simulation.mutants $(MUTANTS) --seeds $(or $(SEEDS),2000) --jobs $(or $(JOBS),2) $(if $(DOCS),--docs)

.PHONY: soak
soak: venv ## half an hour of real processes that are killed under load (SECONDS=n SEED=k RATE=records/s)
	@$(PY) -m tests.soak $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE))

.PHONY: fuzz
fuzz: venv ## throw 100,000 nearly right inputs at every decoder (INPUTS=n SEED=k DECODERS="table event": only these)
	@$(PY) -m tests.fuzz --inputs $(or $(INPUTS),100000) --seed $(or $(SEED),1) $(DECODERS)

.PHONY: bench
bench: venv bench-venv ## measure all that is promised, beside its alternatives; writes bench/out (PARTS="onset overhead": only these)
	@$(PY) -m bench $(PARTS)

bench/.venv/.ready: bench/requirements.txt
	@echo "installing the peers of the benchmarks into bench/.venv"
	@test -x bench/.venv/bin/python || python3 -m venv bench/.venv
	@bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.PHONY: bench-venv
bench-venv: bench/.venv/.ready ## install what is measured beside hotkey, apart from it, into bench/.venv

.PHONY: bench-docs
bench-docs: venv ## copy the report of bench/out to docs/benchmarks.md
	@$(PY) -m bench --docs

.PHONY: generate
generate: venv ## copy the custom resources into the chart and docs/policy-reference.md, draw the dashboard
	@$(PY) -m crds.generate
	@$(PY) -m observability.dashboard

.PHONY: kind
kind: ## build the image and install on a kind cluster (needs Docker)
	@bash examples/kind/up.sh

.PHONY: lock
lock: venv ## compile requirements.in into requirements.txt
	@$(PY) -m pip install --quiet uv
	@.venv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	    --custom-compile-command "make lock" --no-annotate requirements.in -o requirements.txt
	@.venv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	    --custom-compile-command "make lock" --no-annotate bench/requirements.in -o bench/requirements.txt

.PHONY: clean
clean: ## stop the stack, remove .venv, .devstack and what the checkers cached
	@for root in .devstack .demo; do if test -x $(PY) && test -d $$root; then $(PY) -m devstack --root $$root down; fi; done
	@rm -rf .venv bench/.venv .devstack .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/out
