//! `golden_sidecar_fuzz::request_path` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| golden_sidecar_fuzz::request_path::run(input));
