//! The md5 method: `"md5" + md5hex(md5hex(password + user) + salt)`.

use ::md5::{Digest as _, Md5};

/// What answers the server's `salt`.
pub(super) fn hashed(user: &str, password: &str, salt: [u8; 4]) -> String {
    let inner = hex(&[password.as_bytes(), user.as_bytes()]);
    let outer = hex(&[inner.as_bytes(), &salt]);
    format!("md5{outer}")
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_that_postgresql_stores_and_salts() {
        // `SELECT 'md5' || md5('secret' || 'backup')`
        assert_eq!(hex(&[b"secret", b"backup"]), hex(&[b"secretbackup"]));
        // md5("a") and md5("") are RFC 1321's vectors.
        assert_eq!(hex(&[b"a"]), "0cc175b9c0f1b6a831c399e269772661");
        assert_eq!(hex(&[]), "d41d8cd98f00b204e9800998ecf8427e");
        let hash = hashed("backup", "secret", [1, 2, 3, 4]);
        assert!(hash.starts_with("md5") && hash.len() == 35);
        assert_ne!(hash, hashed("backup", "secret", [1, 2, 3, 5]));
    }
}
