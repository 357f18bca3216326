//! Every complaint about a file, to the letter, and what right files become.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{name::GrantName, *};
use backstay_core::RetentionPolicy;
use jiff::tz::TimeZone;
use std::fmt::Write as _;

/// A file that is right, to be spoilt.
const GOOD: &str = r#"[repositories.main]
url = "file:///srv/repo"
password-file = "secret"

[targets.shop]
engine = "postgresql"
repository = "main"
settings = { sslmode = "prefer", deep = { list = [1, 0x10, 2.5] } }

[targets.shop.grants]
endpoints.primary = "127.0.0.1:5432"
credentials.primary = { user = "backup", password-command = ["pass", "shop"] }
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/backstay/backstay.toml"), text.to_owned())
}

fn complaint(text: &str) -> String {
    let complaint = parse(text).expect_err("the file was taken").to_string();
    assert!(!complaint.contains('\n'), "not one line: {complaint:?}");
    complaint.replace("/etc/backstay/backstay.toml", "F")
}

#[test]
fn a_right_file_becomes_types() {
    let config = parse(GOOD).unwrap();
    let repository = config.repositories.values().next().unwrap();
    assert_eq!(repository.location.url(), "file:///srv/repo");
    assert_eq!(repository.password, SecretSource::File("/etc/backstay/secret".into()));
    let target = config.targets.values().next().unwrap();
    assert_eq!(target.engine.as_str(), "postgresql");
    assert_eq!(target.repository.as_str(), "main");
    assert_eq!(target.settings.json, serde_json::json!({"sslmode": "prefer", "deep": {"list": [1, 16, 2.5]}}));
    assert_eq!(target.settings.place("/deep/list/1"), (8, 54));
    assert_eq!(target.settings.place("/deep/absent/1"), (8, 41));
    let primary: GrantName = "primary".parse().unwrap();
    assert_eq!(target.grants.endpoints[&primary].address.to_string(), "127.0.0.1:5432");
    assert_eq!(target.grants.credentials[&primary].user, "backup");
}

#[test]
fn the_example_parses_with_and_without_its_comments() {
    assert_eq!(parse(EXAMPLE).unwrap().targets.len(), 1);
    // Every commented key is one that exists: uncomment all, except the second way to say the same thing.
    let mut all = String::new();
    for line in EXAMPLE.lines() {
        let uncommented = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split([' ', '=']).next().unwrap_or_default();
            rest.starts_with('[') || (rest.contains(" = ") && !key.is_empty() && !key.contains("password-command"))
        });
        match uncommented {
            Some(rest) if rest.starts_with("endpoints.primary") => {
                writeln!(all, "{}", rest.replace("primary", "standby")).unwrap();
            }
            Some(rest) => writeln!(all, "{rest}").unwrap(),
            None => writeln!(all, "{line}").unwrap(),
        }
    }
    let config = parse(&all).unwrap();
    assert_eq!(config.repositories.len(), 5);
    let target = config.targets.values().next().unwrap();
    assert_eq!((target.grants.endpoints.len(), target.grants.directories.len(), target.grants.tools.len()), (2, 1, 1));
}

#[test]
fn a_folder_is_granted_for_reading_unless_writing_is_said() {
    let folders =
        "directories.a = \"a\"\ndirectories.b = { path = \"b\" }\ndirectories.c = { path = \"/c\", write = true }\n";
    let config = parse(&GOOD.replace("endpoints.primary", &format!("{folders}endpoints.primary"))).unwrap();
    let grants = &config.targets.values().next().unwrap().grants;
    let folders: Vec<_> =
        grants.directories.values().map(|folder| (folder.path.to_str().unwrap(), folder.write)).collect();
    assert_eq!(folders, [("/etc/backstay/a", false), ("/etc/backstay/b", false), ("/c", true)]);
}

fn retention<'a>(config: &'a Config, target: &str) -> &'a RetentionPolicy {
    config.targets[&target.parse().unwrap()].retention.as_ref().unwrap()
}

