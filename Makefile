# Every target sets up what it needs in .venv, from pyproject.toml and constraints.txt, and only when they have changed.
# PYTHON=/path/to/python chooses the interpreter of a new .venv; ARGS="..." is handed on (make test ARGS="-k scan -x").

VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/core.stamp
ALL := $(VENV)/all.stamp
DOCS := $(VENV)/docs.stamp
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3.14 python3)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# A virtual environment is full of absolute paths. The first stamp holds the folder it was made for, so that one which was
# moved or copied along with its checkout, or has lost its interpreter, is made anew and never runs another checkout's code.
SOUND := $(shell $(BIN)/python -c '' 2>/dev/null && [ "$$(cat $(CORE) 2>/dev/null)" = "$(CURDIR)" ] && echo yes)

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format bench bench-parts gpu-bench docs clean FORCE

help:
	@echo 'make demo        train S5 on a memory task, beside a policy without memory (installs neither torch nor Ray)'
	@echo 'make test        all tests but the slow ones'
	@echo 'make test-slow   the slow ones: long learning runs'
	@echo 'make lint        ruff and mypy'
	@echo 'make format      let ruff rewrite what it can'
	@echo 'make bench       one model in the trainer, Stable-Baselines3 and RLlib: ten minutes, into benchmarks/results/'
	@echo 'make bench-parts the parts by themselves: what the machine allows, the recurrence, the layer, acting, the trainer'
	@echo 'make gpu-bench   all of it on a GPU that JAX sees (ARGS=--smoke: tiny sizes on any machine)'
	@echo 'make docs        the documentation, into site/'
	@echo 'make clean       remove .venv and everything that was built or cached'

demo: $(CORE)
	@$(BIN)/python -m s5_adapters.demo $(ARGS)

# Most of a test's time is compiling, on one core: two processes halve it.
test: $(ALL)
	@$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist worksteal $(ARGS)

test-slow: $(ALL)
	@$(BIN)/python -m pytest -m slow --timeout 7200 --numprocesses 2 --dist worksteal $(ARGS)

lint: $(ALL)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

format: $(ALL)
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

bench: $(ALL)
	@$(BIN)/s5-adapters bench run $(ARGS)

bench-parts: $(CORE)
	@status=0; for part in floor scan layer acting trainer; do \
	  $(BIN)/python benchmarks/$$part.py || status=1; done; exit $$status

gpu-bench: $(CORE)
	@$(BIN)/python benchmarks/gpu.py $(ARGS)

# Not --quiet: mkdocs counts no warning that it does not print, and --strict then lets all of them pass.
docs: $(DOCS)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'The documentation is in site/index.html; its search needs a server: $(BIN)/python -m http.server --directory site'

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(CORE): pyproject.toml constraints.txt $(if $(SOUND),,FORCE)
	@[ -n "$(SOUND)" ] || [ ! -e $@ ] || rm -rf $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  for python in $(PYTHONS); do \
	    "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	  done; \
	  [ -n "$$python" ] || { echo "Python 3.11 or newer with its venv module is needed, and none of these is one: $(subst ",,$(PYTHONS))." \
	    "Install it (Debian, Ubuntu: python3 and python3-venv) or say make PYTHON=/path/to/python." >&2; exit 1; }; \
	  "$$python" -m venv --clear $(VENV); }
	@echo 'Setting up $(VENV): s5-adapters and what it needs to train'
	@$(INSTALL) --editable .
	@echo "$(CURDIR)" > $@

$(ALL): $(CORE)
	@echo 'Setting up $(VENV): Stable-Baselines3, RLlib, torch and what the tests need'
	@$(INSTALL) --editable '.[all,dev]'
	@touch $@

$(DOCS): $(CORE)
	@echo 'Setting up $(VENV): what the documentation needs'
	@$(INSTALL) --editable '.[docs]'
	@touch $@
