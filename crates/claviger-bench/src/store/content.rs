//! What is kept of an object: all of it in memory, all of it on disk, or only both ends of each of its parts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes that are read from disk at once.
const PIECE_LEN: u64 = 256 << 10;

/// A piece of an object.
#[derive(Clone)]
enum Run {
    Memory(Bytes),
    File {
        file: Arc<File>,
        at: u64,
        len: u64,
    },
    /// So many bytes that nobody can have back.
    Gone(u64),
}

impl Run {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } | Self::Gone(len) => *len,
        }
    }

    /// `len` bytes from `at` on; none where they are gone.
    fn cut(&self, at: u64, len: u64) -> Option<Self> {
        match self {
            Self::Memory(bytes) => {
                let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
                Some(Self::Memory(bytes.slice(at..at + len)))
            }
            Self::File { file, at: begin, .. } => {
                Some(Self::File { file: Arc::clone(file), at: begin + at, len })
            }
            Self::Gone(_) => None,
        }
    }
}

/// The content of an object, or of a part.
#[derive(Clone, Default)]
pub(super) struct Content {
    runs: Vec<Run>,
    len: u64,
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        let mut content = Self::default();
        content.push(Run::Memory(bytes));
        content
    }
}

impl Content {
    /// All of a file.
    pub(super) fn of_file(file: File, len: u64) -> Self {
        let mut content = Self::default();
        content.push(Run::File { file: Arc::new(file), at: 0, len });
        content
    }

    /// Begin and end of something, and how much between them is gone.
    pub(super) fn of_ends(begin: Bytes, gone_len: u64, end: Bytes) -> Self {
        let mut content = Self::default();
        content.push(Run::Memory(begin));
        content.push(Run::Gone(gone_len));
        content.push(Run::Memory(end));
        content
    }

    fn push(&mut self, run: Run) {
        if run.len() > 0 {
            self.len += run.len();
            self.runs.push(run);
        }
    }

    /// Puts another content behind this one.
    pub(super) fn append(&mut self, other: Self) {
        other.runs.into_iter().for_each(|run| self.push(run));
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The bytes `first` to `last`, if all of them are there.
    pub(super) fn range(&self, first: u64, last: u64) -> Option<Self> {
        let mut cut = Self::default();
        let mut begin = 0;
        for run in &self.runs {
            let end = begin + run.len();
            if first < end && begin <= last {
                let from = first.max(begin);
                cut.push(run.cut(from - begin, end.min(last + 1) - from)?);
            }
            begin = end;
        }
        Some(cut)
    }

    /// As it is sent; none if something of it is gone.
    pub(super) fn to_body(&self) -> Option<Kept> {
        let is_whole = !self.runs.iter().any(|run| matches!(run, Run::Gone(_)));
        is_whole.then(|| Kept { left: self.clone(), next: 0, at: 0 })
    }
}

/// The body of an answer.
pub(super) struct Kept {
    left: Content,
    /// The run that is next, and how much of it has been sent.
    next: usize,
    at: u64,
}

impl Body for Kept {
    type Data = Bytes;
    type Error = io::Error;

    /// What is on disk was just written: it comes from the system's memory, and nobody waits for it.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(run) = self.left.runs.get(self.next) else { return Poll::Ready(None) };
        let run_len = run.len();
        let piece = match run {
            Run::Memory(bytes) => Ok(bytes.clone()),
            Run::File { file, at, len } => read(file, at + self.at, (len - self.at).min(PIECE_LEN)),
            Run::Gone(_) => Err(io::Error::other("not kept")),
        };
        if let Ok(piece) = &piece {
            self.at += piece.len() as u64;
            self.left.len -= piece.len() as u64;
            if self.at == run_len {
                (self.next, self.at) = (self.next + 1, 0);
            }
        }
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left.len == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len)
    }
}

fn read(file: &File, at: u64, len: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(content: &Content) -> Vec<u8> {
        content.to_body().unwrap().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn ranges_go_over_pieces_in_memory_and_on_disk() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"fghij").unwrap();
        let mut content = Content::from(Bytes::from_static(b"abcde"));
        content.append(Content::of_file(file, 5));
        content.append(Bytes::from_static(b"klm").into());
        assert_eq!(content.len(), 13);
        let all = b"abcdefghijklm";
        assert_eq!(text(&content).await, all);
        for first in 0..all.len() {
            for last in first..all.len() {
                let cut = content.range(first as u64, last as u64).unwrap();
                assert_eq!(text(&cut).await, all[first..=last], "{first}-{last}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_gone_is_never_given_and_what_lies_beside_it_is() {
        let ends = Content::of_ends(Bytes::from_static(b"abc"), 10, Bytes::from_static(b"xyz"));
        assert_eq!(ends.len(), 16);
        assert!(ends.to_body().is_none());
        assert!(ends.range(2, 3).is_none() && ends.range(0, 15).is_none() && ends.range(5, 6).is_none());
        assert_eq!(text(&ends.range(0, 2).unwrap()).await, b"abc");
        assert_eq!(text(&ends.range(13, 14).unwrap()).await, b"xy");
    }

    #[tokio::test]
    async fn a_file_is_read_piece_by_piece() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(600 << 10).collect();
        file.write_all(&bytes).unwrap();
        let mut body = Content::of_file(file, bytes.len() as u64).to_body().unwrap();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len() as u64, PIECE_LEN);
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!([first, rest].concat(), bytes);
    }
}
