#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cell_router_fuzz::answer::holds(data));
