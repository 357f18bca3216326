//! Sizes as `SHOW` answers them: `16MB`, `1GB`.
//!
//! Follows `convert_int_from_base_unit` in `utils/misc/guc.c`: a whole number of the largest unit
//! that leaves no rest.

/// The number of bytes; nothing where the text is no size.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match &text[split..] {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    text[..split].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        assert_eq!(bytes("8192"), Some(8192));
        assert_eq!(bytes("128kB"), Some(128 << 10));
        assert_eq!(bytes("2TB"), Some(2 << 40));
        for bad in ["", "MB", "-1MB", "+1MB", "1 MB", "1mb", "99999999TB", "1é"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
