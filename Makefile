# `make demo` and `make test` need nothing done before them but a Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all test-napari lint types docs audit check clean

demo: $(VENV)/.installed
	$(BIN)/ubend demo --out ubend-demo --overwrite

test: $(VENV)/.installed
	$(BIN)/python -m pytest

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -m "slow or not slow"

# The plugin in an environment of its own, with the fixtures of napari and whatever it warns of.
test-napari: $(VENV)-napari/.installed
	QT_QPA_PLATFORM=$$(test -n "$$DISPLAY" && echo xcb || echo offscreen) \
	$(VENV)-napari/bin/python -m pytest -p napari.utils._testsupport -o filterwarnings="ignore::DeprecationWarning" tests/faces/napari

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed
	$(BIN)/mypy

# The site, build/docs/index.html: every warning is an error, and nothing is fetched.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --nitpicky --quiet -b html docs build/docs

# Known weaknesses of the pinned packages. It asks the network, so it tells and never fails.
audit:
	@if ! command -v pip-audit >/dev/null; then echo "audit: skipped, pip-audit is not here (pip install pip-audit)"; \
	elif timeout 120 pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off 2>&1; \
	then echo "audit: no known weakness in constraints.txt"; \
	else echo "audit: could not run, or found what stands above"; fi

check: lint types test

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)-napari/.installed: pyproject.toml constraints.txt
	test -x $(VENV)-napari/bin/python || $(PYTHON) -m venv $(VENV)-napari
	$(VENV)-napari/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[napari]" \
	  PyQt6 pytest pytest-qt hypothesis
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-napari build ubend-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
