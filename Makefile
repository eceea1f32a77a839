# Everything from a clean clone: needs Python 3.11, pip and make, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0
DEMO := demo

.PHONY: help env demo test test-browser test-settings test-kills check fuzz bench docs notebooks \
	stopwatch wheel clean

help:  ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/'

env: $(STAMP)  ## set up .venv (once; again when pyproject.toml or constraints.txt changes)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[test,lint,docs]'
	touch $@

demo: env  ## simulate a hinged macromolecule, fit it, and print what was recovered (~5 minutes)
	$(BIN)/modpose simulate particles -o $(DEMO) --images 3000 --box 40 --seed 0 --overwrite
	$(BIN)/modpose fit $(DEMO)/particles.star -o $(DEMO)/run --z-dim 1 \
		--max-minutes 3.5 --seed 0 --overwrite
	$(BIN)/modpose report $(DEMO)/run

test: env  ## the whole suite, in under ten minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope

test-browser: env  ## the page of modpose explore in the distribution's Chromium (a minute)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m browser tests/browser

N ?= 5000
SEED ?= 7
ONLY ?=
fuzz: env  ## damage N files of each format from SEED (of ONLY=npy,cs) and judge each answer
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --n $(N) --seed $(SEED) --only '$(ONLY)'

# What other processors compute with: sums are added in another order, sines rounded otherwise.
OLD := ATEN_CPU_CAPABILITY=default OPENBLAS_CORETYPE=Nehalem ONEDNN_MAX_CPU_ISA=SSE41 \
	MKL_CBWR=COMPATIBLE
AVX2 := ATEN_CPU_CAPABILITY=avx2 OPENBLAS_CORETYPE=Haswell ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2

test-settings: env  ## the suite as other processors run it, with one thread and with two
	$(OLD) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope
	$(AVX2) OMP_NUM_THREADS=2 $(BIN)/pytest

matrix: env  ## try every verb on every recipe (`make test` tries one recipe of each family)
	OMP_NUM_THREADS=1 MODPOSE_MATRIX=all $(BIN)/pytest -n 2 tests/recipes/test_recipes_and_verbs.py

test-kills: env  ## kill fits at every moment at which they change a file (two minutes)
	MODPOSE_KILLS_EVERY=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/run/test_kills.py

check: env  ## lint, formatting, types, documentation (warnings are errors)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m tools.layers > /dev/null
	$(BIN)/python -m tools.figures
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

notebooks: env  ## run the tutorials of the documentation as notebooks (docs/_build/notebooks)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[notebooks]'
	PATH=$(abspath $(BIN)):$$PATH OMP_NUM_THREADS=1 $(BIN)/python -m tools.notebooks

stopwatch: env  ## time four users from pip install to a selection (DATA=folder of real data)
	$(BIN)/python -m tools.stopwatch $(DATA) --torch $(TORCH)

WHEEL := docs/_build/wheel
wheel: env  ## build the wheel, and use it and each extra in an empty environment (3 minutes)
	$(BIN)/python -m tools.wheel $(WHEEL) --torch $(TORCH)

docs: env  ## the documentation, in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going docs docs/_build/html

bench: env  ## the textbook training step against ours, on this machine
	$(BIN)/python -m benchmarks

clean:  ## remove what the commands above made, except .venv
	rm -rf $(DEMO) docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
