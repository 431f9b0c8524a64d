# make demo   set everything up and run the miniature sweep to a report
# make test   set everything up and run the whole test suite
# make test-exports   what `sweeper export` writes, read by the trainers themselves, each in its own environment
# make bench  every target of speed beside its measurement, a rival included (nine minutes)
# make check  ruff, ruff format, mypy --strict, bandit
# make audit  the pinned packages against the published vulnerabilities; needs pypi.org or api.osv.dev

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
EXPORTS := .venv-exports

.PHONY: demo test test-exports bench check audit format clean

demo: $(READY)
	$(BIN)/sweeper run miniature --out reports/miniature
	$(BIN)/sweeper front reports/miniature
	$(BIN)/sweeper recommend reports/miniature
	$(BIN)/sweeper report reports/miniature

test: $(READY)
	$(BIN)/python -m pytest

test-exports: $(READY) $(EXPORTS)/.ready
	rm -rf $(EXPORTS)/cases
	$(BIN)/python tests/exports/cases.py $(EXPORTS)/cases
	set -e; for target in axolotl llamafactory torchtune; do \
		HF_HUB_OFFLINE=1 $(EXPORTS)/$$target/bin/python tests/exports/check_$$target.py $(EXPORTS)/cases; done

bench: $(READY)
	$(BIN)/python benchmarks/table.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -r sweeper -c pyproject.toml

audit: $(READY)
	$(BIN)/python tests/audit.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv $(EXPORTS) reports/miniature

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(READY)

$(EXPORTS)/.ready: $(READY) tests/exports/install.sh $(wildcard tests/exports/*.txt)
	tests/exports/install.sh $(abspath $(EXPORTS)) $(abspath .venv)
	touch $@
