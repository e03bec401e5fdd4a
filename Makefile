# make demo   toy data, training, validation: everything once, in about a quarter of an hour on two cores
# make test   the tests, in two processes of about 2 GB; WORKERS=8 on a larger machine
# make test-all  with those that take minutes: fifty kills, torchrun, WandB's timeouts
# make soak   ten minutes of training under random signals, kills, dying workers and damaged frames
# make lint   the linter, the formatter's check, the type checker

PYTHON_3_11 ?= $(shell command -v python3.11 || command -v python3)
PYTHON := .venv/bin/python
WORKERS ?= 2
.DEFAULT_GOAL := help
.PHONY: help install demo test test-all soak lint

help:
	@sed -n 's/^# //p' Makefile

install: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt requirements-slurm.txt requirements-onnx.txt pyproject.toml
	@$(PYTHON_3_11) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, found $$($(PYTHON_3_11) --version). Set PYTHON_3_11=/path/to/python3.11"; exit 1; }
	@$(PYTHON_3_11) -m venv .venv || { echo "Debian and Ubuntu: apt-get install python3-venv, then again"; exit 1; }
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install
	@$(PYTHON) scripts/demo.py

test: install
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist worksteal

test-all: install
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist worksteal -m ""

soak: install
	$(PYTHON) scripts/soak.py minutes=$(or $(MINUTES),10)

lint: install
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	.venv/bin/pyrefly check --python-interpreter-path $(PYTHON) --min-severity error --summary=none
