//! The binary as scripts see it: exit codes, one line of complaint, one JSON value.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A configuration with one repository in the folder and one target that nothing answers for.
const CONFIG: &str = r#"
[repositories.main]
url = "repo"
password-file = "password"

[repositories.empty]
url = "empty"
password-file = "password"

[targets.shop]
engine = "postgresql"
repository = "main"
[targets.shop.grants]
endpoints.primary = "127.0.0.1:1"
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("backstay.toml"), CONFIG).unwrap();
    fs::write(folder.path().join("password"), "secret\n").unwrap();
    fs::write(folder.path().join("other-password"), "another\n").unwrap();
    folder
}

fn backstay(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstay"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap()
}

/// Stock restic's word on every byte of the folder's repository, which is `repo`.
fn judge(folder: &Path) {
    let output = Command::new("restic")
        .args(["-r", "repo", "--password-file", "password", "--no-cache", "check", "--read-data"])
        .current_dir(folder)
        .output()
        .expect("restic is installed: tools/install-deps test");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("standard output is not one JSON value: {error}\n{}\n{}", text(&output.stdout), text(&output.stderr))
    })
}

#[test]
fn a_log_file_and_json_do_not_share_standard_output() {
    let folder = folder();
    let output = backstay(folder.path(), &["log", "fetch", "shop", "000000010000000000000001", "-", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let error = &json(&output)["error"];
    assert_eq!(error["message"], "failed to fetch to standard output: with --json the result goes there");
}

#[test]
fn what_is_wrong_has_one_line_and_its_exit_code() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("broken.toml"), "[targets.shop]\nenigne = 1\n").unwrap();
    let table: &[(&[&str], i32, &str)] = &[
        (&["nonsense"], 2, "backstay: unrecognized subcommand 'nonsense'"),
        (&["inspect"], 2, "backstay: the following required arguments were not provided: <TARGET>"),
        (&["inspect", "shpo"], 2, "backstay: failed to find target `shpo` in backstay.toml, did you mean `shop`?"),
        (
            &["repo", "check", "man"],
            2,
            "backstay: failed to find repository `man` in backstay.toml, did you mean `main`?",
        ),
        (
            &["--config", "absent.toml", "window", "shop"],
            2,
            "backstay: failed to read the configuration: absent.toml: No such file or directory (os error 2)",
        ),
        (
            &["--config", "broken.toml", "window", "shop"],
            2,
            "backstay: failed to read the configuration: broken.toml:2:1: unknown key `enigne` in [targets.shop], did you mean `engine`?",
        ),
        (
            &["restore", "shop", "--into", "x", "--to", "yesterday"],
            2,
            "backstay: invalid value 'yesterday' for '--to <WHERE>': write latest, backup-end, time:RFC3339, position:P, xid:N or name:S",
        ),
        (
            &["restore", "shop", "--into", "x", "--exclusive"],
            2,
            "backstay: failed to restore: --exclusive needs a place to stop at",
        ),
        (&["init"], 2, "backstay: failed to write backstay.toml: File exists (os error 17)"),
    ];
    for (arguments, code, first_line) in table {
        let output = backstay(path, arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().next().unwrap_or_default(), *first_line, "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to standard output");

        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = backstay(path, &with_json);
        assert_eq!(output.status.code(), Some(*code), "{with_json:?}");
        let error = &json(&output)["error"];
        assert_eq!(error["exit-code"], *code, "{with_json:?}");
        assert_eq!(error["kind"], "usage", "{with_json:?}");
        let message = first_line.trim_start_matches("backstay: ");
        assert_eq!(error["message"], message, "{with_json:?}");
    }
}

#[test]
fn help_names_every_exit_code_and_the_version_is_printed() {
    let folder = folder();
    let help = backstay(folder.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for code in ["0  done", "1  failed", "2  usage", "3  target", "4  outside", "5  repository"] {
        assert!(text(&help.stdout).contains(code), "--help lacks {code:?}");
    }
    let version = backstay(folder.path(), &["--version"]);
    assert_eq!(text(&version.stdout), format!("backstay {}\n", env!("CARGO_PKG_VERSION")));
    assert!(!text(&help.stdout).contains("  job "), "the hidden command is shown");
}

#[test]
fn completions_are_there_for_every_shell() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = backstay(folder.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("backstay"), "{shell}");
    }
    assert_eq!(json(&backstay(folder.path(), &["--json", "completions", "bash"]))["shell"], "bash");
}

