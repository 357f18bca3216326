//! The chunker polynomial in `config`.
//!
//! Our chunks never depend on it, stock restic's do: it wants an irreducible polynomial of
//! degree 53 over GF(2), a random one for each repository.

const DEGREE: u32 = 53;

/// A random irreducible polynomial of degree 53; about one candidate in 53 is one.
pub(crate) fn random() -> u64 {
    loop {
        let mut bytes = [0; 8];
        crate::crypto::random_bytes(&mut bytes);
        // Top and bottom coefficient are set: of the wanted degree, and not divisible by x.
        let candidate = u64::from_le_bytes(bytes) & ((1 << DEGREE) - 1) | (1 << DEGREE) | 1;
        if is_irreducible(candidate) {
            return candidate;
        }
    }
}

/// Rabin's test. 53 is prime, so `f` is irreducible when x^(2^53) = x modulo `f` and
/// gcd(x^2 - x, f) is 1.
fn is_irreducible(f: u64) -> bool {
    let mut power = 2;
    for _ in 0..DEGREE {
        power = multiply(power, power, f);
    }
    power == 2 && gcd(f, 0b110) == 1
}

/// `a · b` modulo `f`, all below degree 53.
fn multiply(mut a: u64, mut b: u64, f: u64) -> u64 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a <<= 1;
        if a >> DEGREE & 1 == 1 {
            a ^= f;
        }
        b >>= 1;
    }
    product
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        let degree = b.ilog2();
        while a != 0 && a.ilog2() >= degree {
            a ^= b << (a.ilog2() - degree);
        }
        (a, b) = (b, a);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_of_restics_design_document_is_irreducible() {
        assert!(is_irreducible(0x25b468838dcb75));
        assert!(!is_irreducible(0x25b468838dcb75 ^ 0b110));
    }

    #[test]
    fn random_polynomials_have_degree_53() {
        let (a, b) = (random(), random());
        assert_eq!((a.ilog2(), b.ilog2()), (DEGREE, DEGREE));
        assert_ne!(a, b);
    }
}
