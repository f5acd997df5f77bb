# The two commands: `make demo` (the main job on the embedded default) and `make test`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CPP_TESTS := build/cpp-tests
SANITIZED := build/sanitized
ARM64_SYSROOT := build/arm64-sysroot
JOBS := $(shell nproc)
comma := ,
LITERT := $(VENV)/lib/python3.11/site-packages/ai_edge_litert/libLiteRt.so

.PHONY: demo test test-python test-cpp test-arm64 test-full test-cuda check-cuda test-rtx test-nnapi test-zig test-qnn test-openvino test-docs docs test-wheel wheel env harness clean
.PHONY: lint lint-rules lint-layout lint-types lint-cpp-layout lint-cpp

demo: env harness
	$(BIN)/edgevit demo -o build/demo --force

test: lint test-python test-cpp
	@if sh tools/check-system.sh --arm64 $(PYTHON); then $(MAKE) test-arm64; \
	else echo "SKIPPED: test-arm64, for the packages that are named above are missing"; fi

test-python: env harness
	$(BIN)/python -m pytest -q

test-cpp: env
	sh tools/check-system.sh --tests $(PYTHON)
	@$(call cpp_tests,$(CPP_TESTS),)
	@$(call cpp_tests,$(SANITIZED),-DEDGEVIT_SANITIZE=address$(comma)undefined)

# All of ctest and a validation, cross-compiled and under qemu.
test-arm64: env
	sh tools/check-system.sh --arm64 $(PYTHON)
	sh tools/arm64/sysroot.sh $(BIN)/python $(ARM64_SYSROOT)
	@mkdir -p build
	cmake --preset arm64 > build/arm64.log || { cat build/arm64.log; exit 1; }
	cmake --build --preset arm64 --parallel $(JOBS) > build/arm64.log 2>&1 || { cat build/arm64.log; exit 1; }
	ctest --preset arm64
	$(BIN)/python -m pytest -q tests/arm64

# $(1) build folder, $(2) more options: configure, build and run the C++ tests there.
define cpp_tests
	mkdir -p build
	cmake -S . -B $(1) -DEDGEVIT_LITERT_LIB=$(abspath $(LITERT)) $(2) > $(1).log || { cat $(1).log; exit 1; }
	cmake --build $(1) --parallel $(JOBS) > $(1).log 2>&1 || { cat $(1).log; exit 1; }
	ctest --test-dir $(1) --output-on-failure
endef

test-full: env harness
	$(BIN)/python -m pytest -q -m full

# What only a GPU shows. CUDA_PYTHON is an interpreter whose torch is built for CUDA; without a GPU
# every test is skipped and says so.
CUDA_PYTHON ?= $(BIN)/python

test-cuda:
	PYTHONPATH=$(CURDIR) $(CUDA_PYTHON) -m pytest -q -m cuda tests/cuda

# The same and the speed of training on that GPU, in less than five minutes.
check-cuda:
	@PYTHONPATH=$(CURDIR) $(CUDA_PYTHON) -c "import torch; print(torch.__version__, torch.cuda.get_device_name())"
	-$(MAKE) test-cuda CUDA_PYTHON=$(CUDA_PYTHON)
	PYTHONPATH=$(CURDIR) $(CUDA_PYTHON) benchmarks/training.py --device cuda --rounds 1

# The site, in build/site; a link that leads nowhere or a page that is not listed ends it.
docs: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(CURDIR) $(BIN)/mkdocs build --strict --quiet

test-docs: docs

# dist/: a wheel that runs on other Linux machines (auditwheel puts libjpeg, libpng and libwebp inside), and the
# sources.
wheel: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[wheel]'
	rm -rf build/dist dist
	$(BIN)/python -m build --outdir build/dist
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/auditwheel repair --wheel-dir dist build/dist/*.whl
	cp build/dist/*.tar.gz dist/

# What pip installs of them, in environments of their own outside of the checkout.
test-wheel: wheel
	EDGEVIT_DIST=$(CURDIR)/dist $(BIN)/python -m pytest -q -m wheel tests/test_wheel.py

# Whether TensorRT-RTX, which is not TensorRT, builds our ONNX on a CPU; 97 MB, NVIDIA-licensed.
test-rtx: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[rtx]'
	$(BIN)/python -m pytest -q tests/test_tensorrt_rtx.py

# How TFLite's NNAPI delegate (Android 14 and older) divides an artifact; 2 MB, a third party's build of TensorFlow Lite.
test-nnapi: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[nnapi]'
	$(BIN)/python -m pytest -q tests/nnapi

# Whether the portable C++ compiles for macOS and Windows; 80 MB, a compiler with their headers.
test-zig: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[zig]'
	$(BIN)/python -m tools.cross_check

# Qualcomm's compiler for a Snapdragon's NPU and its emulator; 98.6 MB, Qualcomm-licensed.
test-qnn: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[qnn]'
	$(BIN)/python -m pytest -q tests/npu tests/targets/test_qnn_emulator.py tests/targets/test_qnn_reference.py tests/test_npu_backend.py

# Which operators an Intel NPU takes; 60 MB, in a folder of its own, so that no other test sees it.
test-openvino: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/openvino -c constraints.txt openvino==2026.3.1
	EDGEVIT_OPENVINO=$(CURDIR)/build/openvino $(BIN)/python -m pytest -q tests/npu/test_intel.py

# Five checks; each runs alone by its own name as well.
lint: lint-rules lint-layout lint-types lint-cpp-layout lint-cpp

lint-rules: env
	@echo "lint-rules: ruff check"
	@$(BIN)/ruff check .

lint-layout: env
	@echo "lint-layout: ruff format"
	@$(BIN)/ruff format --check .

lint-types: env
	@echo "lint-types: pyright"
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

lint-cpp-layout: env
	@echo "lint-cpp-layout: clang-format"
	@find benchmarks edgevit targets tests -name '*_stubs' -prune -o -type f \
		\( -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.mm' \) -print0 \
		| xargs -0 $(BIN)/clang-format --dry-run -Werror

# Nothing is built: the compile commands alone are needed. What Apple's or NVIDIA's headers are
# needed for is left out.
lint-cpp: env
	@echo "lint-cpp: clang-tidy"
	@mkdir -p build
	@cmake -S . -B build/lint -DBUILD_TESTING=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON > build/lint.log \
		|| { cat build/lint.log; exit 1; }
	@$(BIN)/run-clang-tidy.py -clang-tidy-binary $(BIN)/clang-tidy -p build/lint -quiet -j $(JOBS) \
		'/targets/(?!coreml/|tensorrt/)' > build/lint.log 2>&1 \
		|| { cat build/lint.log; exit 1; }

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@sh tools/check-system.sh $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

harness: env
	@$(BIN)/python -c "from edgevit.measure.harness import build_harness; print(build_harness())"

clean:
	rm -rf build