#[test]
fn every_key_of_a_policy_says_what_its_name_says() {
    let policy = "keep-last = 1\nkeep-hourly = 2\nkeep-daily = 3\nkeep-weekly = 4\nkeep-monthly = 5\nkeep-yearly = 6\n\
                  keep-within = \"7d\"\npitr-window = \"8d\"\ntime-zone = \"Europe/Berlin\"\n";
    let expected = RetentionPolicy {
        last: 1,
        hourly: 2,
        daily: 3,
        weekly: 4,
        monthly: 5,
        yearly: 6,
        within: Some("7d".parse().unwrap()),
        pitr_window: Some("8d".parse().unwrap()),
        time_zone: TimeZone::get("Europe/Berlin").unwrap(),
    };
    for section in ["retention", "targets.shop.retention"] {
        let config = parse(&format!("{GOOD}[{section}]\n{policy}")).unwrap();
        assert_eq!(*retention(&config, "shop"), expected, "[{section}]");
    }
}

#[test]
fn a_targets_own_policy_stands_in_for_the_one_for_all_as_a_whole() {
    let target = |name| format!("[targets.{name}]\nengine = \"postgresql\"\nrepository = \"main\"\n");
    let sections = [
        "[retention]\nkeep-last = 9\npitr-window = \"7d\"\ntime-zone = \"Asia/Tokyo\"\n",
        "[targets.shop.retention]\nkeep-daily = 3\n",
        &target("books"),
        "[targets.books.retention]\nkeep-monthly = 12\n",
        &target("other"),
    ];
    let config = parse(&format!("{GOOD}{}", sections.concat())).unwrap();
    let none = RetentionPolicy::default;
    assert_eq!(*retention(&config, "shop"), RetentionPolicy { daily: 3, ..none() });
    assert_eq!(*retention(&config, "books"), RetentionPolicy { monthly: 12, ..none() });
    let for_all = RetentionPolicy {
        last: 9,
        pitr_window: Some("7d".parse().unwrap()),
        time_zone: TimeZone::get("Asia/Tokyo").unwrap(),
        ..none()
    };
    assert_eq!(*retention(&config, "other"), for_all);
    assert!(parse(GOOD).unwrap().targets.values().all(|target| target.retention.is_none()));
}

