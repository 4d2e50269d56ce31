//! libFuzzer on one of the targets, named by FAREBOX_FUZZ: `scripts/fuzz` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FAREBOX_FUZZ").expect("FAREBOX_FUZZ names a target");
    let target = farebox_fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("FAREBOX_FUZZ names a target that exists").1
});

fuzz_target!(|data: &[u8]| (*TARGET)(data));
