# The commands of the README. Everything is installed into .venv; nothing outside it is touched.
#   make demo          real photographs through torchvision's ResNet-50 and ours: a table and a chart
#   make test          all tests but the slow ones and those that need a GPU
#   make bench         ours against its peers; writes benchmarks/results and the README's table;
#                      CELLS=models,sweep,fast,neighbours measures what docs/benchmarks.md adds
#   make gpu-check     on a GPU: builds for it, tests, measures, and writes a report into benchmarks/results/gpu
#   make kernels       what the GPU kernels cost, counted without a GPU; writes docs/budgets.md

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# The releases this is developed on. Installed first, so that the extension is built against the torch
# that runs it: an isolated build would fetch a second one.
TORCH := "torch==2.14.*" "torchvision==0.29.*"
BUILD_TOOLS := "setuptools>=77" ninja

# What a change of calls for another install; Python sources do not, the install is editable.
SOURCES := setup.py pyproject.toml $(shell find build_support csrc -type f -not -name '*.pyc')

# A demonstration compiles CUDA only where it could run; a list given by the user holds everywhere.
GPU := $(shell nvidia-smi -L 2>/dev/null)
DEMO_ARCHS := $(or $(FUSEDRES_CUDA_ARCHS),$(if $(GPU),,none))
# The GPUs at hand, as torch spells them.
GPU_ARCHS = $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sort -u | paste -sd ';')
# One architecture, and PTX for the emulator: what the tests look into.
TEST_ARCHS := 8.0+PTX

# tools/ptxemu is a package of its own, in its own style.
PYTHON_CODE := benchmarks build_support fusedres tests setup.py
CXX_CODE = git ls-files -z 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu' 'csrc/*.cuh' | xargs -0 -r $(BIN)/clang-format

COMPARE ?= --model resnet50 --batch 16 --train --rounds 7
PYTEST ?=

.PHONY: help demo test test-all bench kernels gpu-check lint format clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.demo
	$(BIN)/fusedres compare $(COMPARE)

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow and not gpu" $(PYTEST)

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -m "not gpu" $(PYTEST)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks run $(if $(CELLS),--cells $(CELLS))

gpu-check:
	@test -n "$(GPU)" || { echo "gpu-check needs an NVIDIA GPU, and nvidia-smi lists none" >&2; exit 2; }
	$(MAKE) $(VENV)/.gpu || { echo "gpu-check: the build failed; to report it, send what it said" >&2; exit 1; }
	$(BIN)/python -m benchmarks.gpu_check

kernels: $(VENV)/.test
	$(BIN)/python -m benchmarks.kernels

lint: $(VENV)/.lint
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/mypy
	$(CXX_CODE) --dry-run --Werror

format: $(VENV)/.lint
	$(BIN)/ruff format $(PYTHON_CODE)
	$(BIN)/ruff check --fix $(PYTHON_CODE)
	$(CXX_CODE) -i

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	rm -f fusedres/*.so fusedres/_build_config.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "fusedres needs Python 3.10 or newer; PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(BUILD_TOOLS) $(TORCH)
	touch $@

$(VENV)/.demo: $(VENV)/.torch $(SOURCES)
	$(if $(DEMO_ARCHS),FUSEDRES_CUDA_ARCHS="$(DEMO_ARCHS)") $(PIP) --no-build-isolation -e ".[demo]"
	touch $@

$(VENV)/.test: $(VENV)/.torch $(SOURCES)
	FUSEDRES_CUDA_ARCHS="$(TEST_ARCHS)" $(PIP) --no-build-isolation -e ".[test]"
	touch $@

$(VENV)/.bench: $(VENV)/.torch $(SOURCES)
	$(if $(DEMO_ARCHS),FUSEDRES_CUDA_ARCHS="$(DEMO_ARCHS)") $(PIP) --no-build-isolation -e ".[bench]"
	touch $@

$(VENV)/.gpu: $(VENV)/.torch $(SOURCES)
	FUSEDRES_CUDA_ARCHS="$(or $(FUSEDRES_CUDA_ARCHS),$(GPU_ARCHS))" $(PIP) --no-build-isolation -e ".[gpu]"
	touch $@

# The extra's tools alone: installing ".[lint]" would compile the extension once more.
LINT_EXTRA = from importlib.metadata import requires; \
	print(*(r.split(";")[0].strip() for r in requires("fusedres") if "lint" in r.partition(";")[2]))

$(VENV)/.lint: $(VENV)/.test
	$(PIP) $$($(BIN)/python -c '$(LINT_EXTRA)')
	touch $@