#[test]
fn every_complaint_names_its_place_and_the_way_out() {
    // (what to replace in the good file, by what, the whole complaint)
    let table: &[(&str, &str, &str)] = &[
        ("engine =", "enigne =", "F:6:1: unknown key `enigne` in [targets.shop], did you mean `engine`?"),
        (
            "engine =",
            "colour =",
            "F:6:1: unknown key `colour` in [targets.shop], expected one of `engine`, `repository`, `mirrors`, `settings`, `grants`, `limits`, `retention`",
        ),
        ("[targets.shop]", "[target.shop]", "F:5:2: unknown key `target` in the file, did you mean `targets`?"),
        (
            "\"main\"\nsettings",
            "\"mian\"\nsettings",
            "F:7:14: targets.shop.repository: there is no repository `mian`, did you mean `main`?",
        ),
        ("engine = \"postgresql\"\n", "", "F:5:1: [targets.shop] needs `engine`"),
        (
            "\"postgresql\"",
            "\"Postgres\"",
            "F:6:10: targets.shop.engine: `Postgres` is not a valid engine name: use up to 63 lower-case letters, digits and `-`, a letter first",
        ),
        ("\"postgresql\"", "15", "F:6:10: targets.shop.engine must be a text in quotes, not a whole number"),
        ("\"postgresql\"", "\"\"", "F:6:10: targets.shop.engine is empty"),
        (
            "[targets.shop]",
            "[targets.Shop]",
            "F:5:10: [targets]: `Shop` is not a valid target name: use up to 63 lower-case letters and digits, with `-`, `_` or `.` inside",
        ),
        ("password-file = \"secret\"\n", "", "F:1:1: [repositories.main] needs `password-file` or `password-command`"),
        (
            "password-file = \"secret\"\n",
            "password-file = \"secret\"\npassword-command = [\"pass\"]\n",
            "F:4:20: [repositories.main] has both `password-file` and `password-command`, keep one",
        ),
        (
            "password-file = \"secret\"",
            "password-command = \"pass\"",
            "F:3:20: repositories.main.password-command must be a list of texts, not a text",
        ),
        (
            "password-file = \"secret\"",
            "password-command = []",
            "F:3:20: repositories.main.password-command must have at least one entry",
        ),
        (
            "password-file = \"secret\"",
            "password = \"hunter2\"",
            "F:3:1: unknown key `password` in [repositories.main], expected one of `url`, `password-file`, `password-command`, `upload-limit`, `download-limit`",
        ),
        (
            "file:///srv/repo",
            "ftp://bucket",
            "F:2:7: repositories.main.url: unknown scheme `ftp`, expected one of `file`, `s3`, `gs`, `az`, `https`",
        ),
        (
            "file:///srv/repo",
            "file://srv/repo",
            "F:2:7: repositories.main.url: a file:// URL has three slashes and an absolute path: file:///var/lib/backstay/repo",
        ),
        ("file:///srv/repo", "s3:///x", "F:2:7: repositories.main.url: write s3://bucket or s3://bucket/prefix"),
        ("\nurl", "\nregion = \"eu\"\nurl", "F:2:1: `region` in [repositories.main] is only for s3:// repositories"),
        (
            "\nurl",
            "\nendpoint = \"eu\"\nurl",
            "F:2:1: `endpoint` in [repositories.main] is only for s3://, gs:// and az:// repositories",
        ),
        ("url = \"file", "ulr = \"file", "F:2:1: unknown key `ulr` in [repositories.main], did you mean `url`?"),
        ("url = \"file:///srv/repo\"\n", "", "F:1:1: [repositories.main] needs `url`"),
        ("file:///srv/repo", "gs://", "F:2:7: repositories.main.url: write gs://bucket or gs://bucket/prefix"),
        (
            "file:///srv/repo",
            "https://me:secret@host/x",
            "F:2:7: repositories.main.url: write https://host/path, and `user` if there is one",
        ),
        ("file:///srv/repo", "az://c/p", "F:1:1: [repositories.main] needs `account`"),
        (
            "url = \"file:///srv/repo\"",
            "url = \"az://c/p\"\naccount = \"a\"\naccess-key-file = \"k\"\nsas-token-file = \"s\"",
            "F:5:18: [repositories.main] has both `access-key-file` and `sas-token-file`, keep one",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"az://c/p\"\naccount = \"a\"\ntenant-id = \"t\"\nfederated-token-file = \"/t\"",
            "F:5:24: [repositories.main] has `federated-token-file` but no `client-id`",
        ),
        (
            "file:///srv/repo",
            "http://host/x",
            "F:2:7: repositories.main.url: without TLS everybody on the way can read the access key, set allow-http = true if that is meant",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"https://h/x\"\nuser = \"me\"",
            "F:3:8: [repositories.main] has `user` but no `user-password-file`",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"s3://b\"\nprofile = \"p\"\nrole-arn = \"r\"\nweb-identity-token-file = \"/t\"",
            "F:4:12: [repositories.main] has both `profile` and `role-arn`, keep one",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"s3://b\"\nrole-arn = \"r\"",
            "F:3:12: [repositories.main] has `role-arn` but no `web-identity-token-file`",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"s3://b\"\nsession-token-file = \"t\"",
            "F:3:22: [repositories.main] has `session-token-file` but no `access-key-id`",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"s3://b\"\nobject-lock-days = 0",
            "F:3:20: repositories.main.object-lock-days must be from 1 to 36500",
        ),
        (
            "\nurl",
            "\nupload-limit = \"50\"\nurl",
            "F:2:16: repositories.main.upload-limit: write a whole number and its unit, such as \"50 MiB\" (KiB, MiB, GiB, kB, MB, GB): bytes a second",
        ),
        (
            "\nurl",
            "\ndownload-limit = \"50 KiB\"\nurl",
            "F:2:18: repositories.main.download-limit: less than 64 KiB a second does not carry a backup",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"s3://b\"\nendpoint = \"http://h:1\"",
            "F:3:12: repositories.main.endpoint: without TLS everybody on the way can read the access key, set allow-http = true if that is meant",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"s3://b\"\naccess-key-id = \"A\"",
            "F:3:17: [repositories.main] has `access-key-id` but no `secret-access-key-file`",
        ),
        (
            "url = \"file:///srv/repo\"",
            "url = \"s3://b\"\npath-style = \"yes\"",
            "F:3:14: repositories.main.path-style must be true or false, not a text",
        ),
        (
            "127.0.0.1:5432",
            "127.0.0.1",
            "F:11:21: targets.shop.grants.endpoints.primary: `127.0.0.1` is not an address: it has no port (write host:port, [v6]:port or /path/of/a/socket)",
        ),
        (
            "127.0.0.1:5432",
            "::1:5432",
            "F:11:21: targets.shop.grants.endpoints.primary: `::1:5432` is not an address: a version 6 address goes in brackets: [::1]:5432",
        ),
        (
            "\"127.0.0.1:5432\"",
            "{ address = \"h:1\", sni = \"x\" }",
            "F:11:40: unknown key `sni` in [targets.shop.grants.endpoints.primary], expected one of `address`, `ca-file`, `server-name`, `client-cert-file`, `client-key-file`",
        ),
        (
            "\"127.0.0.1:5432\"",
            "{ address = \"h:1\", client-cert-file = \"x\" }",
            "F:11:21: [targets.shop.grants.endpoints.primary] needs `client-key-file`",
        ),
        (
            "endpoints.primary",
            "endpoints.\"a b\"",
            "F:11:11: [targets.shop.grants.endpoints]: `a b` is not a valid grant name: use up to 63 lower-case letters, digits, `-` and `_`, a letter first",
        ),
        (
            "endpoints.primary",
            "endpoint.primary",
            "F:11:1: unknown key `endpoint` in [targets.shop.grants], did you mean `endpoints`?",
        ),
        ("user = \"backup\", ", "", "F:12:23: [targets.shop.grants.credentials.primary] needs `user`"),
        ("settings = {", "settings = 5 # {", "F:8:12: targets.shop.settings must be a table, not a whole number"),
        (
            "[targets.shop.grants]",
            "[targets.shop.limits]\nmemory-mib = 1\n[targets.shop.grants]",
            "F:11:14: targets.shop.limits.memory-mib must be from 16 to 65536",
        ),
        (
            "[targets.shop.grants]",
            "[targets.shop.limits]\nstall-seconds = \"1\"\n[targets.shop.grants]",
            "F:11:17: targets.shop.limits.stall-seconds must be a whole number from 1 to 86400",
        ),
        (
            "endpoints.primary",
            "directories.data = { path = \"data\", read = true }\nendpoints.primary",
            "F:11:37: unknown key `read` in [targets.shop.grants.directories.data], expected one of `path`, `write`",
        ),
        (
            "endpoints.primary",
            "directories.data = { write = true }\nendpoints.primary",
            "F:11:20: [targets.shop.grants.directories.data] needs `path`",
        ),
        (
            "endpoints.primary",
            "directories.data = { path = \"data\", write = \"yes\" }\nendpoints.primary",
            "F:11:45: targets.shop.grants.directories.data.write must be true or false, not a text",
        ),
        (
            "repository = \"main\"",
            "repository = \"main\"\nmirrors = [\"mian\"]",
            "F:8:11: targets.shop.mirrors: there is no repository `mian`, did you mean `main`?",
        ),
        (
            "repository = \"main\"",
            "repository = \"main\"\nmirrors = [\"main\"]",
            "F:8:11: targets.shop.mirrors: `main` is the target's repository itself",
        ),
        (
            "repository = \"main\"",
            "repository = \"main\"\nmirrors = \"main\"",
            "F:8:11: targets.shop.mirrors must be a list of texts, not a text",
        ),
        (
            "[targets.shop]",
            "[repositories.b]\nurl = \"b\"\npassword-file = \"b\"\n[targets.shop]\nmirrors = [\"b\", \"b\"]",
            "F:9:11: targets.shop.mirrors: `b` is named twice",
        ),
        (
            "[targets.shop.grants]",
            "[targets.shop.retention]\nkeep-last = 0\ntime-zone = \"UTC\"\n[targets.shop.grants]",
            "F:10:1: [targets.shop.retention] keeps nothing: it needs one of keep-last, keep-hourly, keep-daily, keep-weekly, keep-monthly, keep-yearly, keep-within, pitr-window",
        ),
        (
            "[repositories.main]",
            "[retention]\nkeep-montly = 3\n[repositories.main]",
            "F:2:1: unknown key `keep-montly` in [retention], did you mean `keep-monthly`?",
        ),
        (
            "[repositories.main]",
            "[retention]\nkeep-last = 1000001\n[repositories.main]",
            "F:2:13: retention.keep-last must be from 0 to 1000000",
        ),
        (
            "[repositories.main]",
            "[retention]\npitr-window = \"7\"\n[repositories.main]",
            "F:2:15: retention.pitr-window: `7` is not a length of time like 36h, 7d, 2w, 6mo or 1y",
        ),
        (
            "[repositories.main]",
            "[retention]\nkeep-last = 1\ntime-zone = \"Berlin\"\n[repositories.main]",
            "F:3:13: retention.time-zone: there is no time zone `Berlin`, write one like UTC or Europe/Berlin",
        ),
        ("2.5", "inf", "F:8:60: targets.shop.settings.deep.list[2] is not a number that can be used"),
        ("engine = \"postgresql\"", "engine = \"postgresql", "F:6:21: invalid basic string, expected `\"`"),
        ("engine = ", "engine = \"a\"\nengine = ", "F:7:1: duplicate key"),
    ];
    for (from, to, expected) in table {
        assert!(GOOD.contains(from), "{from:?} is not in the file");
        assert_eq!(complaint(&GOOD.replacen(from, to, 1)), *expected, "after {from:?} became {to:?}");
    }
}

