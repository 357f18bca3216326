//! "Did you mean": the known word nearest to a mistyped one.

use crate::limits::SUGGESTION_DISTANCE_DIVISOR;

/// The candidate nearest to `typed`, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
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

/// Levenshtein's distance, in characters; one row of the matrix at a time.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["password-file", "password-command", "url"];
        assert_eq!(nearest("pasword-file", keys), Some("password-file"));
        assert_eq!(nearest("ulr", keys), None);
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
    }
}
