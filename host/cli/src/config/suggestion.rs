//! "Did you mean": the known word nearest to a mistyped one.

use crate::limits::SUGGESTION_DISTANCE_DIVISOR;

/// Longest word that is compared: nobody mistypes a longer one by a letter.
const TYPED_CHARS_MAX: usize = 100;

/// The candidate nearest to `typed`, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let short = |word: &str| word.chars().count() <= TYPED_CHARS_MAX;
    candidates
        .into_iter()
        .filter(|candidate| short(typed) && short(candidate))
        .map(|candidate| (edits(typed, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance * SUGGESTION_DISTANCE_DIVISOR <= typed.chars().count().max(candidate.chars().count())
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `, did you mean …?` or, when nothing is near, `, expected one of …`; nothing when there are no candidates.
pub(crate) fn advice<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(candidate) = nearest(typed, candidates.clone()) {
        return format!(", did you mean `{candidate}`?");
    }
    let all: Vec<_> = candidates.into_iter().map(|candidate| format!("`{candidate}`")).collect();
    match all.as_slice() {
        [] => String::new(),
        [only] => format!(", expected {only}"),
        _ => format!(", expected one of {}", all.join(", ")),
    }
}

/// How many letters were left out, added, replaced or swapped with their neighbour.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["password-file", "password-command", "url"];
        assert_eq!(nearest("pasword-file", keys), Some("password-file"));
        assert_eq!(nearest("ulr", keys), Some("url"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
    }
}
