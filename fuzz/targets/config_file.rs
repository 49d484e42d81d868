//! `golden_sidecar_fuzz::config_file` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| golden_sidecar_fuzz::config_file::run(input));
