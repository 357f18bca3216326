//! What is typed becomes the policy that is meant.

#![allow(clippy::unwrap_used)]

use super::*;
use clap::{CommandFactory, Parser, error::ErrorKind};
use jiff::tz::TimeZone;
use std::path::Path;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: ForgetArgs,
}

fn line(options: &[&str]) -> Result<ForgetArgs, clap::Error> {
    Ok(Line::try_parse_from([&["forget", "shop"], options].concat())?.args)
}

/// The policy that counts when this is typed.
fn typed(options: &[&str], configured: Option<&RetentionPolicy>) -> Option<RetentionPolicy> {
    line(options).unwrap().policy.typed(configured).unwrap()
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn configured() -> RetentionPolicy {
    let pitr_window = Some("3d".parse().unwrap());
    RetentionPolicy { daily: 5, pitr_window, time_zone: berlin(), ..RetentionPolicy::default() }
}

/// Three repositories, two of which are the target's.
fn config(policy: &str) -> Config {
    let mut text = String::new();
    for name in ["main", "second", "third"] {
        writeln!(text, "[repositories.{name}]\nurl = \"file:///srv/{name}\"\npassword-file = \"secret\"").unwrap();
    }
    writeln!(text, "[targets.shop]\nengine = \"e\"\nrepository = \"main\"\nmirrors = [\"second\"]\n{policy}").unwrap();
    Config::parse(Path::new("F"), text).unwrap()
}

#[test]
fn every_option_of_a_policy_says_what_its_name_says() {
    let options = "--keep-last 1 --keep-hourly 2 --keep-daily 3 --keep-weekly 4 --keep-monthly 5 --keep-yearly 6 \
                   --keep-within 7d --pitr-window 8d --time-zone Europe/Berlin";
    let expected = RetentionPolicy {
        last: 1,
        hourly: 2,
        daily: 3,
        weekly: 4,
        monthly: 5,
        yearly: 6,
        within: Some("7d".parse().unwrap()),
        pitr_window: Some("8d".parse().unwrap()),
        time_zone: berlin(),
    };
    let options: Vec<&str> = options.split_whitespace().collect();
    assert_eq!(typed(&options, None), Some(expected.clone()));
    assert_eq!(typed(&options, Some(&RetentionPolicy { last: 9, ..configured() })), Some(expected));
}

#[test]
fn of_the_configured_policy_only_the_time_zone_counts_beside_one_that_is_typed() {
    let last = RetentionPolicy { last: 2, ..RetentionPolicy::default() };
    assert_eq!(typed(&["--keep-last", "2"], None), Some(last.clone()));
    let zoned = RetentionPolicy { time_zone: berlin(), ..last.clone() };
    assert_eq!(typed(&["--keep-last", "2"], Some(&configured())), Some(zoned));
    assert_eq!(typed(&["--keep-last", "2", "--time-zone", "UTC"], Some(&configured())), Some(last));
    assert_eq!(typed(&[], Some(&configured())), Some(configured()), "nothing typed");
    assert_eq!(typed(&[], None), None);
}

#[test]
fn a_time_zone_alone_is_that_for_the_configured_policy() {
    let zone = &["--time-zone", "Asia/Tokyo"];
    let expected = RetentionPolicy { time_zone: TimeZone::get("Asia/Tokyo").unwrap(), ..configured() };
    assert_eq!(typed(zone, Some(&configured())), Some(expected.clone()));
    let with =
        config("[targets.shop.retention]\nkeep-daily = 5\npitr-window = \"3d\"\ntime-zone = \"Europe/Berlin\"\n");
    let target = with.target("shop").unwrap();
    assert_eq!(policy(&line(zone).unwrap(), target, &with).unwrap(), expected);
    let without = config("");
    let refused = policy(&line(zone).unwrap(), without.target("shop").unwrap(), &without).unwrap_err();
    assert_eq!(refused.message(), "failed to forget backups of `shop`: it has no retention policy");
}

#[test]
fn a_typed_policy_that_keeps_nothing_is_refused() {
    for option in COUNTS.iter().filter(|option| **option != "keep_within") {
        let option = format!("--{}", option.replace('_', "-"));
        let refused = line(&[&option, "0"]).unwrap().policy.typed(Some(&configured())).unwrap_err();
        assert_eq!(refused.kind(), FailureKind::Usage, "{option}");
        assert_eq!(refused.message(), "failed to forget backups: the policy that was typed keeps nothing");
    }
    let window = typed(&["--keep-last", "0", "--pitr-window", "1d"], None).unwrap();
    assert_eq!((window.last, window.pitr_window), (0, Some("1d".parse().unwrap())));
}

#[test]
fn what_is_no_count_period_or_zone_is_refused() {
    for (option, value) in [
        ("--keep-last", "-1"),
        ("--keep-daily", "many"),
        ("--keep-yearly", "4294967296"),
        ("--keep-within", "7"),
        ("--pitr-window", "0d"),
        ("--time-zone", "Mars/Base"),
    ] {
        let refused = line(&[&format!("{option}={value}")]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ValueValidation, "{option} {value}");
    }
}

#[test]
fn who_names_backups_counts_none() {
    let command = Line::command();
    let ids = command.get_arguments().map(|argument| argument.get_id().as_str());
    assert_eq!(ids.filter(|id| id.starts_with("keep_")).collect::<Vec<_>>(), COUNTS, "an option was forgotten");
    for option in COUNTS {
        let value = if option == "keep_within" { "1d" } else { "1" };
        let option = format!("--{}", option.replace('_', "-"));
        let refused = line(&["--backup", "ab", &option, value]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ArgumentConflict, "{option}");
    }
    let named = ["--backup", "ab", "--backup", "cd", "--pitr-window", "1d", "--time-zone", "UTC"];
    assert_eq!(line(&named).unwrap().backup, ["ab", "cd"]);
    // Where no window is known, none is kept.
    let config = config("");
    let none = policy(&line(&["--backup", "ab"]).unwrap(), config.target("shop").unwrap(), &config).unwrap();
    assert_eq!(none, RetentionPolicy::default());
}

#[test]
fn backups_are_forgotten_in_one_of_the_targets_repositories() {
    let config = config("");
    let target = config.target("shop").unwrap();
    let chosen = |options: &[&str]| repository(&line(options).unwrap(), target, &config).map(|one| one.name.as_str());
    assert_eq!(chosen(&[]).unwrap(), "main");
    assert_eq!(chosen(&["--repository", "main"]).unwrap(), "main");
    assert_eq!(chosen(&["--repository", "second"]).unwrap(), "second");
    for (name, advice) in [("third", ", expected one of `main`, `second`"), ("secnd", ", did you mean `second`?")] {
        let refused = chosen(&["--repository", name]).unwrap_err();
        let expected = format!("failed to forget backups of `shop`: `{name}` is none of its repositories{advice}");
        assert_eq!((refused.kind(), refused.message()), (FailureKind::Usage, expected.as_str()));
    }
}
