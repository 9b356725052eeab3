#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| convelo_fuzz::mpc_ecdh(data));
