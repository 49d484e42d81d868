//! `golden_sidecar_fuzz::json_pointer` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| golden_sidecar_fuzz::json_pointer::run(input));
