# `make run` and `make test` do all the set-up by themselves. What the variables are for: CONTRIBUTING.md.

PYTHON ?= python3
EXTRAS ?= pyqt5,offline,demo,dev
ARGS ?=

# What `make run` starts, without and with a display. Once the panel is there, the second one opens it.
RUN := dinoaugseg demo
RUN_ON_DISPLAY := dinoaugseg demo

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

# A server or a container has no display: the tests get a virtual one, with OpenGL in software.
ifeq ($(shell uname -s)$(DISPLAY)$(WAYLAND_DISPLAY),Linux)
RUN_HERE := $(RUN)
SCREEN := LIBGL_ALWAYS_SOFTWARE=1 QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1600x1200x24"
else
RUN_HERE := $(RUN_ON_DISPLAY)
SCREEN :=
endif

.PHONY: help setup run test check format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: .venv/.complete  ## make .venv and install all that is needed (run and test do it too)
	@tools/system_libraries.sh

# The stamp holds the folder it was made for: a copied or moved environment is made anew, see tools/make_venv.sh.
ifneq ($(shell cat .venv/.complete 2>/dev/null),$(CURDIR))
.PHONY: .venv/.complete
endif
.venv/.complete: setup.cfg pyproject.toml
	@tools/make_venv.sh "$(PYTHON)" "$(EXTRAS)" "$(CURDIR)"

run: setup  ## segment the sample study
	$(BIN)/$(RUN_HERE)

test: setup  ## run the tests; arguments for pytest: make test ARGS="-k wavelet"
	$(SCREEN) $(BIN)/python -m pytest $(ARGS)

check: setup  ## lint, check the format, the types and which part may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## sort the imports and format the code
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

clean:  ## remove .venv, caches and build products
	rm -rf .venv build dist htmlcov .coverage .coverage.* .*_cache .hypothesis src/*.egg-info
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
