#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| convelo_fuzz::direct_testimony(data));