#[test]
fn the_example_that_init_writes_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let output = backstay(folder.path(), &["--json", "init", "there.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["file"], "there.toml");
    // The file is right when the complaint is about a target and not about the file.
    let output = backstay(folder.path(), &["--config", "there.toml", "window", "other"]);
    assert!(text(&output.stderr).contains("failed to find target `other`"), "{}", text(&output.stderr));
}

#[test]
fn a_repository_is_made_once_checked_and_unlocked() {
    let folder = folder();
    let path = folder.path();
    let missing = backstay(path, &["repo", "check", "main"]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    assert!(
        text(&missing.stderr).contains("hint: make it with `backstay repo init main`"),
        "{}",
        text(&missing.stderr)
    );

    let made = backstay(path, &["--json", "repo", "init", "main"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert_eq!(json(&made)["repository"], "main");
    let again = backstay(path, &["repo", "init", "main"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));

    for arguments in [&["--json", "repo", "check", "main"][..], &["--json", "repo", "check", "main", "--read-data"]] {
        let checked = backstay(path, arguments);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        assert_eq!(json(&checked)["problems"], serde_json::json!([]));
    }
    assert_eq!(backstay(path, &["repo", "unlock", "main"]).status.code(), Some(0));
    // One that nobody can read: only --remove-all takes it, and a dry run does not.
    let lock = path.join("repo/locks").join("ab".repeat(32));
    fs::write(&lock, "no lock").unwrap();
    let planned = backstay(path, &["--json", "repo", "unlock", "main", "--remove-all", "--dry-run"]);
    assert_eq!((&json(&planned)["removed"], lock.exists()), (&serde_json::json!(1), true), "{}", text(&planned.stderr));
    let removed = backstay(path, &["--json", "repo", "unlock", "main", "--remove-all"]);
    assert_eq!(
        (&json(&removed)["removed"], lock.exists()),
        (&serde_json::json!(1), false),
        "{}",
        text(&removed.stderr)
    );
    assert_eq!(json(&backstay(path, &["--json", "backups", "shop"])), serde_json::json!([]));
    assert_eq!(json(&backstay(path, &["--json", "window", "shop"])), serde_json::json!([]));
    let unknown = backstay(path, &["backups", "show", "abcd"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", text(&unknown.stderr));
    judge(path);
}

#[test]
fn passwords_are_added_listed_and_removed() {
    let folder = folder();
    let path = folder.path();
    assert_eq!(backstay(path, &["repo", "init", "main"]).status.code(), Some(0));
    let added = backstay(path, &["--json", "repo", "key", "add", "main", "--new-password-file", "other-password"]);
    assert_eq!(added.status.code(), Some(0), "{}", text(&added.stderr));
    let new_key = json(&added)["id"].as_str().unwrap().to_owned();
    let keys = json(&backstay(path, &["--json", "repo", "key", "list", "main"]));
    assert_eq!(keys.as_array().unwrap().len(), 2);
    let current = keys.as_array().unwrap().iter().find(|key| key["current"] == true).unwrap();
    let old_key = current["id"].as_str().unwrap().to_owned();
    assert_ne!(old_key, new_key);

    let own = backstay(path, &["repo", "key", "remove", "main", &old_key[..16]]);
    assert_ne!(own.status.code(), Some(0), "the key in use was removed");

    fs::write(path.join("password"), "another").unwrap();
    let planned = backstay(path, &["--json", "repo", "key", "remove", "main", &old_key[..16], "--dry-run"]);
    assert_eq!(json(&planned), serde_json::json!({ "id": old_key, "dry-run": true }));
    let keys = json(&backstay(path, &["--json", "repo", "key", "list", "main"]));
    assert_eq!(keys.as_array().unwrap().len(), 2, "a dry run removes nothing");
    let removed = backstay(path, &["repo", "key", "remove", "main", &old_key[..16]]);
    assert_eq!(removed.status.code(), Some(0), "{}", text(&removed.stderr));
    judge(path);

    fs::write(path.join("password"), "secret").unwrap();
    let refused = backstay(path, &["repo", "check", "main"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(!text(&refused.stderr).contains("secret"), "the password is in the message");
}

#[test]
fn a_password_everybody_can_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let password = folder.path().join("password");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let warned = backstay(folder.path(), &["repo", "init", "main"]);
    assert!(text(&warned.stderr).contains("chmod 600"), "{}", text(&warned.stderr));
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let fine = backstay(folder.path(), &["repo", "check", "main"]);
    assert!(fine.stderr.is_empty(), "{}", text(&fine.stderr));
    judge(folder.path());
}

#[test]
fn no_plugin_is_a_complaint_that_says_where_was_looked() {
    let folder = folder();
    let listed = backstay(folder.path(), &["--json", "plugin", "list", "--plugin-dir", "nowhere"]);
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
    let shown = backstay(folder.path(), &["plugin", "show", "no-such-engine"]);
    assert_eq!(shown.status.code(), Some(2), "{}", text(&shown.stderr));
    fs::create_dir(folder.path().join("plugins")).unwrap();
    fs::write(folder.path().join("plugins/broken.wasm"), "this is not wasm").unwrap();
    let listed = json(&backstay(folder.path(), &["--json", "plugin", "list", "--plugin-dir", "plugins"]));
    let broken = listed.as_array().unwrap().iter().find(|plugin| plugin["name"] == "broken").unwrap();
    assert!(broken["refused"].is_string(), "{broken}");
}
