# `make reproduce` and `make test` set up what they need by themselves. CONTRIBUTING.md lists other targets.
#
#   PYTHON=...     interpreter for the virtual environment (CPython 3.11 or newer)
#   VENV=...       where that environment is
#   CONSTRAINTS=... the versions in it; for the newest PyTorch beside the default one:
#                  make test CONSTRAINTS=constraints/torch-2.14.txt VENV=.venv-2.14
#   EXTRAS=...     what the tests' environment has, when it is made; all,ray for the tests of Ray
#   ARGS=...       options for the command, e.g. make reproduce ARGS="fig2 --epochs 1",
#                  make test ARGS="-n 0 tests/nn/test_layer.py" in one process,
#                  make test ARGS="-p randomly" in a random order

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints/torch-2.11.txt
EXTRAS ?= all
ARGS ?=
OMP_NUM_THREADS ?= 1
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --progress-bar off -c $(CONSTRAINTS)
# Says what the installation had to leave out, as pip does not show it.
LEFT_OUT := $(BIN)/python -c 'from maskedconv.build_notes import left_out; \
	[print(f"maskedconv is without {part}: {why}") for part, why in left_out().items()]'
# The requirements of an extra, without the package, which pip would build anew.
REQUIRED_BY := $(BIN)/python -c 'import sys; from importlib.metadata import requires; \
	print(*(one.split(";")[0] for one in requires("maskedconv") if "extra == \"" + sys.argv[1] in one))'
SOURCES := setup.py native_build.py pyproject.toml $(CONSTRAINTS) $(shell find csrc)

.PHONY: reproduce test fuzz bench docs gpu-check sanitize typed lint format clean

reproduce: $(VENV)/installed
	$(BIN)/python -m maskedconv.reproduce $(ARGS)

test: $(VENV)/installed-test
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# Random layers and networks against float64 plain modules; five minutes, unless ARGS says otherwise.
fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/installed-test
	$(BIN)/python -m pytest bench --benchmark-columns=median,iqr --benchmark-sort=name
	$(BIN)/python -m bench.saved_bytes
	$(BIN)/python -m bench.compare
	$(BIN)/python -m bench.steps --rounds 7
	$(BIN)/python -m bench.networks

# The native module with the address and undefined-behaviour sanitizers, in a copy of the package,
# with each instruction set that this processor has. The tests find bench/ behind the copy.
SANITIZED_TESTS := ops/test_weight_grad ops/test_narrow_maps ops/test_bn_relu \
	ops/test_bn_statistics ops/test_not_finite ops/test_checked_arguments nn/test_layer nn/test_layer_costs
# The sanitizer catches C++ exceptions in libstdc++, which python does not load by itself.
SANITIZER_LIBRARIES = $(foreach name,libasan.so libstdc++.so.6,$(shell c++ -print-file-name=$(name)))
SANITIZED_ISAS = $(shell $(BIN)/python -c \
	"from maskedconv import _C; print(*_C.build_info()['isas_available'])")
sanitize: $(VENV)/installed-test
	rm -rf build/sanitized && mkdir -p build/sanitized
	cp -r maskedconv build/sanitized/ && cp -r models build/sanitized/maskedconv/
	rm -f build/sanitized/maskedconv/_C*.so
	MASKEDCONV_SANITIZE=1 MASKEDCONV_CUDA=0 MASKEDCONV_NATIVE=1 \
		$(BIN)/python setup.py --quiet build_ext --build-lib build/sanitized
	cd build/sanitized && for isa in $(SANITIZED_ISAS); do \
		LD_PRELOAD="$(SANITIZER_LIBRARIES)" ASAN_OPTIONS=detect_leaks=0 \
		MASKEDCONV_ISA=$$isa PYTHONPATH=.:$(CURDIR) $(abspath $(BIN))/python -m pytest -q \
		-p no:cacheprovider $(SANITIZED_TESTS:%=../../tests/%.py) || exit 1; done

# With an interpreter that has the package and the tests' requirements; no environment is made.
gpu-check:
	$(PYTHON) -m bench.gpu_check $(ARGS)

# models/ is installed as maskedconv.models: mypy and the site see the package as it is installed.
typed:
	rm -rf build/typed && mkdir -p build/typed
	cp -r maskedconv build/typed/ && cp -r models build/typed/maskedconv/

# The documentation as a site in build/site; a warning is an error. The variable hides the theme's
# announcement of its successor.
docs: $(VENV)/installed-docs typed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(VENV)/installed-dev typed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/typed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p maskedconv
	find csrc -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run -Werror

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format -i

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# Each of the first two builds the compiled parts; the others add what their tools need.
$(VENV)/installed: $(SOURCES) | $(VENV)/bin/python
	@echo "installing into $(VENV) (about 5 GB with PyTorch's CUDA libraries; minutes the first time)"
	$(INSTALL) -e '.[reproduce]'
	@$(LEFT_OUT)
	@touch $@

$(VENV)/installed-test: $(SOURCES) | $(VENV)/bin/python
	@echo "installing into $(VENV) (about 6 GB with PyTorch's CUDA libraries; minutes the first time)"
	MASKEDCONV_NATIVE=1 $(INSTALL) -e '.[$(EXTRAS)]'
	@$(LEFT_OUT)
	@touch $(VENV)/installed $@

$(VENV)/installed-dev: $(VENV)/installed-test
	$(INSTALL) $$($(REQUIRED_BY) dev)
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(INSTALL) $$($(REQUIRED_BY) docs)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info maskedconv/_C*.so .pytest_cache .mypy_cache .ruff_cache
