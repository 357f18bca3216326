//! Which part of the packs a check reads, said as stock restic has it.

use crate::Id;
use crate::crypto::random_bytes;
use std::{fmt, str::FromStr};

/// A part of the packs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subset {
    /// `n/t`: one of `of` parts, from 1 on. A pack is always in the same part, so that `of` checks read all of them. The
    /// parts are those of stock restic.
    Part {
        /// Which one.
        number: u16,
        /// Of how many.
        of: u16,
    },
    /// `5%`: packs with so many hundredths of all bytes, chosen at random.
    Percent(f64),
    /// `10G`: packs with so many bytes, chosen at random.
    Bytes(u64),
}

/// Text that names no part.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no part of the data: {why}")]
pub struct InvalidSubset {
    text: String,
    why: &'static str,
}

/// A pack's part is told from the first byte of its id.
const PARTS_MAX: u16 = 256;

impl FromStr for Subset {
    type Err = InvalidSubset;

    fn from_str(text: &str) -> Result<Self, InvalidSubset> {
        let refuse = |why| InvalidSubset { text: text.chars().take(80).collect(), why };
        if let Some((number, of)) = text.split_once('/') {
            let of = of.parse().ok().filter(|of| (1..=PARTS_MAX).contains(of));
            let of = of.ok_or_else(|| refuse("of 1 to 256 parts give the number of one, like 1/12"))?;
            let number = number.parse::<u16>().ok().filter(|number| (1..=of).contains(number));
            let number = number.ok_or_else(|| refuse("parts are numbered from 1 on, like 1/12 to 12/12"))?;
            return Ok(Self::Part { number, of });
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse::<f64>().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
            return percent
                .map(Self::Percent)
                .ok_or_else(|| refuse("a percentage is above 0 and at most 100, like 2.5%"));
        }
        let unit = text.chars().next_back().and_then(|unit| "kmgt".find(unit.to_ascii_lowercase()));
        let digits = if unit.is_some() { &text[..text.len() - 1] } else { text };
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
        let bytes = plain.then(|| digits.parse::<u64>().ok()).flatten().filter(|bytes| *bytes > 0);
        let bytes = bytes.and_then(|bytes| bytes.checked_mul(1 << (10 * unit.map_or(0, |unit| unit + 1))));
        bytes.map(Self::Bytes).ok_or_else(|| refuse("give a part like 1/12, a percentage like 5%, or a size like 10G"))
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { number, of } => write!(f, "{number}/{of}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl Subset {
    /// Leaves those of `packs`, which tell their id and size, that are to be read.
    pub(super) fn choose<T>(&self, packs: &mut Vec<T>, pack: impl Fn(&T) -> (Id, u64)) {
        let total: u64 = packs.iter().map(|one| pack(one).1).sum();
        let wanted = match *self {
            Self::Part { number, of } => {
                packs.retain(|one| u16::from(pack(one).0.as_bytes()[0]) % of == number - 1);
                return;
            }
            // Bytes of a store are far below what a float counts exactly.
            Self::Percent(percent) => (total as f64 * percent / 100.0).ceil() as u64,
            Self::Bytes(bytes) => bytes,
        };
        shuffle(packs);
        let mut bytes = 0;
        let enough = packs.iter().position(|one| {
            let before = bytes;
            bytes += pack(one).1;
            before >= wanted
        });
        packs.truncate(enough.unwrap_or(packs.len()));
    }
}

/// Brings them into an order that nobody foresees.
fn shuffle<T>(all: &mut [T]) {
    for end in (1..all.len()).rev() {
        let mut random = [0; 8];
        random_bytes(&mut random);
        all.swap(end, (u64::from_le_bytes(random) % (end as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    fn packs() -> Vec<(Id, u64)> {
        (0..1000u32).map(|number| (Id::of(&number.to_le_bytes()), 1000)).collect()
    }

    fn chosen(text: &str) -> Vec<(Id, u64)> {
        let mut packs = packs();
        text.parse::<Subset>().unwrap().choose(&mut packs, |pack| *pack);
        packs
    }

    #[test]
    fn all_parts_together_are_everything_and_each_is_the_same_every_time() {
        for of in [1, 2, 5, 255, 256] {
            let mut seen = BTreeSet::new();
            for number in 1..=of {
                let part = chosen(&format!("{number}/{of}"));
                assert_eq!(part, chosen(&format!("{number}/{of}")));
                assert!(part.iter().all(|(id, _)| seen.insert(*id)), "a pack is in two parts of {of}");
            }
            assert_eq!(seen.len(), 1000, "{of}");
        }
    }

    #[test]
    fn a_part_is_that_of_stock_restic() {
        // restic: uint(packID[0]) % totalBuckets == bucket - 1
        for (text, bucket, total) in [("1/3", 1, 3), ("3/3", 3, 3), ("256/256", 256, 256)] {
            let theirs = packs().into_iter().filter(|(id, _)| u32::from(id.as_bytes()[0]) % total == bucket - 1);
            assert_eq!(chosen(text), theirs.collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn a_percentage_or_size_is_at_least_that_and_never_more_by_a_pack() {
        for (text, packs) in
            [("5%", 50), ("0.01%", 1), ("100%", 1000), ("1", 1), ("2500", 3), ("100K", 103), ("1T", 1000)]
        {
            assert_eq!(chosen(text).len(), packs, "{text}");
        }
        assert_ne!(chosen("50%"), chosen("50%"), "the same at random");
    }

    #[test]
    fn what_names_a_part_is_read_back_and_the_rest_is_refused() {
        for text in ["1/1", "12/12", "256/256", "2.5%", "100%", "1073741824"] {
            assert_eq!(text.parse::<Subset>().unwrap().to_string(), text);
        }
        assert_eq!("1g".parse::<Subset>().unwrap(), Subset::Bytes(1 << 30));
        for text in [
            "",
            "/",
            "0/5",
            "6/5",
            "1/257",
            "1/0",
            "-1/5",
            "1/5/5",
            "%",
            "0%",
            "100.1%",
            "nan%",
            "inf%",
            "-5%",
            "0",
            "G",
            "1.5G",
            "1GB",
            "18446744073709551615T",
            "é",
            "５",
        ] {
            let error = text.parse::<Subset>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is no part")), "{error}");
        }
    }
}
