# Predawn. Each target sets up what it needs; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONSAFEPATH := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-properties test-real test-dashboards pictures-dashboards dashboards lint types fix bench-proxy bench-soak bench-kernels bench-gpu train-tiny eval-tiny eval-sleep eval-budget eval-verify bench-sampling fuzz-lanes attack-lanes test-page bench-page bench-instruments docs site build clean lock pin sbom audit test-deploy

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing predawn into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.kernels: $(VENV)/.core
	@echo "installing what the local engine needs …"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[kernels]'
	@touch $@

$(VENV)/.dev: $(VENV)/.kernels
	@echo "installing tools and test clients …"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --group test --editable '.[kernels,plot,litellm,jobs,postgres,redact,verify,constraints]'
	@touch $@

$(VENV)/.deploy: $(VENV)/.dev
	@echo "installing what checks deploy/ …"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group deploy
	@touch $@

demo: $(VENV)/.kernels ## start the proxy on the bundled model, ask it something, show what it cost
	@$(BIN)/predawn demo

test: $(VENV)/.dev ## run the tests
	@$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadfile

test-properties: $(VENV)/.dev ## what must hold for whatever input, tried with new inputs; `make test` takes the same ones each time
	@$(BIN)/pytest --hypothesis-profile=search --numprocesses auto --maxprocesses 8 --dist loadfile $$(grep -rl --include='test_*.py' hypothesis tests)

test-real: $(VENV)/.dev ## run the acceptance tests against a real model on this machine
	@$(BIN)/pytest -m real tests/real

test-dashboards: $(VENV)/.dev ## every panel against a real Prometheus, rules by promtool, JSON against Grafana's types (four minutes)
	@command -v prometheus promtool >/dev/null || { echo "needs prometheus and promtool on the PATH (Debian: apt-get install prometheus)"; exit 1; }
	@$(BIN)/pytest -m prometheus tests/grafana -rs

pictures-dashboards: $(VENV)/.dev ## draw docs/images/dashboards/*.png from a real Prometheus (six minutes)
	@command -v prometheus >/dev/null || { echo "needs prometheus on the PATH (Debian: apt-get install prometheus)"; exit 1; }
	@PYTHONPATH=.:.src $(BIN)/python -m tests.grafana.pictures

dashboards: $(VENV)/.dev ## write grafana/: dashboards, rules, provisioning
	@PYTHONPATH=. $(BIN)/python -m grafana.build

lint: $(VENV)/.dev ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy and pyright
	@$(BIN)/mypy
	@$(BIN)/pyright

fix: $(VENV)/.dev ## format and repair what ruff can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-proxy: $(VENV)/.dev ## measure the relay against its peers (installs them); writes results/bench-proxy.json
	@$(BIN)/python tests/benchmarks/proxy/run.py

bench-soak: $(VENV)/.dev ## ten minutes of faults and disconnects; writes results/bench-soak.json
	@$(BIN)/python tests/benchmarks/soak/run.py

fuzz-lanes: $(VENV)/.dev ## both lanes get the same random bytes, FUZZ_EXAMPLES times (20000: half an hour), and every combination of cases
	@PREDAWN_FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-20000} $(BIN)/pytest tests/lanes --timeout 7200 --numprocesses auto --dist loadfile

attack-lanes: $(VENV)/.dev ## floods, half-open requests, slow readers and a dying upstream against one server; prints what it did to the others
	@PYTHONPATH=.:.src $(BIN)/python -m tests.lanes.attack

bench-kernels: $(VENV)/.dev ## sharing on a CPU, the engine against transformers, lookup, roofline, event-loop lag; writes results/bench-kernels.json
	@$(BIN)/python tests/benchmarks/kernels/run.py

bench-gpu: $(VENV)/.dev ## the fused kernels on a GPU; says what it needs where there is none
	@$(BIN)/python tests/benchmarks/kernels/gpu.py

train-tiny: $(VENV)/.dev ## make the bundled model from a seed (50 minutes on one core); goes on where it stopped
	@$(BIN)/python -m predawn.kernels.tiny.train

eval-tiny: $(VENV)/.dev ## what the bundled model can do, against its bars; writes results/eval-tiny.json
	@$(BIN)/python tests/benchmarks/tiny/run.py

eval-sleep: $(VENV)/.dev ## what sleep is worth, against its bars; writes results/eval-sleep.json and a picture
	@$(BIN)/python tests/benchmarks/sleep/run.py

eval-budget: $(VENV)/.dev ## what spending by difficulty is worth, against its bars; writes results/eval-budget.json and a picture
	@$(BIN)/python tests/benchmarks/budget/run.py

bench-instruments: $(VENV)/.dev ## what metrics, traces and a scrape cost; writes results/bench-instruments.json and a picture
	@$(BIN)/python tests/benchmarks/instruments/run.py

test-page: $(VENV)/.dev ## the live page in a headless Chromium; says so where none is installed
	@$(BIN)/pytest -m browser tests/page

bench-page: $(VENV)/.dev ## what the live page costs the server, and how fast it is painted; writes results/bench-page.json
	@PYTHONPATH=. $(BIN)/python tests/benchmarks/page/run.py

bench-sampling: $(VENV)/.dev ## what drawing several answers costs beyond the upstream; writes results/bench-sampling.json
	@$(BIN)/python tests/benchmarks/sampling/overhead.py

eval-verify: $(VENV)/.dev ## what verification is worth and costs, against its bars; writes results/eval-verify.json and a picture
	@$(BIN)/python tests/benchmarks/verify/run.py

docs: $(VENV)/.dev ## write the generated parts of docs/
	@$(BIN)/python docs/generate.py

lock: $(VENV)/.deploy ## pin what the container installs, with hashes (UPGRADE=1: newest versions older than COOL_DOWN_DAYS)
	@deploy/lock.sh

pin: ## renew the digests of base images; needs skopeo or docker, and their registry
	@deploy/pin.sh

sbom: $(VENV)/.deploy ## CycloneDX bills of materials of the locks: dist/predawn-{server,gpu}.cdx.json
	@mkdir -p dist
	@for lock in server gpu; do \
	  $(BIN)/cyclonedx-py requirements deploy/locks/$$lock.txt --pyproject pyproject.toml --output-reproducible \
	    --output-file dist/predawn-$$lock.cdx.json 2>/dev/null && echo "dist/predawn-$$lock.cdx.json" || exit 1; \
	done

audit: $(VENV)/.deploy ## ask whether locked packages have known vulnerabilities; needs the vulnerability service
	@$(BIN)/python deploy/audit.py $(BIN)/pip-audit

test-deploy: $(VENV)/.deploy ## check deploy/ with Helm, compose, hadolint, promtool, systemd and bubblewrap; says what is missing
	@$(BIN)/pytest -m deploy tests/deploy -rs

$(VENV)/.docs: $(VENV)/.dev
	@echo "installing what builds the site …"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	@touch $@

site: $(VENV)/.docs ## the documentation as a site in site/, every link checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	@echo "site/index.html"

build: $(VENV)/.dev ## wheel and source archive in dist/
	@$(BIN)/python -m build --no-isolation

clean: ## remove the environment and caches
	@rm -rf $(VENV) .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
