//! `golden_sidecar_fuzz::exposition` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| golden_sidecar_fuzz::exposition::run(input));
