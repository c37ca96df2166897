# Shortcuts for common commands; `make` lists them. SWIFT_FLAGS is passed to `swift build` and `swift test`.

# A target may import only what Package.swift declares.
IMPORTS := --explicit-target-dependency-import-check error

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup duckdb build server install uninstall deb docs test test-server demo bench bench-check format lint test-scripts clean \
	need-swift need-python

SOURCES := Package.swift Sources Tests Benchmarks Examples

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: need-swift need-python ## Download libtorch and link it (or link an existing PyTorch: PEFT_LIBTORCH=path)
	@python3 Scripts/setup-libtorch.py
	@python3 Scripts/setup-openblas.py

duckdb: need-python ## Download DuckDB, for Parquet, remote files and SQL (or use PEFT_DUCKDB=path)
	@python3 Scripts/setup-duckdb.py

build: setup ## Build .build/release/peft
	swift build -c release --product peft $(IMPORTS) $(SWIFT_FLAGS)

server: export PEFT_SERVER = 1
server: setup ## Build .build/release/peft and peft-server, which peft serve runs
	swift build -c release --product peft $(IMPORTS) $(SWIFT_FLAGS)
	swift build -c release --product peft-server $(IMPORTS) $(SWIFT_FLAGS)

PREFIX ?= /usr/local

# Installs what is built, so that nothing is built as another user.
install: need-python ## Install what make build (or make server) built, with its libraries, below PREFIX (DESTDIR for packages)
	python3 Scripts/install.py --prefix '$(PREFIX)' --destdir '$(DESTDIR)' --program .build/release/peft

uninstall: need-python ## Remove what make install installed
	python3 Scripts/install.py --prefix '$(PREFIX)' --destdir '$(DESTDIR)' --uninstall

deb: build ## Build a Debian package with libtorch inside
	python3 Scripts/make_deb.py --program .build/release/peft

docs: build ## Write the generated tables of the pages, and the libraries' reference into .build/swift-peft.doccarchive
	python3 Scripts/update_docs.py
	python3 Scripts/docc.py

# Tests run several processes at once: let OpenMP threads that wait at a barrier sleep soon.
test: export GOMP_SPINCOUNT ?= 1000
test: setup ## Run all tests of the package
	swift test $(IMPORTS) $(SWIFT_FLAGS)

test-server: server ## Test the HTTP server with a small model
	python3 Scripts/test_server.py
	python3 Scripts/test_pages.py

demo: build ## Compare full fine-tuning and LoRA on the example dataset
	Scripts/demo.sh

bench: export PEFT_BENCHMARKS = 1
bench: setup ## Benchmark against Hugging Face PEFT (downloads about 6 GB of Python packages at first)
	for product in training-benchmark generation-benchmark; do swift build -c release --product $$product || exit 1; done
	Benchmarks/run.sh $(BENCH_ARGUMENTS)

bench-check: build ## Compare the instruction counts of small workloads with the committed ones (needs valgrind)
	python3 Benchmarks/instructions.py

format: need-swift ## Format the sources in place
	swift format --in-place --parallel --recursive $(SOURCES)
	Scripts/format-cpp.sh

lint: need-swift ## Check format and style of the sources
	swift format lint --strict --parallel --recursive $(SOURCES)
	Scripts/format-cpp.sh --check

test-scripts: need-python ## Run the tests of the setup scripts
	python3 -m unittest discover -s Scripts

clean: ## Remove build products (the cached libtorch stays)
	rm -rf .build

need-swift:
	@command -v swift >/dev/null || { echo "swift is not on the PATH: install Swift 6.2 or newer" >&2; exit 1; }

need-python:
	@command -v python3 >/dev/null || { echo "python3 (3.9 or newer, with pip) is not on the PATH" >&2; exit 1; }
