# A menu: `make help`. Every target sets up what it needs first (tools/setup) and keeps its files under target/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.ONESHELL:
MAKEFLAGS += --no-print-directory

# --- the toolchain: tools/setup looks for it and says which it took; nothing to do for help and clean ----------------
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),build)),)
include target/toolchain.mk
endif
target/toolchain.mk: FORCE
	@tools/setup --quiet

TARGET := armv7-unknown-linux-gnueabihf
ROOT := $(CURDIR)
BUILT_ELF := target/blob/$(TARGET)/blob/armrest-blob
BUILT_ARMREST := target/harness/$(TARGET)/release/armrest

# The blob must run at any address (pic), has no unwinder, and keeps the list of the relocations that the linker
# applied, so that blob-check can judge each of them.
# A prebuilt core has unwind tables, which linker.ld drops; what remains of them is the name of a personality routine.
BLOB_FLAGS := -C relocation-model=pic -C panic=abort -C force-unwind-tables=no -C link-arg=-Wl,--emit-relocs \
    -C link-arg=-Wl,--defsym=__aeabi_unwind_cpp_pr0=0
# Thumb code is a fifth smaller: less to map and less memory. rustc warns that the feature has no stable name yet.
# m3 adds no instruction: LLVM then never writes an ldrd whose first target is its base (a fault of that processor, which
# QEMU 7.2 has too: docs/vm.md). rustc warns of it as well.
HARNESS_FLAGS := -C target-feature=+crt-static,+thumb-mode,+m3 -C force-unwind-tables=no $(ARM_HARNESS_FLAGS)
BLOB_CRATE := -p armrest-blob --bin armrest-blob --features blob --target $(TARGET)
HARNESS_CRATE := -p armrest --target $(TARGET)
ARM_BLOB := RUSTFLAGS="$(BLOB_FLAGS)" CARGO_TARGET_DIR=target/blob
ARM_HARNESS := RUSTFLAGS="$(HARNESS_FLAGS)" CARGO_TARGET_DIR=target/harness ARMREST_BLOB=$(ROOT)/target/armrest.bin ARMREST_GEN_DIR=$(ROOT)/target/share
ON_HOST := CARGO_TARGET_DIR=target/host ARMREST_BLOB=$(ROOT)/target/armrest.bin
# What the end-to-end tests need to find. A test that cannot prove its point here says so in ARMREST_NOT_PROVED.
E2E := ARMREST=$(ROOT)/target/armrest QEMU=$(QEMU) ARMREST_NOT_PROVED=$(ROOT)/target/not-proved.txt

.PHONY: build blob harness test bench check fmt clippy doc demo vm test-vm bench-vm dist clean help FORCE

build: harness ## Build target/armrest, target/armrest.bin and target/armrest.elf (the default)
	@ls -l target/armrest target/armrest.bin target/armrest.elf

blob: | target/toolchain.mk ## Build the flat blob target/armrest.bin alone, for embedding, and check it
	@$(ARM_BLOB) $(ARM_CARGO) build --profile blob $(BLOB_CRATE) $(ARM_BLOB_STD)
	arm-linux-gnueabihf-objcopy -O binary -j .page0 -j .text -j .data \
	    --set-section-flags .data=alloc,load,contents,data $(BUILT_ELF) target/armrest.bin.new
	$(ON_HOST) $(CARGO) run -q -p blob-check -- $(BUILT_ELF) target/armrest.bin.new || { rm -f target/armrest.bin.new; exit 1; }
	cmp -s target/armrest.bin.new target/armrest.bin || cp target/armrest.bin.new target/armrest.bin
	rm target/armrest.bin.new
	cmp -s $(BUILT_ELF) target/armrest.elf || cp $(BUILT_ELF) target/armrest.elf

harness: blob ## Build the static ARMv7 executable target/armrest, with the blob inside
	@$(ARM_HARNESS) $(ARM_CARGO) build --release $(HARNESS_CRATE) --bin armrest $(ARM_STD)
	cmp -s $(BUILT_ARMREST) target/armrest || cp $(BUILT_ARMREST) target/armrest

