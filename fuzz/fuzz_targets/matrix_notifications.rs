#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hongyan_fuzz::run("matrix_notifications", bytes));
