# Each target does all of its own set-up; see `make help`.
SHELL := /bin/bash
BIN := .venv/bin
DEMO := out/demo
BENCH := out/bench

# More threads than cores, or many for small volumes, only cost time.
export OMP_NUM_THREADS ?= 2

.PHONY: help setup demo test lint bench

help:
	@echo "make demo   generated sample -> a few painted slices -> train -> predict; leaves"
	@echo "            $(DEMO)/demo.png and prints the IoU. Then, if this is a terminal with a"
	@echo "            display, opens the window on the sample (never with CI set or"
	@echo "            DEMO_WINDOW=0; always with DEMO_WINDOW=1)"
	@echo "make test   lint, then the whole test suite, on virtual displays if Xvfb is there"
	@echo "make lint   ruff, mypy, deptry, typos, validate-pyproject"
	@echo "make bench  the benchmarks that take less than 20 minutes together on two cores; figures"
	@echo "            go to $(BENCH), tables are printed"
	@echo "make setup  what the others do first: .venv, packages, system libraries"

setup:
	@tools/setup.sh

demo: setup
	@mkdir -p $(DEMO)
	$(BIN)/napari-volseg demo --headless -o $(DEMO)
	@case "$${DEMO_WINDOW:-}" in \
	0) ;; \
	1) $(BIN)/napari-volseg demo ;; \
	*) if [ -t 1 ] && [ -z "$${CI:-}" ] && [ -n "$${DISPLAY:-}$${WAYLAND_DISPLAY:-}" ]; then \
	       $(BIN)/napari-volseg demo; fi ;; \
	esac

# The networks of the tests are so small that a second thread only waits for the first;
# a second process does not. Each begins with one half of the tests, so that what a file
# prepares is prepared once, and takes of the other's what is left.
test: export OMP_NUM_THREADS = 1
test: lint
	$(BIN)/pytest -q -n auto --maxprocesses 4 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/deptry .
	$(BIN)/typos
	$(BIN)/validate-pyproject pyproject.toml

bench: setup
	@mkdir -p $(BENCH)
	$(BIN)/python benchmarks/training_step.py --json $(BENCH)/training_step.json
	$(BIN)/python benchmarks/first_preview.py --json $(BENCH)/first_preview.json
	$(BIN)/python benchmarks/prediction.py --json $(BENCH)/prediction.json
	$(BIN)/python -m benchmarks.streamed --sizes 128 --size 256 --json $(BENCH)/streamed.json
	$(BIN)/python -m benchmarks.undo
