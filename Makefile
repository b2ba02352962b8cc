# Every target makes the environment it needs. `make demo` installs the runtime alone; the others install everything.
#
# The full environment is large (torch), so its packages live once per machine, under a folder named by the hash of
# constraints.txt, and each checkout has a thin .venv that looks there. POCKETLENS_CACHE moves that folder.

PYTHON ?= python3
CACHE := $(or $(POCKETLENS_CACHE),$(HOME)/.cache/pocketlens)
KEY := $(shell { cat constraints.txt; $(PYTHON) -VV; uname -sm; } | cksum | tr ' ' '-')
DEPS := $(CACHE)/env-$(KEY)
BIN := .venv/bin

define PRINT_REQUIREMENTS
import tomllib
data = tomllib.load(open("pyproject.toml", "rb"))
extras = sum(data["project"]["optional-dependencies"].values(), [])
print("\n".join(data["project"]["dependencies"] + extras + data["dependency-groups"]["dev"]))
endef
export PRINT_REQUIREMENTS

.PHONY: setup demo test check bench soak lens-base clean
.DEFAULT_GOAL := test

setup: .venv/ready

demo: .venv-runtime/ready
	.venv-runtime/bin/python demo/run.py

test: .venv/ready
	$(BIN)/python -m pytest

# Tests that take minutes: the architectures that `make test` leaves out.
soak: .venv/ready
	$(BIN)/python -m pytest -m soak

check: .venv/ready
	$(DEPS)/bin/ruff format --check .
	$(DEPS)/bin/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pocketlens_bench.tables --check

bench: .venv/ready
	$(BIN)/python -m pocketlens_bench

# Builds the model that ships from packages alone: train, export, make small, verify. Under an hour on two cores.
WORK ?= build/lens-base
RECIPE := models/lens-base/recipe
LENS_LICENCE := Apache-2.0 (weights: EfficientNet-Lite0 and all-MiniLM-L6-v2, both Apache-2.0; see README.md)
lens-base: .venv/ready
	mkdir -p $(WORK)
	test -d $(WORK)/env || $(PYTHON) -m venv $(WORK)/env
	$(WORK)/env/bin/python -m pip install --quiet -r $(RECIPE)/requirements.txt
	$(WORK)/env/bin/python $(RECIPE)/build.py --work $(WORK)
	rm -rf $(WORK)/float
	$(BIN)/pocketlens export --config $(WORK)/lens-base.json --pretrained $(WORK)/lens-base.pt --name lens-base \
	  --licence "$(LENS_LICENCE)" --pictures demo/pictures --out $(WORK)/float
	$(BIN)/python $(RECIPE)/ship.py --float $(WORK)/float --pictures demo/pictures --out models/lens-base/model
	$(BIN)/pocketlens verify models/lens-base/model

clean:
	rm -rf .venv .venv-runtime dist demo/bundle demo/index.html

# Third-party packages of every extra and of the dev group, at the versions of constraints.txt. Built under a temporary
# name, so that an interrupted install is never taken for a finished one.
$(DEPS)/ready:
	rm -rf $(DEPS) && mkdir -p $(CACHE)
	$(PYTHON) -m venv $(DEPS)
	$(DEPS)/bin/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(PYTHON) -c "$$PRINT_REQUIREMENTS" > $(DEPS)/requirements.txt
	$(DEPS)/bin/python -m pip install --quiet -c constraints.txt -r $(DEPS)/requirements.txt
	touch $@

.venv/ready: $(DEPS)/ready pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv --without-pip .venv
	$(DEPS)/bin/python -c "import site; print(site.getsitepackages()[0])" \
	  > $$(.venv/bin/python -c "import site; print(site.getsitepackages()[0])")/dependencies.pth
	$(DEPS)/bin/python -m pip --python .venv/bin/python install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv-runtime/ready: constraints.txt pyproject.toml
	rm -rf .venv-runtime
	$(PYTHON) -m venv .venv-runtime
	.venv-runtime/bin/python -m pip install --quiet -c constraints.txt -e .
	touch $@
