#![allow(clippy::unwrap_used)]
use super::*;
use crate::sample::{backup, place};

fn at(time: &str, number: u64) -> Backup {
    let mut backup = backup(number, place(1, number), place(1, number));
    backup.manifest.finished = time.parse().unwrap();
    backup
}

/// One an hour over three days.
fn hourly() -> Vec<Backup> {
    let start: Timestamp = "2026-11-22T00:30:00Z".parse().unwrap();
    let hour = |n: u64| Timestamp::from_micros(start.as_micros() + n * 3_600_000_000);
    (0..72).map(|n| at(&hour(n).to_string(), n)).collect()
}

/// Later than all backups here.
fn now() -> Timestamp {
    "2100-01-01T00:00:00Z".parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn kept(policy: &RetentionPolicy, backups: &[Backup]) -> Vec<String> {
    let reasons = policy.reasons(backups, now());
    let kept = backups.iter().filter(|backup| reasons.contains_key(&backup.id));
    kept.map(|backup| backup.manifest.finished.to_string()).collect()
}

/// What the calendar keeps of backups at `times`, and as what.
fn calendar(policy: &RetentionPolicy, times: &[&str]) -> Vec<String> {
    let backups: Vec<Backup> = times.iter().zip(1..).map(|(time, number)| at(time, number)).collect();
    let reasons = policy.reasons(&backups, now());
    let by_calendar = |reason: &&KeepReason| matches!(reason, KeepReason::Calendar { .. });
    let of = |backup: &Backup| {
        let reasons = reasons.get(&backup.id).into_iter().flatten().filter(by_calendar);
        reasons.map(|reason| format!("{}: {reason}", backup.manifest.finished)).collect::<Vec<_>>()
    };
    backups.iter().flat_map(of).collect()
}

#[test]
fn each_rule_keeps_the_newest_of_its_stretches() {
    let backups = hourly();
    let policy = RetentionPolicy { daily: 2, ..RetentionPolicy::default() };
    assert_eq!(kept(&policy, &backups), ["2026-11-23T23:30:00Z", "2026-11-24T23:30:00Z"]);
    let policy = RetentionPolicy { hourly: 3, ..RetentionPolicy::default() };
    assert_eq!(kept(&policy, &backups), ["2026-11-24T21:30:00Z", "2026-11-24T22:30:00Z", "2026-11-24T23:30:00Z"]);
    let policy = RetentionPolicy { weekly: 2, ..RetentionPolicy::default() };
    // The 22nd was a Sunday.
    assert_eq!(kept(&policy, &backups), ["2026-11-22T23:30:00Z", "2026-11-24T23:30:00Z"]);
}

#[test]
fn days_begin_where_the_policy_says() {
    let backups = hourly();
    let policy = RetentionPolicy { daily: 2, time_zone: zone("America/New_York"), ..RetentionPolicy::default() };
    assert_eq!(kept(&policy, &backups), ["2026-11-24T04:30:00Z", "2026-11-24T23:30:00Z"]);
}

#[test]
fn an_hour_that_comes_twice_is_two_hours() {
    let backups = [at("2026-10-25T00:30:00Z", 1), at("2026-10-25T01:30:00Z", 2)];
    let policy = RetentionPolicy { hourly: 2, time_zone: zone("Europe/Berlin"), ..RetentionPolicy::default() };
    assert_eq!(kept(&policy, &backups).len(), 2);
}

// In the four tests below backups lie half an hour before and behind midnight, or ten minutes before and behind an
// hour: neither UTC nor winter's or summer's offset alone puts them where they belong.

#[test]
fn hours_begin_where_the_zone_says() {
    // Half an hour beside UTC's; summer ends at 16:30.
    let policy = RetentionPolicy { hourly: 3, time_zone: zone("Australia/Adelaide"), ..RetentionPolicy::default() };
    let times = [
        "2026-04-04T15:20:00Z",
        "2026-04-04T16:20:00Z",
        "2026-04-04T16:40:00Z",
        "2026-04-04T17:20:00Z",
        "2026-04-04T17:40:00Z",
    ];
    assert_eq!(
        calendar(&policy, &times),
        [
            "2026-04-04T16:20:00Z: hourly 2026-04-05 02:00 +10:30",
            "2026-04-04T17:20:00Z: hourly 2026-04-05 02:00 +09:30",
            "2026-04-04T17:40:00Z: hourly 2026-04-05 03:00 +09:30",
        ]
    );
}

#[test]
fn a_day_of_23_hours_is_a_day() {
    let policy = RetentionPolicy { daily: 3, time_zone: zone("Europe/Berlin"), ..RetentionPolicy::default() };
    let times = [
        "2026-03-27T22:30:00Z",
        "2026-03-28T22:30:00Z",
        "2026-03-28T23:30:00Z",
        "2026-03-29T21:30:00Z",
        "2026-03-29T22:30:00Z",
    ];
    assert_eq!(
        calendar(&policy, &times),
        [
            "2026-03-28T22:30:00Z: daily 2026-03-28",
            "2026-03-29T21:30:00Z: daily 2026-03-29",
            "2026-03-29T22:30:00Z: daily 2026-03-30",
        ]
    );
}

#[test]
fn weeks_begin_on_monday_in_summer_and_in_winter() {
    let policy = RetentionPolicy { weekly: 3, time_zone: zone("Europe/Berlin"), ..RetentionPolicy::default() };
    let times = [
        "2026-10-11T12:00:00Z",
        "2026-10-18T21:30:00Z",
        "2026-10-18T22:30:00Z",
        "2026-10-25T22:30:00Z",
        "2026-10-25T23:30:00Z",
    ];
    assert_eq!(
        calendar(&policy, &times),
        [
            "2026-10-18T21:30:00Z: weekly 2026-W42",
            "2026-10-25T22:30:00Z: weekly 2026-W43",
            "2026-10-25T23:30:00Z: weekly 2026-W44",
        ]
    );
}

#[test]
fn months_and_years_begin_where_the_zone_says() {
    let policy = RetentionPolicy { monthly: 4, time_zone: zone("Europe/Berlin"), ..RetentionPolicy::default() };
    let times = [
        "2026-02-15T12:00:00Z",
        "2026-03-31T21:30:00Z",
        "2026-03-31T22:30:00Z",
        "2026-10-31T22:30:00Z",
        "2026-10-31T23:30:00Z",
    ];
    assert_eq!(
        calendar(&policy, &times),
        [
            "2026-03-31T21:30:00Z: monthly 2026-03",
            "2026-03-31T22:30:00Z: monthly 2026-04",
            "2026-10-31T22:30:00Z: monthly 2026-10",
            "2026-10-31T23:30:00Z: monthly 2026-11",
        ]
    );
    let policy = RetentionPolicy { yearly: 3, time_zone: zone("Europe/Berlin"), ..RetentionPolicy::default() };
    let times = [
        "2024-07-01T12:00:00Z",
        "2025-12-31T22:30:00Z",
        "2025-12-31T23:30:00Z",
        "2026-06-30T12:00:00Z",
        "2026-12-31T23:30:00Z",
    ];
    assert_eq!(
        calendar(&policy, &times),
        ["2025-12-31T22:30:00Z: yearly 2025", "2026-06-30T12:00:00Z: yearly 2026", "2026-12-31T23:30:00Z: yearly 2027",]
    );
}

#[test]
fn a_week_over_new_year_is_one_week() {
    let policy = RetentionPolicy { weekly: 4, ..RetentionPolicy::default() };
    let times = [
        "2024-12-29T12:00:00Z",
        // A Monday.
        "2024-12-30T12:00:00Z",
        "2025-01-02T12:00:00Z",
        "2026-12-31T12:00:00Z",
        // A Sunday.
        "2027-01-03T12:00:00Z",
        "2027-01-04T12:00:00Z",
    ];
    assert_eq!(
        calendar(&policy, &times),
        [
            "2024-12-29T12:00:00Z: weekly 2024-W52",
            "2025-01-02T12:00:00Z: weekly 2025-W01",
            "2027-01-03T12:00:00Z: weekly 2026-W53",
            "2027-01-04T12:00:00Z: weekly 2027-W01",
        ]
    );
}

#[test]
fn a_backup_dated_in_the_future_stays_and_takes_no_place_from_others() {
    let mut backups = hourly();
    let now = backups[71].manifest.finished;
    let policies = [
        RetentionPolicy { last: 2, ..RetentionPolicy::default() },
        RetentionPolicy { hourly: 3, daily: 2, weekly: 2, monthly: 2, yearly: 2, ..RetentionPolicy::default() },
        RetentionPolicy { within: Some("7d".parse().unwrap()), ..RetentionPolicy::default() },
    ];
    let before: Vec<_> = policies.iter().map(|policy| policy.reasons(&backups, now)).collect();
    let wrong = at("2027-01-01T00:00:00Z", 100);
    let time = wrong.manifest.finished;
    backups.push(wrong.clone());
    for (policy, mut expected) in policies.iter().zip(before) {
        expected.insert(wrong.id.clone(), vec![KeepReason::InFuture { time }]);
        assert_eq!(policy.reasons(&backups, now), expected, "{policy:?}");
    }
    let reason = KeepReason::InFuture { time };
    assert_eq!(reason.to_string(), "dated in the future: 2027-01-01T00:00:00Z");
    let json = serde_json::json!({ "rule": "in-future", "time": "2027-01-01T00:00:00Z" });
    assert_eq!(serde_json::to_value(&reason).unwrap(), json);
    // Its time comes.
    let reasons = policies[0].reasons(&backups, time);
    assert_eq!(reasons[&wrong.id], [KeepReason::Newest, KeepReason::Last { number: 1, of: 2 }]);
}

#[test]
fn clocks_that_differ_a_little_date_nothing_in_the_future() {
    let backups = [at("2026-07-01T12:00:00Z", 1), at("2026-07-01T12:05:00Z", 2), at("2026-07-01T12:05:01Z", 3)];
    let reasons = RetentionPolicy::default().reasons(&backups, backups[0].manifest.finished);
    assert_eq!(reasons.get(&backups[0].id), None);
    assert_eq!(reasons[&backups[1].id], [KeepReason::Newest]);
    assert_eq!(reasons[&backups[2].id], [KeepReason::InFuture { time: backups[2].manifest.finished }]);
    // A clock that never ran: all stay.
    let reasons = RetentionPolicy::default().reasons(&backups, Timestamp::EPOCH);
    assert!(reasons.values().all(|reasons| matches!(reasons[..], [KeepReason::InFuture { .. }])), "{reasons:?}");
    assert_eq!(reasons.len(), backups.len());
}

#[test]
fn within_counts_from_the_newest_backup_not_from_today() {
    let backups = [at("2020-01-01T00:00:00Z", 1), at("2020-03-01T00:00:00Z", 2), at("2020-03-02T00:00:00Z", 3)];
    let policy = RetentionPolicy { within: Some("1mo".parse().unwrap()), ..RetentionPolicy::default() };
    assert_eq!(kept(&policy, &backups).len(), 2);
}

#[test]
fn the_newest_stays_whatever_the_policy() {
    assert_eq!(kept(&RetentionPolicy::default(), &hourly()), ["2026-11-24T23:30:00Z"]);
    assert!(RetentionPolicy::default().is_empty());
    assert!(RetentionPolicy::default().reasons(&[], now()).is_empty());
}

#[test]
fn periods_are_lengths_of_time_and_nothing_else() {
    for good in ["7d", "36h", "2w", "1y 6mo", "90m", "PT1H"] {
        assert!(good.parse::<Period>().is_ok(), "{good}");
    }
    for bad in ["", "7", "0d", "-7d", "d", "soon", "1d ago", "0.1s"] {
        let error = bad.parse::<Period>().map(|period| period.to_string()).unwrap_err();
        assert!(error.to_string().contains("7d"), "{error}");
    }
    let now: Timestamp = "2026-03-31T12:00:00Z".parse().unwrap();
    let month: Period = "1mo".parse().unwrap();
    assert_eq!(month.before(now, &TimeZone::UTC).to_string(), "2026-02-28T12:00:00Z");
    assert_eq!("100y".parse::<Period>().unwrap().before(now, &TimeZone::UTC), Timestamp::EPOCH);
}
