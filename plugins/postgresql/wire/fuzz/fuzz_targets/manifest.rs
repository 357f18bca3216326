//! Any bytes are a manifest or an error, and what was read is written back as the same.
#![no_main]

use backstay_postgresql_wire::manifest::{Algorithm, Checksum, Manifest};
use libfuzzer_sys::fuzz_target;

/// Puts the right checksum at the end, or no mutation would ever get past it.
fn seal(mut body: Vec<u8>) -> Vec<u8> {
    body.push(b'\n');
    let sum = Checksum::of(Algorithm::Sha256, &body);
    let hex: String = sum.value.iter().map(|byte| format!("{byte:02x}")).collect();
    body.extend_from_slice(format!("\"Manifest-Checksum\": \"{hex}\"}}\n").as_bytes());
    body
}

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (sealed, bytes) = input;
    let bytes = if sealed { seal(bytes) } else { bytes };
    if let Ok(mut manifest) = Manifest::parse(&bytes) {
        assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
        let _ = manifest.replace("tablespace_map", b"1 /a\n", 0);
        Manifest::parse(&manifest.to_bytes()).unwrap();
    }
});
