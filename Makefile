# make demo | make test | make test-slow | make bench | make docs: each sets up what it needs first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow bench docs picture format clean

demo: $(VENV)/base
	$(BIN)/unsup compare digits --minutes 4 -o demo

test: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks

# The API reference, from the docstrings: open site/api/index.html.
docs: $(VENV)/docs
	$(BIN)/python scripts/api_reference.py site/api

# The README's picture, of the page that make demo wrote; needs Chromium.
picture: $(VENV)/test
	$(BIN)/python scripts/readme_picture.py demo

format: $(VENV)/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch comes first and pinned: an unpinned one brings gigabytes of CUDA packages.
$(VENV)/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

# torch-fidelity is an oracle for plain features; its dependency torchvision has no CPU build and is not needed for that.
$(VENV)/test: $(VENV)/base
	$(PIP) --editable '.[test,tables,docs]'
	$(PIP) --no-deps torch-fidelity tqdm
	touch $@

$(VENV)/docs: $(VENV)/base
	$(PIP) --editable '.[docs]'
	touch $@

$(VENV)/bench: $(VENV)/base
	$(PIP) --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) demo runs site
