# Every target makes the environment it needs. `make demo` installs the runtime alone; the others install everything.
#
# The full environment is large (torch), so its packages live once per machine, in a folder named by the hash of what is
# asked for (constraints.txt and pyproject's dependencies), and each checkout has a thin .venv that looks there.
# POCKETLENS_CACHE moves that folder.

PYTHON ?= python3
CACHE := $(or $(POCKETLENS_CACHE),$(HOME)/.cache/pocketlens)
ASKED := sed -n '/^dependencies/,/^\[project.scripts/p' pyproject.toml
KEY := $(shell { cat constraints.txt; $(ASKED); $(PYTHON) -VV; uname -sm; } | cksum | tr ' ' '-')
DEPS := $(CACHE)/env-$(KEY)
READY := .venv/ready-$(KEY)
BIN := .venv/bin
PEERS := build/peers

define PRINT_REQUIREMENTS
import tomllib
data = tomllib.load(open("pyproject.toml", "rb"))
extras = sum(data["project"]["optional-dependencies"].values(), [])
print("\n".join(data["project"]["dependencies"] + extras + data["dependency-groups"]["dev"]))
endef
export PRINT_REQUIREMENTS

.PHONY: setup demo test soak check bench bench-index lens-base lens-base-composed lens-tiny emojicir clean
.DEFAULT_GOAL := test

setup: $(READY)

demo: .venv-runtime/ready
	.venv-runtime/bin/python demo/run.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The long proofs: every byte, 1,000 kills, 100,000 queries, 20,000 pictures, more exports. Over an hour on two cores.
soak: $(READY)
	$(BIN)/python -m pytest -m soak

check: $(READY)
	$(DEPS)/bin/ruff format --check .
	$(DEPS)/bin/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pocketlens_bench.tables --check

bench: $(READY) $(PEERS)/ready
	PYTHONPATH=$(PEERS) $(BIN)/python -m pocketlens_bench

# The index alone, beside faiss and hnswlib.
bench-index: $(READY) $(PEERS)/ready
	PYTHONPATH=$(PEERS) $(BIN)/python -m pocketlens_bench index index_million partitions

# Builds the model that ships from packages alone: train, export, make small, verify. About an hour on two cores.
WORK ?= build/lens-base
TINY ?= build/lens-tiny
TINY_RECIPE := models/lens-tiny/recipe
TRAINING := $(TINY)/pictures/manifest.tsv
EMOJICIR ?= build/emojicir
RECIPE := models/lens-base/recipe
LENS_LICENCE := Apache-2.0 (weights: EfficientNet-Lite0 and all-MiniLM-L6-v2, both Apache-2.0; see README.md)
lens-base: $(READY) emojicir $(TRAINING)
	mkdir -p $(WORK)
	test -d $(WORK)/env || $(PYTHON) -m venv $(WORK)/env
	$(WORK)/env/bin/python -m pip install --quiet -r $(RECIPE)/requirements.txt
	$(WORK)/env/bin/python $(RECIPE)/build.py --work $(WORK)
	$(WORK)/env/bin/python $(RECIPE)/together.py --work $(WORK) --emojicir $(EMOJICIR) --crops $(TINY)/pictures/train
	rm -rf $(WORK)/float
	$(BIN)/pocketlens export --config $(WORK)/together/lens-base.json --pretrained $(WORK)/together/lens-base.pt --name lens-base \
	  --licence "$(LENS_LICENCE)" --pictures demo/pictures --out $(WORK)/float
	rm -rf $(WORK)/small
	$(BIN)/pocketlens quantize $(WORK)/float --target x86-64 --calibration demo/pictures --texts $(RECIPE)/texts.tsv \
	  --out $(WORK)/small
	$(BIN)/python $(RECIPE)/ship.py --quantized $(WORK)/small --out models/lens-base/model
	$(MAKE) lens-base-composed WORK=$(WORK)
	$(BIN)/pocketlens verify models/lens-base/model

# What composed queries need, fitted to the float folder that `make lens-base` leaves: about 40 minutes on one core.
FIT := $(BIN)/pocketlens fit inversion --model $(WORK)/float --replace --threads 1 --set precision=bfloat16 --set decay=cosine
lens-base-composed: $(READY)
	$(WORK)/env/bin/python $(RECIPE)/composed_data.py --cache $(WORK)/cache --out $(WORK)/composed
	$(FIT) --recipe lincir --data $(WORK)/composed/texts.txt.gz --steps 1600 --set noise=0.5 --out $(WORK)/lincir
	$(FIT) --recipe pic2word --data $(WORK)/composed/pictures --steps 1500 --out $(WORK)/pic2word
	$(FIT) --recipe searle --data $(WORK)/composed/texts.txt.gz --data $(WORK)/composed/pictures \
	  --steps 600 --set pictures=384 --set inversion_steps=100 --out $(WORK)/searle
	$(BIN)/pocketlens fit concepts --model models/lens-base/model --names $(WORK)/composed/names.txt --replace --out $(WORK)/concepts
	$(BIN)/python $(RECIPE)/compose.py --model models/lens-base/model --fitted $(WORK)/lincir --fitted $(WORK)/pic2word \
	  --fitted $(WORK)/searle --fitted $(WORK)/concepts --out models/lens-base/model

