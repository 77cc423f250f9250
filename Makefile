# tokenport: the commands of a checkout. Needs Python 3.11 or newer and make; works with GNU make 3.81.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LOCKS := lock/bootstrap.txt lock/development.txt
ARGS ?=

.PHONY: help setup run test check bench chaos crash focus shipping fuzz lock clean

help:
	@echo "make run     install everything and play the demo on a real model (ARGS='--speed 600 --port 9000')"
	@echo "make test    run the tests (ARGS='tests/wire -k chunked')"
	@echo "make check   lint, types and the rules of the house"
	@echo "make bench   CPU per request and token beside a bare relay, lag, memory (ARGS='--quick --only held,wide')"
	@echo "make chaos   10,000 requests over every fault (ARGS='--seed 7 --requests 50000 --workers 4')"
	@echo "make crash   100,000 requests and 200 times kill -9 (ARGS='--seed 7 --requests 5000 --kills 20')"
	@echo "make focus   the FOCUS export before its validator, which FOCUS_VALIDATOR names (another Python's environment)"
	@echo "make shipping  stores killed ten times each while rows are shipped (ARGS='--kills 50 --rate 2000')"
	@echo "make fuzz    coverage-guided fuzzing of the parsers (ARGS='--seconds 600')"
	@echo "make setup   only install: .venv with .venv/bin/tokenport"
	@echo "make lock    resolve the lock files from pyproject.toml (ARGS=--upgrade: newer versions)"
	@echo "make clean   remove .venv, caches and what the demo wrote"

setup: $(STAMP)

# The stamp is newer than the locks exactly if they are installed. uv comes by pip with a hash, all else by uv.
$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) is missing or older than 3.11: install one, or say which: make PYTHON=python3.12"; exit 2; }
	@echo "setup: .venv with $$($(PYTHON) --version)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || \
		{ echo "the venv module is missing: on Debian, apt install python3-venv"; exit 2; }
	@echo "setup: uv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement lock/bootstrap.txt
	@echo "setup: the packages of lock/development.txt"
	@$(BIN)/uv pip sync --python $(BIN)/python --require-hashes lock/development.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: setup
	@$(BIN)/tokenport demo $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict pricing routing gateway
	$(BIN)/python -m pytest -q tests/test_architecture.py

bench: setup
	$(BIN)/python -m tests.bench $(ARGS)
	$(BIN)/python -m tests.bench.decisions

chaos: setup
	$(BIN)/python -m tests.chaos $(ARGS)

crash: setup
	$(BIN)/python -m tests.crash $(ARGS)

focus: setup
	$(BIN)/python -m tests.focus_validator

shipping: setup
	$(BIN)/python -m tests.shipping $(ARGS)

# atheris is installed when asked for, where it has a wheel; the inputs that were kept are replayed by `make test`.
fuzz: setup
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement lock/fuzz.txt
	$(BIN)/python -m tests.fuzz $(ARGS)

# Hashes, and no addresses: the same files install from any package index, with pip as with uv.
COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--no-header $(ARGS)
lock: setup
	echo 'uv' | $(BIN)/uv $(COMPILE) --output-file lock/bootstrap.txt -
	$(BIN)/uv $(COMPILE) --output-file lock/product.txt pyproject.toml
	$(BIN)/uv $(COMPILE) --output-file lock/development.txt --all-extras --group dev pyproject.toml
	$(BIN)/uv $(COMPILE) --output-file lock/fuzz.txt --group fuzz

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist var/demo
	find . -name __pycache__ -prune -exec rm -rf {} +
