# The commands of this project. `make` without a target lists them.

LOCKS := build cpu gpu test sagemaker sagemaker3 audit
NAME ?= sagemaker-semantic-segmentation
IMAGE ?= $(NAME):cpu
export IMAGE PRETRAINED PRETRAINED_MIRROR

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs audit bench seed fuzz soak lock clean image-cpu image test-container test-demo test-sagemaker \
	test-sagemaker2 test-sagemaker3 test-gpu

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## create .venv; fetches Python 3.11 if there is no 3.10 or 3.11 (PYTHON=/path/to/python to choose one)

.venv/installed: requirements/build.txt requirements/test.txt
	local_test/setup.sh

demo: setup ## train and serve a model on a small data set (ARGS="epochs=2" to change hyperparameters)
	local_test/demo.sh $(ARGS)

test: lint ## run the linters, then all tests (ARGS="tests/unit -k feeder" to choose tests)
	.venv/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

fuzz: setup ## send 10000 malformed request bodies to the server (FUZZ_SEED=1 for other bodies)
	FUZZ_BODIES=$${FUZZ_BODIES:-10000} .venv/bin/python -m pytest tests/fuzz

soak: setup ## run a server under mixed load for 20 minutes (SOAK_SECONDS=120 SOAK_SEED=1)
	.venv/bin/python -m tests.soak.soak

image-cpu: ## build the CPU image (PRETRAINED=none to exclude the ImageNet weights)
	local_test/build_image.sh Dockerfile.cpu $(NAME):cpu

image: ## build the CUDA image, which also runs without a GPU
	local_test/build_image.sh Dockerfile $(NAME):gpu

test-container: setup ## run the built image as SageMaker AI does (IMAGE=sagemaker-semantic-segmentation:gpu for the CUDA image)
	.venv/bin/python -m pytest -m container tests/container $(ARGS)

test-demo: demo ## run the demo, then the tests that need a trained model
	.venv/bin/python -m pytest -m demo tests/demo -rP

test-sagemaker: test-sagemaker3 test-sagemaker2 ## run the examples with the SageMaker Python SDK and the built image

test-sagemaker3: setup .venv-sagemaker3/installed ## run the part of test-sagemaker for SDK 3, boto3, and the notebook
	.venv-sagemaker3/bin/python -m pytest -m sagemaker tests/sagemaker $(ARGS)

test-sagemaker2: setup .venv-sagemaker/installed ## run the part of test-sagemaker for SDK 2
	.venv-sagemaker/bin/python -m pytest -m sagemaker tests/sagemaker $(ARGS)

test-gpu: setup ## run the tests that need GPUs, on a GPU instance (docs/limits.md)
	local_test/test_gpu.sh $(ARGS)

.venv-%/installed: requirements/%.txt
	.venv/bin/python -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install -qq --no-deps --require-hashes -r $<
	touch $@

lint: setup ## check style, types, import rules, dead code, spelling, scripts, and Dockerfiles
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache --no-logo
	.venv/bin/vulture
	.venv/bin/codespell
	.venv/bin/codespell --dictionary docs/words.txt *.md docs container benchmarks local_test examples train serve *.json Makefile Dockerfile*
	.venv/bin/shellcheck .ci/run .ci/*.sh local_test/*.sh
	.venv/bin/hadolint Dockerfile Dockerfile.cpu

docs: setup ## render the tables in the pages again
	.venv/bin/python -m docs.render

audit: setup .venv-audit/installed ## check the packages in the images for known vulnerabilities (needs internet access)
	.venv/bin/python -m local_test.vulnerabilities

bench: setup ## run every benchmark except make seed
	set -e; for script in $(filter-out benchmarks/seed.py,$(wildcard benchmarks/*.py)); do echo "$$script"; .venv/bin/python -m "benchmarks.$$(basename "$$script" .py)"; done

seed: setup ## train the jobs whose results AWS published (VOC=VOCdevkit on a GPU instance, or VOC=--tiny)
	.venv/bin/python -m benchmarks.seed $(VOC) $(ARGS)

lock: setup ## resolve requirements/*.in again
	.venv/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/uv.pin
	for lock in $(LOCKS); do \
		.venv/bin/uv pip compile --universal --python-version 3.10 --generate-hashes --upgrade --quiet \
			--custom-compile-command "make lock" "requirements/$$lock.in" --output-file "requirements/$$lock.txt" || exit 1; \
	done

clean: ## remove the environments, caches, and files of local jobs
	rm -rf .venv .venv-python .venv-sagemaker .venv-sagemaker3 .venv-gpu .venv-audit .mypy_cache .pytest_cache .ruff_cache local_test/test_dir
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
