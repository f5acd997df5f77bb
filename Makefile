# The two commands: `make demo` (the main job on the embedded default) and `make test`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUILD := build/harness
SANITIZED := build/sanitized
LITERT := $(VENV)/lib/python3.11/site-packages/ai_edge_litert/libLiteRt.so
# Idle OpenMP threads that spin take the core that the other one needs.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-python test-cpp test-full env harness lint bench clean

demo: env harness
	$(BIN)/edgevit demo -o build/demo --force

test: lint test-python test-cpp

test-python: env harness
	$(BIN)/python -m pytest -q

test-cpp: env harness
	ctest --test-dir $(BUILD) --output-on-failure
	cmake -S . -B $(SANITIZED) -DEDGEVIT_SANITIZE=address,undefined \
	    -DEDGEVIT_LITERT_LIB=$(abspath $(LITERT)) > $(SANITIZED).log || (cat $(SANITIZED).log; false)
	cmake --build $(SANITIZED) --parallel
	ctest --test-dir $(SANITIZED) --output-on-failure

test-full: env harness
	$(BIN)/python -m pytest -q -m full

lint: env
	$(BIN)/ruff check .

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@sh tools/check-system.sh $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

harness: env
	@mkdir -p build
	@cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release \
	    -DEDGEVIT_LITERT_LIB=$(abspath $(LITERT)) > $(BUILD).log || (cat $(BUILD).log; false)
	@cmake --build $(BUILD) --parallel

clean:
	rm -rf build
