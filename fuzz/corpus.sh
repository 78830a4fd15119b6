#!/bin/sh
# Makes the corpus of every fuzz target from the sample checkpoints: fuzz/corpus.sh
set -eu
cd "$(dirname "$0")/.."
for target in fuzz/fuzz_targets/*.rs; do
    cargo run -q -p armrest-images --example pack-corpus -- "fuzz/corpus/$(basename "$target" .rs)" tests/images/*/
done
