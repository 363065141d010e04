#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cell_router_fuzz::http2::holds(data));