#[test]
fn settings_are_judged_by_the_schema_and_their_values_are_not_repeated() {
    let config = parse(GOOD).unwrap();
    let target = config.targets.values().next().unwrap();
    let judge =
        |schema: serde_json::Value| target.check_settings(Path::new("F"), &schema).map_err(|error| error.to_string());
    judge(serde_json::json!({"type": "object", "properties": {"sslmode": {"enum": ["prefer"]}}})).unwrap();
    let wrong = judge(serde_json::json!({"properties": {"sslmode": {"enum": ["disable", "require"]}}})).unwrap_err();
    assert_eq!(wrong, "F:8:24: targets.shop.settings.sslmode: this is not one of \"disable\" or \"require\"");
    let unknown = judge(serde_json::json!({"additionalProperties": false, "properties": {"sslmode": {}}})).unwrap_err();
    assert!(unknown.starts_with("F:8:12: targets.shop.settings: "), "{unknown}");
    assert!(unknown.contains("deep"), "{unknown}");
    let broken = judge(serde_json::json!({"type": "nonsense"})).unwrap_err();
    assert!(broken.starts_with("the schema of engine `postgresql` is not a JSON Schema: "), "{broken}");
}

#[test]
fn the_first_usual_place_that_exists_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, present) = (folder.path().join("absent.toml"), folder.path().join("present.toml"));
    std::fs::write(&present, GOOD).unwrap();
    assert_eq!(Config::load(None, &[absent.clone(), present.clone()]).unwrap().file, present);
    let missing = Config::load(None, std::slice::from_ref(&absent)).unwrap_err().to_string();
    assert_eq!(missing, format!("no configuration file: looked for {}", absent.display()));
    let named = Config::load(Some(&absent), &[present]).unwrap_err().to_string();
    assert_eq!(named, format!("{}: No such file or directory (os error 2)", absent.display()));
}
