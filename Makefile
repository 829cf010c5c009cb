# The environment is made on first use and kept; setup.cfg decides when it is installed anew.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
DEMO := demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: help demo test lint format build clean

help:
	@echo "make demo    train on the built-in data, evaluate, write an HTML page (a few minutes)"
	@echo "make test    run the tests (PYTEST_ARGS=\"-m ''\" runs the slow ones too)"
	@echo "make lint    ruff check, ruff format --check, mypy"
	@echo "make format  ruff format and the safe fixes of ruff check"
	@echo "make build   wheel and sdist in dist/"
	@echo "make clean   remove build products and caches (not runs/, not $(VENV))"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[test,dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

demo: $(VENV)/.installed
	$(BIN)/ivra train --criteria comp,suff --epochs 3 --name $(DEMO)
	$(BIN)/ivra eval --students 1 --controls true --html runs/latest/report.html
	@echo "The page is at $(CURDIR)/runs/$(DEMO)/report.html"

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

build: $(VENV)/.installed-dev
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find ivra tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
