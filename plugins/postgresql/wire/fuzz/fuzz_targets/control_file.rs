//! Any bytes are a control file or an error; one that was sealed is read.
#![no_main]

use backstay_postgresql_wire::control_file::ControlFile;
use backstay_postgresql_wire::manifest::{Algorithm, Checksum};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u8, Vec<u8>)| {
    let (known, length, mut bytes) = input;
    let _ = ControlFile::parse(&bytes);
    // The checksum's place decides how long the fields are; a right one gets mutations past it.
    bytes.resize(8192, 0);
    if known {
        bytes[8..12].copy_from_slice(&1800_u32.to_le_bytes());
        bytes[204..208].copy_from_slice(&8_u32.to_le_bytes());
        bytes[208..216].copy_from_slice(&1_234_567.0_f64.to_le_bytes());
    }
    let fields = 256 + usize::from(length % 63) * 4;
    let sum = Checksum::of(Algorithm::Crc32c, &bytes[..fields]);
    bytes[fields..fields + 4].copy_from_slice(&sum.value);
    let control = ControlFile::parse(&bytes).unwrap();
    if let Some(data) = control.data {
        assert!(data.layout.block(0, 0) == Some(0));
    }
});
