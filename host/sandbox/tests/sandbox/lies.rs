//! Reports that contradict themselves or the contract.

use crate::support::{
    job::{Job, open},
    plugins,
    stores::MemoryBackup,
};
use backstay_sandbox::{RecoveryTarget, RestoreJob, SandboxError};

fn misbehaviour(error: SandboxError) -> String {
    let SandboxError::Misbehaved { plugin, reason } = error else { panic!("not a lie: {error:?}") };
    assert_eq!(plugin, "hostile");
    assert!(reason.chars().all(|c| !c.is_control()), "{reason:?}");
    assert!(reason.len() < 5000, "{} bytes", reason.len());
    reason
}

#[tokio::test]
async fn an_honest_report_is_believed() {
    let plugin = plugins::load("hostile");
    let job = Job::crime("honest");
    plugin.describe(job.context()).await.unwrap();
    plugin.inspect(job.context()).await.unwrap();
    let backup = MemoryBackup::new();
    let report = plugin.backup(job.context(), "crime", "b1", backup.clone()).await.unwrap();
    assert_eq!((report.start.offset, report.end.offset, report.log_from.offset), (100, 200, 100));
    assert_eq!(backup.file("data/file").unwrap(), b"bytes");
}

#[tokio::test]
async fn positions_paths_and_notes_that_do_not_fit_are_refused() {
    let plugin = plugins::load("hostile");
    let cases = [
        ("lie-end-before-start", "before its start"),
        ("lie-epoch-before-start", "before its start"),
        ("lie-log-after-end", "after the backup's end"),
        ("lie-log-other-epoch", "after the backup's end"),
        ("lie-main", "`..` part"),
        ("lie-volume", "empty part"),
        ("lie-volumes", "too many volumes"),
        ("lie-notes", "longer than 1 MiB"),
        ("lie-notes-json", "not JSON"),
    ];
    for (behaviour, words) in cases {
        let told = plugin.backup(Job::crime(behaviour).context(), "crime", "b1", MemoryBackup::new()).await;
        let reason = misbehaviour(told.expect_err(behaviour));
        assert!(reason.contains(words), "{behaviour}: {reason}");
    }
}

#[tokio::test]
async fn a_label_is_cut_to_what_the_contract_allows() {
    let plugin = plugins::load("hostile");
    let report = plugin.backup(Job::crime("lie-label").context(), "crime", "b1", MemoryBackup::new()).await.unwrap();
    assert!(report.start.label.len() <= 1024, "{} bytes", report.start.label.len());
    assert!(report.start.label.chars().all(|c| !c.is_control()));
    let facts = plugin.inspect(Job::crime("facts-label").context()).await.unwrap();
    assert!(facts.tail.unwrap().label.len() <= 1024);
}

#[tokio::test]
async fn a_plugin_is_who_its_file_says() {
    let plugin = plugins::load("hostile");
    let cases = [
        ("rename", "calls itself `innocent`"),
        ("rename-control", "calls itself"),
        ("describe-no-method", "no backup method"),
        ("describe-method-name", "no name for a method"),
        ("describe-schema", "not JSON"),
    ];
    for (behaviour, words) in cases {
        let reason = misbehaviour(plugin.describe(Job::crime(behaviour).context()).await.expect_err(behaviour));
        assert!(reason.contains(words), "{behaviour}: {reason}");
    }
    let described = plugin.describe(Job::crime("describe-huge").context()).await.unwrap();
    assert!(described.summary.len() < 5000);
    let error = plugin.describe(Job::crime("describe-beyond-fuel").context()).await.unwrap_err();
    assert!(matches!(error, SandboxError::Trapped { .. }), "{error:?}");
}

#[tokio::test]
async fn an_inspection_names_the_database_and_keeps_its_measure() {
    let plugin = plugins::load("hostile");
    for behaviour in ["facts-no-identity", "facts-identity"] {
        let reason = misbehaviour(plugin.inspect(Job::crime(behaviour).context()).await.expect_err(behaviour));
        assert!(reason.contains("which database"), "{behaviour}: {reason}");
    }
    let facts = plugin.inspect(Job::crime("facts-huge").context()).await.unwrap();
    assert!(facts.warnings[0].len() < 5000 && facts.warnings[0].chars().all(|c| !c.is_control()));
    let facts = plugin.inspect(Job::crime("facts-many").context()).await.unwrap();
    assert!(facts.warnings.len() <= 4096);
}

#[tokio::test]
async fn what_the_operator_shall_do_next_is_printable() {
    let plugin = plugins::load("hostile");
    let job = || RestoreJob {
        target: RecoveryTarget::Latest,
        inclusive: true,
        epoch: None,
        volumes: Vec::new(),
        delta: false,
    };
    let into = tempfile::tempdir().unwrap();
    for behaviour in ["steps-control", "steps-many"] {
        let crime = Job::crime(behaviour);
        let folder = open(into.path(), true);
        let report = plugin.restore(crime.context(), job(), MemoryBackup::new(), None, folder).await.unwrap();
        assert!(report.next_steps.len() <= 4096);
        assert!(report.next_steps.iter().all(|step| step.chars().all(|c| !c.is_control())));
    }
}
