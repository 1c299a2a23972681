# Every command that a person or a machine runs here.
#
# `make test` needs nothing but a Rust and a Go toolchain, and root for the
# packages that are missing; everything that takes long is built once into the
# user's cache folder.

SHELL := /bin/sh
.DEFAULT_GOAL := build
CARGO ?= cargo

.PHONY: help deps plane venv build lint manifests sbom demo demo-airflow test soak bench

help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

deps: ## Installs the system packages that tests need and that are missing
	@tests/deps.sh

plane: ## Builds the local control plane, once
	@tests/controlplane/build.sh

venv: ## Makes the environment of the Celery workers, once
	@tests/celery/build.sh

build: ## Builds everything
	$(CARGO) build --workspace --all-targets --locked

lint: ## Formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings

manifests: ## Makes deploy/install, deploy/components, the chart's README and its copies anew, from the chart and crds/
	UPDATE=1 $(CARGO) test --workspace --test chart --locked -- made::what_is_generated

sbom: ## Writes poolwright.cdx.json: every crate that the binary is made of, with its licence
	@deploy/sbom.sh poolwright.cdx.json

demo: deps $(if $(filter current,$(CLUSTER)),,plane) venv ## Shows a fleet at work; KEEP=1 leaves it running, CLUSTER=current uses the kubeconfig
	@$(CARGO) build --workspace --bins --locked
	@"$${CARGO_TARGET_DIR:-target}/debug/poolwright-demo"

demo-airflow: deps plane ## Shows a real Airflow's workers and pools at work; KEEP=1 leaves it running
	@tests/airflow/build.sh 3 >/dev/null
	@$(CARGO) build --workspace --bins --locked
	@"$${CARGO_TARGET_DIR:-target}/debug/poolwright-demo" airflow

test: ## Runs every test with all set-up; GROUPS_ONLY="unit harness" runs some
	@tests/run.sh

soak: ## Runs every test in full, which takes hours
	@POOLWRIGHT_SCALE=full tests/run.sh

bench: deps plane ## Measures the first table of docs/reference/performance.md, and how fast the core decides
	$(CARGO) build --release --locked -p poolwright
	$(CARGO) build --workspace --bins --locked
	$${CARGO_TARGET_DIR:-target}/debug/poolwright-bench
	$(CARGO) test --release --locked -p poolwright-core --test speed -- --nocapture --test-threads 1
