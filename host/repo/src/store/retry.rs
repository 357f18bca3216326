//! Trying again, and naming what went wrong.

use crate::limits::{
    LOCAL_ATTEMPTS_MAX, STORE_ATTEMPTS_MAX, STORE_ATTEMPTS_MIN, STORE_BACKOFF_MAX, STORE_BACKOFF_MIN, STORE_DEADLINE,
};
use crate::{RepoError, RepoErrorKind, Result};
use std::{error::Error as StdError, future::Future, time::Duration};
use tokio::time::Instant;

/// How patient a [`super::Store`] is.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts, the first included.
    pub attempts_max: u32,
    /// So many attempts start whatever time they take.
    pub attempts_min: u32,
    /// No other attempt starts after this long.
    pub deadline: Duration,
    /// The first pause; doubles each time.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: STORE_ATTEMPTS_MAX,
            attempts_min: STORE_ATTEMPTS_MIN,
            deadline: STORE_DEADLINE,
            backoff_min: STORE_BACKOFF_MIN,
            backoff_max: STORE_BACKOFF_MAX,
        }
    }
}

impl RetryPolicy {
    /// Runs `attempt` until it succeeds, fails for good, or patience ends. `what` completes
    /// "failed to …".
    pub(super) async fn run<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            tries += 1;
            let (kind, local) = classify(&error);
            let tries_max = if local { self.attempts_max.min(LOCAL_ATTEMPTS_MAX) } else { self.attempts_max };
            let pause = self.pause(tries);
            let late = tries >= self.attempts_min && started.elapsed() + pause > self.deadline;
            let over = tries >= tries_max || late;
            if kind != RepoErrorKind::Unreachable || over {
                // An unnamed error of a local disk that came twice is there to stay.
                let kind = if local && kind == RepoErrorKind::Unreachable { RepoErrorKind::Store } else { kind };
                return Err(named(kind, what, error));
            }
            tracing::debug!(what, tries, %error, "store operation failed, trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Between half and all of the doubled pause, so that clients do not march in step.
    fn pause(&self, tries: u32) -> Duration {
        let full = self.backoff_min.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(self.backoff_max);
        let mut random = [0; 2];
        crate::crypto::random_bytes(&mut random);
        full.mul_f64(0.5 + f64::from(u16::from_le_bytes(random)) / 131_072.0)
    }
}

/// The kind of a store's error, and whether the local file system raised it.
fn classify(error: &object_store::Error) -> (RepoErrorKind, bool) {
    use object_store::Error as E;
    let io = io_cause(error);
    // Memory fails by no network either.
    let local = matches!(error, E::Generic { store: "LocalFileSystem" | "InMemory", .. });
    let kind = match error {
        // Amazon's way to say that two writers of one name met, and that neither has it yet.
        E::AlreadyExists { source, .. } if source.to_string().contains("ConditionalRequestConflict") => {
            RepoErrorKind::Unreachable
        }
        E::NotFound { .. } => RepoErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } => RepoErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => RepoErrorKind::Denied,
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => RepoErrorKind::InvalidConfig,
        E::NotSupported { .. } | E::NotImplemented { .. } | E::NotModified { .. } => RepoErrorKind::Store,
        _ => match io {
            Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => RepoErrorKind::Full,
            Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => {
                RepoErrorKind::Denied
            }
            Some(std::io::ErrorKind::NotADirectory | std::io::ErrorKind::IsADirectory) if local => RepoErrorKind::Store,
            _ if is_refusal(&error.to_string()) => RepoErrorKind::Store,
            _ => RepoErrorKind::Unreachable,
        },
    };
    (kind, local)
}

/// Whether a server answered 4xx, other than "too slow", "conflict, try again", "locked" and "slow down".
fn is_refusal(text: &str) -> bool {
    let Some(answer) = answer(text) else { return false };
    // Amazon's way to say "too slow" is a 400.
    let is_passing = matches!(answer.get(..3), Some("408" | "409" | "423" | "429"))
        || element(answer, "Code") == Some("RequestTimeout");
    answer.starts_with('4') && !is_passing
}

/// What the server answered, status first. It is in the text alone: object_store keeps its type to itself.
fn answer(text: &str) -> Option<&str> {
    text.split("status code: ").nth(1)
}

/// What an answer in XML says under this name.
fn element<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.split(&format!("<{name}>")).nth(1)?.split(&format!("</{name}>")).next()
}

/// Whether a store's refusal says that the object is kept: S3 Object Lock and its likes, a bucket's retention policy
/// (Google), an immutable container (Azure).
pub(super) fn speaks_of_retention(text: &str) -> bool {
    // Its code and its message, and not the names of bucket and key, which stand beside them.
    let Some(answer) = answer(text) else { return false };
    let said =
        [element(answer, "Code"), element(answer, "Message")].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let text = said.to_ascii_lowercase();
    ["object lock", "objectlock", "worm", "retention", "immutab", "legal hold", "legalhold"]
        .iter()
        .any(|word| text.contains(word))
}

