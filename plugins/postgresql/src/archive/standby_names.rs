//! `synchronous_standby_names`: whether commits wait for a client of some name.
//!
//! Understood as `replication/syncrep_gram.y` has it: a list of names, perhaps inside
//! `FIRST n (…)`, `ANY n (…)` or `n (…)`; `*` is everybody; names are compared without regard
//! to case. Somebody who is listed may still be a spare: we are quick all the same.

/// Whether `name` is among them.
pub(super) fn lists(standby_names: &str, name: &str) -> bool {
    let inner = match (standby_names.find('('), standby_names.rfind(')')) {
        (Some(open), Some(close)) if open < close && !standby_names[..open].contains('"') => {
            &standby_names[open + 1..close]
        }
        _ => standby_names,
    };
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let entry: String;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut text = String::new();
            let mut end = quoted.len();
            let mut chars = quoted.char_indices().peekable();
            while let Some((at, c)) = chars.next() {
                if c != '"' {
                    text.push(c);
                } else if chars.next_if(|&(_, next)| next == '"').is_some() {
                    text.push('"');
                } else {
                    end = at + 1;
                    break;
                }
            }
            entry = text;
            rest = quoted[end..].trim_start().trim_start_matches(',').trim_start();
        } else {
            let (first, others) = rest.split_once(',').unwrap_or((rest, ""));
            if first.trim() == "*" {
                return true;
            }
            entry = first.trim().to_owned();
            rest = others.trim_start();
        }
        if entry.to_lowercase() == name.to_lowercase() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::lists;

    #[test]
    fn each_form_of_the_list_is_understood() {
        for listed in [
            "backstay",
            "*",
            "a, Backstay",
            "FIRST 2 (a, backstay)",
            "any 1 (\"backstay\", b)",
            "1 (*)",
            "\"odd \"\"name, backstay\", backstay",
        ] {
            assert!(lists(listed, "backstay"), "{listed}");
        }
        for other in ["", "a", "a, b", "FIRST 1 (a)", "\"odd, backstay\"", "\"*\"", "backstay2", "\""] {
            assert!(!lists(other, "backstay"), "{other}");
        }
    }
}