# Pictures without labels to train on: drawings, and crops of photographs. Six minutes on one core.
$(TRAINING):
	mkdir -p $(TINY)
	test -d $(TINY)/env || $(PYTHON) -m venv $(TINY)/env
	$(TINY)/env/bin/python -m pip install --quiet -r $(TINY_RECIPE)/requirements.txt
	rm -rf $(TINY)/pictures
	$(TINY)/env/bin/python $(TINY_RECIPE)/training_pictures.py --cache $(WORK)/cache --out $(TINY)/pictures

# Builds the query model that ships beside lens-base: thins the trunk that `make lens-base` leaves, distils lens-base into it,
# makes it smaller, measures it and ships it if it is small and quick. About an hour on two cores.
TINY_LICENCE := Apache-2.0 (weights: EfficientNet-Lite0, Apache-2.0, distilled from lens-base; the pictures' licences are in README.md)
lens-tiny: $(READY) emojicir $(TRAINING)
	test -d $(TINY)/env || $(PYTHON) -m venv $(TINY)/env
	$(TINY)/env/bin/python -m pip install --quiet -r $(TINY_RECIPE)/requirements.txt
	$(BIN)/python $(TINY_RECIPE)/start.py --checkpoint $(WORK)/together/lens-base.pt --pictures $(TINY)/pictures/train \
	  --out $(TINY)/start.safetensors
	$(TINY)/env/bin/python $(TINY_RECIPE)/same.py --cache $(WORK)/cache --pictures $(TINY)/pictures/train --out $(TINY)/same.csv
	$(BIN)/pocketlens fit distill --light $(TINY_RECIPE)/lens-tiny.json --heavy lens-base --pictures $(TINY)/pictures/train \
	  --loss raml --views 1 --batch 64 --licence "$(TINY_LICENCE)" --start $(TINY)/start.safetensors --same $(TINY)/same.csv \
	  --steps 2200 --set rate=8e-4 --name lens-tiny --replace --out $(TINY)/float
	rm -rf $(TINY)/small
	$(BIN)/pocketlens quantize $(TINY)/float --target x86-64 --calibration demo/pictures --gate agreement=0.92 --out $(TINY)/small
	$(BIN)/pocketlens eval asymmetric --heavy lens-base --query $(TINY)/small --emojicir $(EMOJICIR) --held-style outline \
	  --threads 1 --out $(TINY_RECIPE)/results.json
	$(BIN)/python $(TINY_RECIPE)/ship_tiny.py --quantized $(TINY)/small --measured $(TINY_RECIPE)/results.json --out models/lens-tiny/model
	$(BIN)/pocketlens verify models/lens-tiny/model

# Builds the benchmark of composed retrieval from packages and compares it with what is committed. About a minute.
emojicir:
	mkdir -p $(EMOJICIR)
	test -d $(EMOJICIR)/env || $(PYTHON) -m venv $(EMOJICIR)/env
	$(EMOJICIR)/env/bin/python -m pip install --quiet -r benchmarks/emojicir/requirements.txt
	PYTHONPATH=benchmarks $(EMOJICIR)/env/bin/python -m emojicir.build --cache $(WORK)/cache --out $(EMOJICIR) --check

clean:
	rm -rf .venv .venv-runtime dist demo/bundle demo/bundle-heavy demo/index.html

# Third-party packages of every extra and of the dev group, at the versions of constraints.txt. Built beside its place and
# moved there when whole, so that neither an interrupted install nor another checkout's is ever taken for a finished one.
$(DEPS)/ready: NEW := $(DEPS).$(shell echo $$PPID)
$(DEPS)/ready:
	mkdir -p $(CACHE)
	$(PYTHON) -m venv $(NEW)
	$(NEW)/bin/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(PYTHON) -c "$$PRINT_REQUIREMENTS" > $(NEW)/requirements.txt
	$(NEW)/bin/python -m pip install --quiet -c constraints.txt -r $(NEW)/requirements.txt
	touch $(NEW)/ready
	$(PYTHON) -c "import os; os.rename('$(NEW)', '$(DEPS)')" 2> /dev/null || rm -rf $(NEW)
	test -e $@

$(READY): $(DEPS)/ready pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv --without-pip .venv
	$(DEPS)/bin/python -c "import site; print(site.getsitepackages()[0])" \
	  > $$(.venv/bin/python -c "import site; print(site.getsitepackages()[0])")/dependencies.pth
	$(DEPS)/bin/python -m pip --python .venv/bin/python install --quiet --no-deps --no-build-isolation -e .
	touch $@

# What the index is measured beside; nothing else needs it.
$(PEERS)/ready: benchmarks/index_peers/requirements.txt $(DEPS)/ready
	$(DEPS)/bin/python -m pip install --quiet --upgrade --no-deps --target $(PEERS) -r $<
	touch $@

.venv-runtime/ready: constraints.txt pyproject.toml
	rm -rf .venv-runtime
	$(PYTHON) -m venv .venv-runtime
	.venv-runtime/bin/python -m pip install --quiet -c constraints.txt -e .
	touch $@