/// The kind of the first I/O error in the chain of causes.
fn io_cause(error: &(dyn StdError + 'static)) -> Option<std::io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

fn named(kind: RepoErrorKind, what: &str, error: object_store::Error) -> RepoError {
    let named = RepoError::new(kind, format!("failed to {what}")).because(error);
    match kind {
        RepoErrorKind::Full => named.advise("free some space on the store"),
        RepoErrorKind::Denied => named.advise("check the store's credentials and permissions"),
        RepoErrorKind::Unreachable => named.advise("check the store's address and that it answers"),
        _ => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_what_may_pass() {
        let text =
            |status| format!("Error performing GET http://x - Server returned non-2xx status code: {status}: body");
        assert!(is_refusal(&text("400 Bad Request")));
        for passing in ["429 Too Many Requests", "503 Slow Down", "408 Request Timeout", "409 Conflict"] {
            assert!(!is_refusal(&text(passing)), "{passing}");
        }
        assert!(!is_refusal("connection reset"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_amazon_calls_a_slow_upload_is_tried_again() {
        let answer = |code: &str| {
            let text = format!(
                "Error performing PUT http://h/b/data/RequestTimeout - Server returned non-2xx status code: 400 Bad \
                 Request: <Error><Code>{code}</Code><Message>Your socket connection to the server was not read from or \
                 written to within the timeout period.</Message></Error>"
            );
            object_store::Error::Generic { store: "S3", source: text.into() }
        };
        for (code, wanted) in [("RequestTimeout", (Ok(()), 2)), ("EntityTooLarge", (Err(RepoErrorKind::Store), 1))] {
            let (policy, mut tries) = (RetryPolicy::default(), 0);
            let done = policy.run("write x", || {
                tries += 1;
                std::future::ready(if tries == 1 { Err(answer(code)) } else { Ok(()) })
            });
            assert_eq!((done.await.map_err(|error| error.kind()), tries), wanted, "{code}");
        }
    }

    #[test]
    fn a_promise_to_keep_is_told_from_a_lack_of_permission() {
        let text = |code: &str, message: &str| {
            format!(
                "Error performing DELETE http://h/immutable-backups/logs/bookworm - Server returned non-2xx status code: \
                 403 Forbidden: <Error><Code>{code}</Code><Message>{message}</Message><Key>logs/bookworm</Key></Error>"
            )
        };
        assert!(speaks_of_retention(&text("AccessDenied", "Access Denied because object protected by object lock.")));
        assert!(speaks_of_retention(&text("BlobImmutableDueToPolicy", "This operation is not permitted.")));
        assert!(!speaks_of_retention(&text("AccessDenied", "Access Denied")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_takes_long_is_tried_again_all_the_same() {
        let (policy, mut tries) = (RetryPolicy::default(), 0);
        let failed = policy.run("write x", || {
            tries += 1;
            async {
                tokio::time::sleep(Duration::from_secs(200)).await;
                object_store::Result::<()>::Err(object_store::Error::Generic { store: "S3", source: "reset".into() })
            }
        });
        assert_eq!(failed.await.err().map(|error| error.kind()), Some(RepoErrorKind::Unreachable));
        assert_eq!(tries, STORE_ATTEMPTS_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn where_another_can_stand_in_one_attempt_may_be_all() {
        let deadline = Duration::from_secs(5);
        let policy = RetryPolicy { attempts_min: 1, deadline, ..RetryPolicy::default() };
        let fail_after = async |takes| {
            let (begun, mut tries) = (Instant::now(), 0);
            let failed = policy.run("look at config", || {
                tries += 1;
                async move {
                    tokio::time::sleep(takes).await;
                    object_store::Result::<()>::Err(object_store::Error::Generic { store: "S3", source: "no".into() })
                }
            });
            assert_eq!(failed.await.err().map(|error| error.kind()), Some(RepoErrorKind::Unreachable));
            (tries, begun.elapsed())
        };
        assert_eq!(fail_after(Duration::from_secs(10)).await, (1, Duration::from_secs(10)), "a black hole");
        let (tries, took) = fail_after(Duration::from_millis(10)).await;
        assert!(tries > 2 && took <= deadline, "{tries} attempts in {took:?}");
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let policy = RetryPolicy { backoff_min: Duration::from_millis(1), ..RetryPolicy::default() };
        let mut tries = 0;
        let value = policy.run("read x", || {
            tries += 1;
            let result = if tries < 4 {
                Err(object_store::Error::Generic { store: "S3", source: "reset".into() })
            } else {
                Ok(tries)
            };
            std::future::ready(result)
        });
        assert_eq!(value.await.ok(), Some(4));
        let mut tries = 0;
        let refused = policy.run("read x", || {
            tries += 1;
            let error = object_store::Error::PermissionDenied { path: "x".into(), source: "no".into() };
            std::future::ready(object_store::Result::<()>::Err(error))
        });
        assert_eq!(refused.await.err().map(|error| error.kind()), Some(RepoErrorKind::Denied));
        assert_eq!(tries, 1);
    }
}
