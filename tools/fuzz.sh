#!/usr/bin/env bash
# Runs fuzz targets under libFuzzer, one after the other.
#
#   tools/fuzz.sh SECONDS [TARGET...]      all targets unless told; what they are is in fuzz/src/lib.rs
#
# Says of each how many inputs it ran and how much of the code they reached. The first input that breaks a promise ends
# its target: it is in fuzz/artifacts/TARGET then, and the exit status is 1 when all targets have had their turn.
# What was found to reach new code is kept in target/fuzz-corpus, so that the next run begins there.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds="${1:?usage: tools/fuzz.sh SECONDS [TARGET...]}"
shift
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml)

# The version that is known to work; it is a program, so no manifest pins it.
CARGO_FUZZ=0.13.2
tools=$PWD/../target/tools
PATH="$tools/bin:$PATH"
if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $CARGO_FUZZ" ]; then
    echo "fuzz: installs cargo-fuzz $CARGO_FUZZ into target/tools"
    cargo install cargo-fuzz --locked --version "$CARGO_FUZZ" --root "$tools" --target-dir "$tools/build"
fi

# The stable compiler takes the flags of the sanitizer and of coverage only so.
export RUSTC_BOOTSTRAP=1
# The versions of the main build; cargo adds the fuzzer.
cp ../Cargo.lock Cargo.lock

run() {
    local target="$1" log="../target/fuzz-corpus/$1.log" found="../target/fuzz-corpus/$1"
    mkdir -p "$found"
    # 20 s and 2 GiB for one input are far above what any takes: more is a hang or a leak.
    cargo fuzz run --fuzz-dir . --target-dir ../target/fuzz "$target" "$found" "corpus/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=16384 -dict=dictionary \
        -print_final_stats=1 >"$log" 2>&1
}

failed=()
for target in "${targets[@]}"; do
    [ -d "corpus/$target" ] || { echo "fuzz: $target is no target; they are in fuzz/Cargo.toml" >&2; exit 2; }
    echo "fuzz: builds $target"
    cargo fuzz build --fuzz-dir . --target-dir ../target/fuzz "$target"
    status=0
    run "$target" || status=$?
    log="../target/fuzz-corpus/$target.log"
    executions="$(sed -n 's/^stat::number_of_executed_units: //p' "$log")"
    coverage="$(grep -a -o 'cov: [0-9]* ft: [0-9]* corp: [0-9]*' "$log" | tail -1)"
    echo "fuzz: $target: ${executions:-?} inputs, ${coverage:-no coverage}"
    if [ "$status" -ne 0 ]; then
        failed+=("$target")
        grep -a -m 3 -A 4 'panicked at\|ERROR: \|could not compile' "$log" >&2 || tail -5 "$log" >&2
        echo "fuzz: $target FAILED; its input is in fuzz/artifacts/$target, all it said in target/fuzz-corpus/$target.log" >&2
    fi
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "fuzz: failed: ${failed[*]}" >&2
    exit 1
fi
