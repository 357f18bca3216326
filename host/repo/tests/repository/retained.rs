//! Stores that keep what they have for a while: all works but removal, which waits.

use crate::stock::*;
use async_trait::async_trait;
use backstay_core::BackupId;
use backstay_repo::*;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, path::Path,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A folder whose store refuses to remove what it is told to keep.
#[derive(Debug)]
struct Keeper {
    files: Arc<dyn ObjectStore>,
    /// What the names of objects that stay begin with; nothing: nothing stays.
    keeps: Mutex<Option<&'static str>>,
}

impl std::fmt::Display for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keeper({})", self.files)
    }
}

#[async_trait]
impl ObjectStore for Keeper {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let keeps = *self.keeps.lock().unwrap();
        let refuse = move |location: object_store::Result<Path>| {
            let location = location?;
            if keeps.is_some_and(|keeps| location.as_ref().starts_with(keeps)) {
                let source = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>Access \
                              Denied because object protected by object lock.</Message></Error>"
                    .into();
                return Err(Error::PermissionDenied { path: location.to_string(), source });
            }
            Ok(location)
        };
        self.files.delete_stream(locations.map(refuse).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

/// Two backups, the first of them forgotten; the second shares half of it.
struct Kept {
    bench: Bench,
    /// The same repository behind the keeper.
    repository: Repository,
    keeper: Arc<Keeper>,
    backups: [BackupId; 2],
}

const HOUR: Duration = Duration::from_secs(60 * 60);

impl Kept {
    /// `retention` is what is said of the store; it keeps what it is told to.
    async fn new(retention: Option<Duration>) -> Self {
        let bench = Bench::new().await;
        let mut backups = Vec::new();
        for seeds in [[1, 2, 3, 4], [1, 2, 5, 6]] {
            let chunking = Chunking::Fixed { bytes: 64 << 10 };
            let options = BackupOptions { pack_bytes: 1 << 20, chunking, ..BackupOptions::default() };
            let session = bench.repository.backup(options).await.unwrap();
            let content: Vec<u8> = seeds.iter().flat_map(|seed| noise(*seed, 64 << 10)).collect();
            session.put_file(&path("a"), attributes(), body(&content, 70_000)).await.unwrap();
            backups.push(session.commit(meta()).await.unwrap().id);
        }
        let files = Arc::clone(bench.repository.store().object_store());
        let keeper = Arc::new(Keeper { files, keeps: Mutex::default() });
        let objects: Arc<dyn ObjectStore> = Arc::clone(&keeper) as _;
        let mut store = Store::from_object_store(objects, "keeper");
        if let Some(retention) = retention {
            store = store.with_retention(retention);
        }
        let repository = Repository::open(store, &Password::new(PASSWORD)).await.unwrap();
        Self { bench, repository, keeper, backups: backups.try_into().unwrap() }
    }

    async fn forget_first(&self) -> Vec<BackupId> {
        self.repository.forget(std::slice::from_ref(&self.backups[0]), &[]).await.unwrap()
    }

    async fn prune(&self) -> (PrunePlan, PruneReport) {
        // Nothing unused is left: every pack that holds some is copied.
        prune(&self.repository, &PruneOptions { unused_percent_max: 0.0, ..PruneOptions::default() }).await
    }

    /// Everything a backup needs is there, as stock restic sees it.
    async fn assert_sound(&self) {
        self.bench.assert_sound().await;
        let reader = self.repository.open_snapshot(&self.backups[1]).await.unwrap();
        let content: Vec<u8> = [1, 2, 5, 6].iter().flat_map(|seed| noise(*seed, 64 << 10)).collect();
        assert_eq!(reader.read_all(&path("a"), 1 << 30).await.unwrap(), content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_young_to_go_is_not_even_tried() {
    let kept = Kept::new(Some(HOUR)).await;
    let young = kept.repository.retained_backups().await.unwrap();
    assert_eq!(young.keys().collect::<Vec<_>>().len(), 2, "both are young: {young:?}");
    // Somebody who may removes the snapshot; what it alone had waits all the same.
    kept.bench.repository.forget(std::slice::from_ref(&kept.backups[0]), &[]).await.unwrap();
    let (plan, report) = kept.prune().await;
    assert!(plan.is_empty() && report.packs_removed == 0, "{plan:?}");
    assert!(
        !plan.waiting.packs.is_empty() && plan.waiting.until > Some(std::time::SystemTime::now().into()),
        "{plan:?}"
    );
    assert!(plan.unused_bytes_left > 0, "half of a pack is unused: {plan:?}");
    kept.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_enough_goes() {
    let kept = Kept::new(Some(Duration::ZERO)).await;
    assert!(kept.repository.retained_backups().await.unwrap().is_empty());
    assert!(kept.forget_first().await.is_empty());
    let (plan, report) = kept.prune().await;
    assert!(plan.waiting.packs.is_empty() && report.packs_removed > 0 && report.refused == 0, "{plan:?} {report:?}");
    kept.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_of_an_index_file_that_stays_stay_too() {
    let kept = Kept::new(None).await;
    assert!(kept.forget_first().await.is_empty());
    *kept.keeper.keeps.lock().unwrap() = Some("index");
    let (plan, report) = kept.prune().await;
    assert!(!plan.is_empty());
    assert_eq!((report.packs_removed, report.index_files_replaced), (0, 0), "{report:?}");
    assert_eq!(report.refused, plan.index_files.len() as u64);
    kept.assert_sound().await;
    // The time is over.
    *kept.keeper.keeps.lock().unwrap() = None;
    let (_, report) = kept.prune().await;
    assert!(report.packs_removed > 0 && report.refused == 0, "{report:?}");
    kept.assert_sound().await;
    let out = kept.bench.restic(&["check"]);
    assert!(!out.contains("not referenced"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_stay_go_with_a_later_prune() {
    let kept = Kept::new(None).await;
    assert!(kept.forget_first().await.is_empty());
    *kept.keeper.keeps.lock().unwrap() = Some("data");
    let (plan, report) = kept.prune().await;
    assert_eq!((report.packs_removed, report.bytes_removed), (0, 0), "{report:?}");
    assert_eq!(report.refused, plan.packs_removed());
    kept.assert_sound().await;
    *kept.keeper.keeps.lock().unwrap() = None;
    let (plan, report) = kept.prune().await;
    assert_eq!(plan.unreferenced.len() as u64, report.packs_removed, "{plan:?}");
    kept.assert_sound().await;
    assert!(kept.prune().await.0.is_empty(), "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_the_store_keeps_stays_and_is_told() {
    let kept = Kept::new(None).await;
    *kept.keeper.keeps.lock().unwrap() = Some("snapshots");
    assert_eq!(kept.forget_first().await, [kept.backups[0].clone()]);
    assert!(kept.prune().await.0.unused.is_empty(), "its packs are in use");
    *kept.keeper.keeps.lock().unwrap() = None;
    assert!(kept.forget_first().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_refused_copies_nothing_twice() {
    let kept = Kept::new(None).await;
    let packs = || async { kept.repository.store().list("data").await.unwrap() };
    let rotten = packs().await.into_iter().max_by_key(|pack| pack.bytes).unwrap();
    let place = kept.bench.folder().join(&rotten.key);
    let mut bytes = std::fs::read(&place).unwrap();
    let in_the_header = bytes.len() - 20;
    bytes[in_the_header] ^= 1;
    std::fs::remove_file(&place).unwrap();
    std::fs::write(&place, bytes).unwrap();
    let before = packs().await.len();
    *kept.keeper.keeps.lock().unwrap() = Some("index");
    let repair = || async {
        let options = IndexRepairOptions { read_data: true };
        let repair = IndexRepair::plan(&kept.repository, LockKind::Exclusive, options, |_, _| {}).await.unwrap();
        assert_eq!(repair.summary().rotten_packs.len(), 1);
        repair.perform().await.unwrap()
    };
    // The index file that names the rotten pack stays, so the pack has to.
    for _ in 0..2 {
        // And the one that was written instead, where it comes second: then it says nothing new.
        assert!(repair().await >= 1);
        assert_eq!(packs().await.len(), before + 1);
    }
    *kept.keeper.keeps.lock().unwrap() = None;
    assert_eq!(repair().await, 0);
    assert_eq!(packs().await.len(), before);
    kept.assert_sound().await;
}
