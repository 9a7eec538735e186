#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = images::fuzzing::jks(bytes);
});
