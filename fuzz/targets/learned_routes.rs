//! `golden_sidecar_fuzz::learned_routes` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| golden_sidecar_fuzz::learned_routes::run(input));
