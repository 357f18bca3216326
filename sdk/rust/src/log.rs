//! The log: growing, and being read back.

use crate::{ByteStream, Directory, FileWriter, Position, Result, Segment, Timestamp, platform};

/// The end of a target's log, growing.
pub struct LogWriter(pub(crate) platform::LogWriter);

/// The bytes of one piece on their way.
pub struct PieceWriter(FileWriter);

impl LogWriter {
    /// Says which database this is: must be the first call.
    pub async fn identify(&self, identity: &str) -> Result<()> {
        self.0.identify(identity).await
    }

    /// The end of the last durable piece of the newest epoch.
    pub fn tail(&self) -> Option<Position> {
        self.0.tail()
    }

    /// Starts a piece; durable once [`PieceWriter::finish`] answers ok.
    pub fn append(&self, segment: Segment) -> PieceWriter {
        PieceWriter(FileWriter::new(self.0.append(segment)))
    }

    /// A piece whose bytes are at hand.
    pub async fn append_bytes(&self, segment: Segment, bytes: &[u8]) -> Result<()> {
        let mut piece = self.append(segment);
        piece.write(bytes).await?;
        piece.finish().await
    }

    /// The log is complete up to `at`, and the database's clock showed `when` there.
    pub async fn confirm(&self, at: Position, when: Timestamp) -> Result<()> {
        self.0.confirm(at, when).await
    }

    /// A note: a small file beside the log, durable once this answers ok.
    pub async fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.0.put_note(name, bytes).await
    }
}

impl PieceWriter {
    /// Appends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes).await
    }

    /// Durable once this answers ok.
    pub async fn finish(self) -> Result<()> {
        self.0.finish().await.map(|_bytes| ())
    }
}

/// A stretch of log, oldest piece first.
pub struct LogReader(pub(crate) platform::LogReader);

/// The pieces of a [`LogReader`].
pub struct SegmentStream(pub(crate) platform::SegmentStream);

impl SegmentStream {
    /// The next piece; nothing at a sound end.
    pub async fn next(&mut self) -> Result<Option<Segment>> {
        self.0.next().await
    }
}

impl LogReader {
    /// The pieces, in order.
    pub fn segments(&self) -> SegmentStream {
        SegmentStream(self.0.segments())
    }

    /// Bytes of one epoch from `start` to the end of its last piece.
    pub fn read(&self, start: Position) -> ByteStream {
        ByteStream(self.0.read(start))
    }

    /// The host writes whole log files into a folder, filled up to `file_size` with zeros.
    pub async fn place(&self, into: &Directory, path: &str, file_size: u64) -> Result<u64> {
        self.0.place(&into.0, path, file_size).await
    }

    /// The names of the notes.
    pub async fn notes(&self) -> Result<Vec<String>> {
        self.0.notes().await
    }

    /// One note's bytes.
    pub async fn read_note(&self, name: &str) -> Result<Vec<u8>> {
        self.0.read_note(name).await
    }
}
