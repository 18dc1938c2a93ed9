# `make run` and `make test` do all the set-up by themselves. What the variables are for: CONTRIBUTING.md.

PYTHON ?= python3
EXTRAS ?= pyqt5,offline,demo,docs,dev
VENV ?= .venv
ARGS ?=

# Python keeps what it has compiled, even where the environment forbids that (many containers do). uv installs sources
# only, so that each process, and the tests start a hundred, would compile PyTorch and napari again: 13 s of CPU time.
export PYTHONDONTWRITEBYTECODE :=

# What `make run` starts: with a display napari opens with the panel and the sample; without one the sample is segmented,
# with the preset that takes seconds.
RUN := dinoaugseg demo --no-gui --preset fast
RUN_ON_DISPLAY := dinoaugseg demo

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

# A server or a container has no display: OpenGL in software, and a virtual screen. Each process of the tests has one of
# its own (pytest-xvfb): on a shared one the windows of one process would take the mouse from those of the other.
ifeq ($(shell uname -s)$(DISPLAY)$(WAYLAND_DISPLAY),Linux)
RUN_HERE := $(RUN)
DRAWN_HERE := LIBGL_ALWAYS_SOFTWARE=1 QT_QPA_PLATFORM=xcb
SCREEN := $(DRAWN_HERE) xvfb-run -a -s "-screen 0 1600x1200x24"
else
RUN_HERE := $(RUN_ON_DISPLAY)
DRAWN_HERE :=
SCREEN :=
endif

.PHONY: help setup run test test-slow coverage test-qt6 faults fuzz check format docs clean screenshots gif

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.complete  ## make .venv and install all that is needed (run and test do it too)
	@tools/system_libraries.sh

# The stamp holds the folder it was made for: a copied or moved environment is made anew, see tools/make_venv.sh.
ifneq ($(shell cat $(VENV)/.complete 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.complete
endif
$(VENV)/.complete: setup.cfg pyproject.toml tools/without_dependencies.txt
	@tools/make_venv.sh "$(PYTHON)" "$(EXTRAS)" "$(CURDIR)" "$(VENV)"

run: setup  ## open napari with the sample case; without a display, segment it
	$(BIN)/$(RUN_HERE)

# Two processes with one thread of arithmetic each: more would compete on a small machine. In the order of
# tests/conftest.py: the longest files first, so that in the end neither process waits for the other.
PYTEST := OMP_NUM_THREADS=1 $(DRAWN_HERE) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup  ## run the tests, without the slow ones; arguments for pytest: make test ARGS="-k wavelet"
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup  ## run the slow tests: whole processes, clusters, long random runs, the documentation
	$(PYTEST) -m slow $(ARGS)

coverage: setup  ## run the tests; list what of the engine they do not reach, which may be 5 % of lines and branches
	$(PYTEST) --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --fail-under=95 \
		--include="*/case/*,*/model/*,*/learning/*,*/session/*"

# The same loop with the other Qt, in an environment of its own: two Qts in one process do not get on.
QT6_TESTS ?= tests/gui tests/test_hooks.py

test-qt6:  ## run the tests of the panel with PyQt6; some of them: make test-qt6 QT6_TESTS=tests/gui/test_keys.py
	QT_API=pyqt6 $(MAKE) test VENV=.venv-qt6 EXTRAS=pyqt6,offline,demo,dev ARGS="-m '' $(QT6_TESTS) $(ARGS)"

# The same tests as in `make test-slow`, with many more kills and random sequences of actions.
faults: setup  ## kill the program 200 times, attack the undo with 1,000 seeds, open three planes 50 times
	DINOAUGSEG_KILLS=200 DINOAUGSEG_UNDO_SEEDS=1000 DINOAUGSEG_PLANE_ORDERS=48 DINOAUGSEG_PLANE_OPENINGS=50 \
		$(PYTEST) tests/faults tests/gui/test_undo_attacks.py tests/gui/test_planes.py $(ARGS)

fuzz: setup  ## feed 20,000 damaged files to each reader, or as many as in 10 minutes each
	DINOAUGSEG_FUZZ_CASES=20000 DINOAUGSEG_FUZZ_SECONDS=600 $(PYTEST) tests/fuzz $(ARGS)

check: setup  ## lint, check the format, the types and which part may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## sort the imports and format the code
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

docs: setup  ## build the documentation as a site in site/, with the API from the docstrings
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

screenshots: setup  ## take the screenshots of docs/ again
	$(SCREEN) $(BIN)/python tools/screenshots.py

gif: setup  ## take the moving picture of README and tutorial again
	$(SCREEN) $(BIN)/python tools/gif.py

clean:  ## remove the environments, caches and build products
	rm -rf .venv .venv-qt6 build dist site htmlcov .coverage .coverage.* .*_cache .hypothesis src/*.egg-info
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