# ALLOW_UNPROVED=1 accepts tests that could not run for lack of rights (ids that may not be chosen in a container).
# NO_VM=1 leaves out the tests on a real kernel.
test: harness ## Run all tests: host, qemu-arm, a real kernel in qemu-system-arm (NO_VM=1: not the last; ALLOW_UNPROVED=1)
	@rm -f target/not-proved.txt target/test.log
	status=0 without=
	$(E2E) $(ON_HOST) $(CARGO) test --workspace --no-fail-fast 2>&1 | tee target/test.log || status=$$?
	echo
	if [ -z "$(NO_VM)" ]; then
	    { tools/setup --vm --quiet && $(ON_HOST) $(CARGO) run -q -p vm -- test; } 2>&1 | tee -a target/test.log || status=$$?
	else
	    without=" (WITHOUT the tests on a real kernel: NO_VM)"
	fi
	if [ -s target/not-proved.txt ]; then
	    echo
	    echo "not proved here:"
	    sort -u target/not-proved.txt | sed 's/^/  /'
	    if [ -z "$(ALLOW_UNPROVED)" ]; then
	        echo "make test: failed for these; ALLOW_UNPROVED=1 accepts them"
	        status=1
	    fi
	fi
	if [ -n "$(NO_VM)" ]; then
	    printf '\n%s\n' "*** NOT RUN, because of NO_VM: the tests on a real ARMv7 kernel (make test-vm). Nothing is shown of a real kernel. ***"
	fi
	echo
	awk -v status=$$status -v without="$$without" '
	    /^test result: / { gsub(";", ""); passed += $$4; failed += $$6; ignored += $$8 }
	    END { printf "test result: %s. %d passed; %d failed; %d ignored; 0 measured; 0 filtered out%s\n",
	                 status || failed || !passed ? "FAILED" : "ok", passed, failed, ignored, without
	          exit !passed }' target/test.log || status=1
	exit $$status

bench: harness ## Count calls, instructions and bytes under qemu-arm; print the table
	@$(E2E) $(ON_HOST) $(CARGO) run -q --release -p bench

check: fmt clippy doc ## Formatting, clippy for host and target, documentation; every warning is an error

fmt: | target/toolchain.mk
	$(CARGO) fmt --all --check

clippy: blob
	@echo "clippy: host"
	$(ON_HOST) $(CARGO) clippy --workspace --all-targets -- -D warnings
	echo "clippy: $(TARGET), the blob"
	$(ARM_BLOB) $(ARM_CLIPPY) --profile blob $(BLOB_CRATE) $(ARM_BLOB_STD) -- -D warnings
	echo "clippy: $(TARGET), the harness"
	$(ARM_HARNESS) $(ARM_CLIPPY) --release $(HARNESS_CRATE) $(ARM_STD) -- -D warnings

doc: blob
	@RUSTDOCFLAGS="-D warnings" $(ON_HOST) $(CARGO) doc --workspace --no-deps

demo: harness ## See a checkpoint of a real ARMv7 machine run again under qemu-arm
	@tools/demo

vm: harness ## A shell on a real ARMv7 kernel (qemu-system-arm)
	@tools/setup --vm --quiet
	$(ON_HOST) $(CARGO) run -q -p vm -- shell

test-vm: harness ## Run the tests that need a real ARMv7 kernel, in qemu-system-arm
	@tools/setup --vm --quiet
	$(ON_HOST) $(CARGO) run -q -p vm -- test

bench-vm: harness ## Measure on a real ARMv7 kernel, in qemu-system-arm
	@tools/setup --vm --quiet
	$(ON_HOST) $(CARGO) run -q -p vm -- bench

dist: harness ## A .deb and a tarball of the products, in target/dist
	@tools/dist

clean: ## Remove everything that was built
	rm -rf target

help: ## This menu
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18
