#!/bin/sh
# Fuzzes one target on the stable toolchain, with coverage feedback: fuzz/run.sh TARGET SECONDS
#
# `cargo fuzz` needs nightly only for the address sanitizer, which code without `unsafe` has little use for; the
# instrumentation that libFuzzer needs is an LLVM pass that stable can run. A C++ compiler must be installed.
set -eu
[ $# -eq 2 ] || { sed -n 2p "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
target=$1 seconds=$2
dir=${CARGO_TARGET_DIR:-fuzz/target}
triple=$(rustc -vV | sed -n 's/^host: //p')
[ -d "fuzz/corpus/$target" ] || fuzz/corpus.sh
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 --cfg fuzzing" \
    cargo build --release --manifest-path fuzz/Cargo.toml --target-dir "$dir" --target "$triple" --bin "$target"
mkdir -p "fuzz/artifacts/$target"
"$dir/$triple/release/$target" "fuzz/corpus/$target" -max_len=300000 -max_total_time="$seconds" -timeout=10 \
    -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/"
