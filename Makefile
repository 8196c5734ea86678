# Needs python 3.11 or newer and make; everything else goes into .venv, at the versions of constraints.txt.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
# one process a core, of one thread each, but no more than memory has room for
PARALLEL := -n logical --maxprocesses 4 --dist worksteal

.PHONY: help docs demo mutate slowest test test-long test-oldest coverage lint bench calibration clean

demo: $(READY)  ## the Gaussian Test of digits and of Fashion-MNIST, and of the networks trained on them: archives, figures, reports in results/
	@mkdir -p results
	$(BIN)/gaussian-test run -o results/digits.nc --overwrite --plot results \
		--set 'scores=[{kind: empirical}, {kind: network}, {kind: gaussian}]'
	$(BIN)/gaussian-test report results/digits.nc -o results/digits.html
	$(BIN)/gaussian-test run -o results/fashion.nc --overwrite --plot results/fashion --set data.source=fashion --set samples=48 \
		--set 'scores=[{kind: empirical}, {kind: network}, {kind: gaussian}]' --set turn_times.count=12 \
		--set 'reverse={kind: heun, steps: 18}' --set 'observables=[quality]'
	$(BIN)/gaussian-test report results/fashion.nc -o results/fashion.html

help:  ## what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

test: $(READY)  ## all tests and doctests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL)

slowest: $(READY)  ## all tests, and which twenty took longest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) --durations=20

test-long: $(READY)  ## the long versions of the tests of faults and fuzz: more kills, more cases (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --long tests/faults tests/fuzz

test-oldest: .venv-oldest/ready  ## the tests with the oldest dependencies that setup.cfg allows, on python 3.11 (torch: the pinned one)
	@# what numpy 2.0 says of libraries built for a later one is silenced by numpy itself, which pytest undoes
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q $(PARALLEL) -W 'ignore:numpy.ndarray size changed' \
		--ignore=tests/benchmarks --ignore=tests/docs --ignore=tests/packaging

coverage: $(READY)  ## all tests, and which lines they reach (slower)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) --cov

mutate: $(READY)  ## break the product in 36 places, one at a time, and count the breaks that the tests catch (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutate.py

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p gaussian_test

docs: $(READY)  ## the documentation, docs/_build/html: pages with code are executed, warnings are errors, examples of docstrings run
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) gaussian_test
	@echo "documentation: docs/_build/html/index.html"

bench: $(READY)  ## speed against named peers, as ratios, beside the limit of the machine: docs/benchmarks.md (an hour on two cores)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python benchmarks/run.py  # which would slow numpy's products
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/answer.py
	$(BIN)/python benchmarks/profile_run.py
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/memory.py

calibration: $(READY)  ## do the statistics hold: coverage, false positives, power (docs/calibration.md; a quarter of an hour on two cores)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/calibration.py

clean:  ## remove .venv and everything that was made
	rm -rf .venv .venv-oldest results build dist docs/_build *.egg-info

$(READY): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: python 3.11 or newer was not found: install it or say make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@# azula asks for torchvision, which only one of its plugins uses and which must match torch to the letter
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps azula
	@touch $@

.venv-oldest/ready: setup.cfg pyproject.toml constraints-oldest.txt
	@test -x .venv-oldest/bin/python || python3.11 -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q -c constraints-oldest.txt -e '.[test]'
	.venv-oldest/bin/python -m pip install -q -c constraints-oldest.txt --no-deps azula
	@touch $@
