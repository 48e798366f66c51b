# The book's commands. `make` alone lists them. Works with GNU make 3.81 (macOS) and later.

# The pinned set is tested with Python 3.11, so that one is tried first.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
# requirements.lock: the same versions and all that they need, each wheel by its hash, for Python 3.11 on Linux x86-64
REQUIREMENTS ?= requirements.txt
PORT ?= 8000
WORKERS ?= 2

ifneq ($(words $(VENV)),1)
$(error VENV must be the name of a folder without spaces, not "$(VENV)")
endif

# What a protocol is run with: one chapter or all, in this process or, WORKERS=4, in so many (BACKEND=ray, dask: there).
PROTOCOL = $(if $(CHAPTER),--chapter $(CHAPTER)) $(if $(filter command line,$(origin WORKERS)),--workers $(WORKERS)) \
	$(if $(BACKEND),--backend $(BACKEND))
BIN = $(VENV)/bin/python
STAMP = $(VENV)/.installed

# A .venv whose Python has gone is made anew.
$(shell test ! -e $(STAMP) || $(BIN) -c pass >/dev/null 2>&1 || rm -f $(STAMP))

.NOTPARALLEL:
.PHONY: help book pdf test test-elsewhere engines pages audit-pages alone serve lint bench evidence stability again lock clean

help:
	@echo 'make book        execute every chapter and build the pages in _build/html'
	@echo 'make pdf         print the built book as one PDF, and offer it on the pages (needs Chromium)'
	@echo 'make test        unit tests, formula checks and every notebook, on the CPU'
	@echo 'make test-elsewhere  the tests of the package, with the arithmetic and threads of another processor'
	@echo 'make engines     install Ray, Dask, Flower, torchao, ONNX Runtime, Lightning and transformers, so that their tests run, too'
	@echo 'make pages       check the built pages in Chromium'
	@echo 'make audit-pages a table of every page and what may be wrong with it: zeros where zeros belong'
	@echo 'make alone       run each notebook for Colab alone, with the packages that Colab has (PYTHON=python3.13)'
	@echo 'make serve       show the built book on http://127.0.0.1:$(PORT)  (PORT=...)'
	@echo 'make lint        ruff'
	@echo 'make bench       the benchmarks'
	@echo 'make evidence    run the full protocols and write ledger/  (CHAPTER=overfitting for one of them, WORKERS=4 processes)'
	@echo 'make stability   the comparisons that decide, tuned again under three other master seeds: which verdicts stay (CHAPTER=...)'
	@echo 'make again       the comparisons that decide, with the seeds of the records: does this machine say the same? (CHAPTER=...)'
	@echo 'make lock        write requirements.lock, with which the published book is built, from requirements.txt'
	@echo 'make clean       remove what was built (the environment, .venv, stays)'

# One environment for all; made when needed, and again when what it should hold has changed.
$(STAMP): $(REQUIREMENTS) pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or later was found. Install one (https://www.python.org/downloads/), or say where it is:"; \
		echo "    make book PYTHON=/path/to/python3.11"; exit 1; fi
	@test "$$("$(PYTHON)" -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)" = True || { \
		echo "$(PYTHON) is not a Python, is older than 3.11, or does not run. Name another: make book PYTHON=python3.11"; \
		exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@$(BIN) -m pip --version >/dev/null 2>&1 || test ! -e $(VENV) || test -e $(VENV)/pyvenv.cfg || \
		{ test -d $(VENV) && test -z "$$(ls -A $(VENV))"; } || { \
		echo "$(VENV) is there, and is not a virtual environment. Remove it, or name another: make book VENV=.venv2"; \
		exit 1; }
	@$(BIN) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@echo "Setting up $(VENV) with $$($(BIN) --version) (some minutes the first time)"
	$(BIN) -m pip install --disable-pip-version-check $(if $(filter %.lock,$(REQUIREMENTS)),--require-hashes) \
		--requirement $(REQUIREMENTS)
	$(BIN) -m pip install --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(STAMP)

book: $(STAMP)
	@$(BIN) tools/build_book.py

pdf: book
	@$(BIN) tools/pdf.py

# Threads of two notebooks at once would only get in each other's way.
test: $(STAMP)
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN) -m pytest -n $(WORKERS) --dist worksteal

# Without vector instructions, with the same results of MKL on every make, and two threads an operation.
test-elsewhere: $(STAMP)
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS CUDA_VISIBLE_DEVICES= ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=2 $(BIN) -m pytest \
		-n $(WORKERS) --dist worksteal --ignore tests/book tests

engines: $(STAMP)
	$(BIN) -m pip install --disable-pip-version-check --requirement requirements-engines.txt --constraint requirements.txt

pages: $(STAMP)
	$(BIN) -m pytest tests/book/test_pages.py

audit-pages: $(STAMP)
	@$(BIN) tools/audit_pages.py

# In an environment of its own, of the Python that PYTHON names.
alone: $(STAMP)
	"$(PYTHON)" -m venv --clear _build/colab
	_build/colab/bin/python -m pip install --disable-pip-version-check --quiet --requirement tools/colab.txt
	@$(BIN) tools/alone.py _build/colab/bin/python

serve: $(STAMP)
	@$(BIN) tools/serve.py "$(PORT)"

lint: $(STAMP)
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .

bench: $(STAMP)
	@ls benchmarks/*.py >/dev/null 2>&1 || { echo "There is no benchmarks/*.py in this checkout."; exit 1; }
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN) $$script; done

evidence: $(STAMP)
	$(BIN) -m adamw_book evidence $(PROTOCOL)

stability again: $(STAMP)
	$(BIN) -m adamw_book $@ $(PROTOCOL)

lock: $(STAMP)
	$(BIN) tools/lock.py

clean:
	rm -rf _build

.DEFAULT:
	@echo "There is no 'make $@'. These are the commands:"; echo; $(MAKE) --no-print-directory help; exit 1
