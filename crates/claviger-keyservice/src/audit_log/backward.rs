//! The log's records from the newest to the oldest: whoever wants the end of a log of years reads only that.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::folder::AuditFolder;
use crate::ServiceError;
use crate::files::open_regular;

const CHUNK_LEN: u64 = 1 << 20;

impl AuditFolder {
    /// Hands over every whole line, the newest first, until `take` breaks off. What stands behind the last end of a line is
    /// being written, or was when the service died, and is left out.
    ///
    /// # Errors
    /// [`ServiceError::Io`]; those of `take`.
    pub(crate) fn each_line_backward(
        &self,
        mut take: impl FnMut(&Path, &[u8]) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<(), ServiceError> {
        for file in self.files()?.into_iter().rev() {
            if each_of_file(&file.path, &mut take)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn each_of_file(
    path: &Path,
    take: &mut impl FnMut(&Path, &[u8]) -> Result<ControlFlow<()>, ServiceError>,
) -> Result<ControlFlow<()>, ServiceError> {
    let io = |e| ServiceError::io(path, e);
    let file = open_regular(path).map_err(io)?;
    let mut end = file.metadata().map_err(io)?.len();
    // The beginning of a line whose rest was in the chunk behind; at first what is behind the last line.
    let mut rest = Vec::new();
    let mut seen_an_end = false;
    while end > 0 {
        let start = end.saturating_sub(CHUNK_LEN);
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(&mut bytes, start).map_err(io)?;
        if !seen_an_end {
            let whole_len = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(whole_len);
            seen_an_end = whole_len > 0;
        }
        bytes.append(&mut rest);
        let first = match bytes.iter().position(|byte| *byte == b'\n') {
            _ if start == 0 => 0,
            Some(at) => at + 1,
            None => bytes.len(),
        };
        for line in bytes[first..].split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty()) {
            if take(path, line)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        bytes.truncate(first);
        rest = bytes;
        end = start;
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_line_comes_once_and_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        // Lines of many lengths, so that ends of chunks fall everywhere; and files that are empty or have no whole line.
        let lines: Vec<String> = (0..9_000).map(|n| format!("{n}:{}", "x".repeat(n * 37 % 700))).collect();
        let text =
            |range: std::ops::Range<usize>| lines[range].iter().map(|l| format!("{l}\n")).collect::<String>();
        let put = |first: usize, text: String| {
            std::fs::write(folder.path().join(format!("{first:020}.jsonl")), text).unwrap();
        };
        put(0, text(0..8_000));
        put(8_000, text(8_000..8_001));
        put(8_001, String::new());
        put(8_002, text(8_001..9_000) + "9000:unfinis");
        assert!(text(0..8_000).len() as u64 > 2 * CHUNK_LEN);
        let mut found = Vec::new();
        let audit = AuditFolder::new(folder.path());
        audit
            .each_line_backward(|_, line| {
                found.push(String::from_utf8(line.to_vec()).unwrap());
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        found.reverse();
        assert!(found == lines);
        let mut count = 0;
        audit
            .each_line_backward(|_, _| {
                count += 1;
                Ok(if count == 1_500 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .unwrap();
        assert_eq!(count, 1_500);
    }

    #[test]
    fn a_file_with_nothing_but_a_long_unfinished_line_has_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let long = "y".repeat(2 * usize::try_from(CHUNK_LEN).unwrap() + 5);
        std::fs::write(folder.path().join(format!("{:020}.jsonl", 0)), long).unwrap();
        let take = |_: &Path, _: &[u8]| panic!("there is no line");
        AuditFolder::new(folder.path()).each_line_backward(take).unwrap();
    }
}
