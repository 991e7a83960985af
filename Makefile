# Every target makes its own set-up in .venv: a fresh clone needs Python 3.11 or later, make, and nothing else.
PYTHON ?= python3
PYTEST := .venv/bin/python -m pytest

# Images for containers often set it; then every process compiles TensorFlow's Python anew, for ten seconds and more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test unit test-all check bench docs constraints clean

demo: .venv/installed  ## the whole pipeline on drawn cars
	.venv/bin/headhunt demo --out runs/demo

test: .venv/installed  ## what CI runs
	$(PYTEST) -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder --durations 15 -m "not slow and not benchmark"

unit: .venv/installed  ## in under a minute: those that need no Keras, Ray or TensorFlow
	$(PYTEST) -q $$(grep -rl --include='test_*.py' '^pytestmark = pytest.mark.unit' tests)

test-all: .venv/installed  ## with the slow ones: kills, real photographs
	$(PYTEST) -m "not benchmark"

check: .venv/installed  ## style, types, the layer contract
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/installed  ## prints timings
	$(PYTEST) -m benchmark -s -p no:randomly

docs: .venv/installed-docs  ## the documentation as a site, in site/; fails at any broken link
	NO_MKDOCS_2_WARNING=true .venv/bin/mkdocs build --strict

constraints: .venv/installed  ## pin the newest versions that fit pyproject.toml; not torch, whose build depends on the machine
	$(UV) pip compile --quiet --upgrade --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
		--extra gpu --extra s3 --extra gcs --extra postgresql --extra export --extra serve --extra docs --extra dev pyproject.toml --output-file constraints.txt

UV = $(shell command -v uv || echo .venv/bin/uv)

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headhunt needs Python 3.11 or later, but \
	$(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	command -v uv >/dev/null || test -x .venv/bin/uv || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python .venv/bin/python --constraint constraints.txt --editable '.[dev,export,serve]'
	touch $@

.venv/installed-docs: .venv/installed
	$(UV) pip install --quiet --python .venv/bin/python --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:  ## runs stay; the set-up and caches go
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache
