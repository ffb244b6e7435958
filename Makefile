# Each of install, quickstart and test is enough by itself on a fresh machine: it makes .venv and
# installs what it needs. Nothing outside this folder is left, pip's cache aside.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install
# torch's threads and pytest's workers would fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install quickstart demo test test-slow lint docs wheel benchmark clean

help:
	@echo "make install     make .venv and install the package into it"
	@echo "make quickstart  draw the Puppet benchmark, train and test on it, write a report (7 to 12 minutes)"
	@echo "make demo VIDEO=my.mp4 ACTIONS=\"walk,fall down\""
	@echo "                 who does what when in a video of yours (downloads CLIP once, 350 MB);"
	@echo "                 more options of stclip detect: DETECT=\"--none-of standing --clip FILE\""
	@echo "make test        the fast tests; make test-slow: the others"
	@echo "make lint        ruff, mypy and hadolint"
	@echo "make docs        the documentation as a site for a browser, in site/"
	@echo "make wheel       build the package, and try it where nothing else is"
	@echo "make benchmark   time training and testing against the yardstick"
	@echo "make clean       remove .venv, the drawn data, quickstart runs, caches and builds"
	@echo "PYTHON=python3.12 make ... chooses the interpreter that .venv is made with"

install: $(VENV)/installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/installed-docs: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[docs]"
	touch $(VENV)/installed $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[dev,parity]"
	touch $(VENV)/installed $@

# make quickstart QUICKSTART="--short --floor 20" is a shorter one that fails below that number.
quickstart: $(VENV)/installed
	$(BIN)/stclip quickstart $(QUICKSTART)

# VIDEO and ACTIONS are anybody's words: make must not expand them, and the shell reads them from its
# environment, where nothing in them is a command.
unexport VIDEO ACTIONS
demo: export DEMO_VIDEO := $(value VIDEO)
demo: export DEMO_ACTIONS := $(value ACTIONS)
ifneq ($(filter demo,$(MAKECMDGOALS)),)
ifeq ($(and $(value VIDEO),$(value ACTIONS)),)
$(error say which video and which actions: make demo VIDEO=my.mp4 ACTIONS="walk,fall down")
endif
endif
demo: $(VENV)/installed
	@set -f; IFS=,; $(BIN)/stclip detect "$$DEMO_VIDEO" --actions $$DEMO_ACTIONS $(DETECT)

test: $(VENV)/installed-dev
	$(PYTEST)

# The last of pytest's -m options counts; pyproject.toml has one that leaves the slow tests out.
test-slow: $(VENV)/installed-dev
	$(PYTEST) -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# --strict: a link or an anchor that leads nowhere ends it.
docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict

# The wheel is built from the source archive, so that both are complete. It goes into an environment that
# has nothing else, and is tried in an empty folder, where no clone makes up for what it lacks.
FRESH := build/fresh
wheel: $(VENV)/installed-dev
	rm -rf dist $(FRESH)
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/bin/python -m pip --disable-pip-version-check install dist/*.whl
	set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder" "$(CURDIR)/$(FRESH)"' EXIT; \
	cd "$$folder"; PATH="$(CURDIR)/$(FRESH)/bin:$$PATH"; unset PYTHONPATH; \
	stclip --version; stclip --help >help.txt; \
	stclip puppet film --actions walk wave sit --seconds 4 --out film.mp4; \
	stclip detect film.mp4 --actions walk wave sit --clip puppet; \
	test -s output/detect/film/index.html
	@ls -l dist

benchmark: $(VENV)/installed
	$(BIN)/stclip benchmark infer
	$(BIN)/stclip benchmark train

clean:
	rm -rf $(VENV) build dist site *.egg-info data/puppet data/puppet-short output/quickstart-*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find stclip tests tools -name __pycache__ -prune -exec rm -rf {} +
