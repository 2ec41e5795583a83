//! Shares as people keep them: a text file with line and words, a QR code as PNG or on the terminal, a sheet to print. Each of
//! these can be read back; a set of shares counts only once that was done.

mod pdf;
mod qr;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use super::share::{Share, ShareOf, push_hex};
use crate::ServiceError;
use crate::files::{read_secret_bytes, write_secret_new};

/// Words in a row on paper.
const WORDS_IN_ROW: usize = 4;
/// Longest file that a share is looked for in: a scanned sheet is larger than what we write.
const FILE_LEN_MAX: usize = 16 << 20;

/// A form in which a share is written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.txt`: the line and the words.
    Text,
    /// `.png`: a QR code of the line.
    Png,
    /// `.pdf`: one page A4 with the words, a QR code and what both are.
    Pdf,
}

impl Form {
    fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Png => "png",
            Self::Pdf => "pdf",
        }
    }
}

impl FromStr for Form {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        match text {
            "text" => Ok(Self::Text),
            "png" => Ok(Self::Png),
            "pdf" => Ok(Self::Pdf),
            _ => Err(ServiceError::Share("a share is written as text, png or pdf")),
        }
    }
}

/// A share and whose it is, ready to be written down.
pub struct Sheet<'a> {
    share: &'a Share,
    owner: &'a str,
}

impl std::fmt::Debug for Sheet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sheet({}, redacted)", self.owner)
    }
}

impl<'a> Sheet<'a> {
    /// `owner` is the name of the keyset, or the address of the service that is unlocked.
    #[must_use]
    pub fn new(share: &'a Share, owner: &'a str) -> Self {
        Self { share, owner }
    }

    /// The file's name without its ending.
    #[must_use]
    pub fn stem(&self) -> String {
        match self.share.of {
            ShareOf::Root { version, .. } => format!("{}-v{version}-share-{}", self.owner, self.share.index),
            // Sets follow one another, and their files must not be mixed up.
            ShareOf::Unlock => {
                format!("unlock-{}-share-{}", hex_text(&self.share.set[..4]), self.share.index)
            }
        }
    }

    /// What it is, in one line.
    #[must_use]
    pub fn title(&self) -> String {
        let Share { index, count, .. } = self.share;
        match self.share.of {
            ShareOf::Root { .. } => format!("Claviger recovery share {index} of {count}"),
            ShareOf::Unlock => format!("Claviger unlock share {index} of {count}"),
        }
    }

    /// What it is good for, in lines of at most 90 characters.
    fn purpose(&self) -> Vec<String> {
        let Share { threshold, count, .. } = self.share;
        match self.share.of {
            ShareOf::Root { .. } => vec![
                format!(
                    "Any {threshold} of these {count} shares open everything that this keyset version ever sealed,"
                ),
                "without the key service, its database or its passphrase.".to_owned(),
                "Keep each with another person, offline. Alone it is worth nothing.".to_owned(),
            ],
            ShareOf::Unlock => vec![
                format!("Any {threshold} of these {count} shares unlock the key service after a start."),
                "They open nothing without its database, and are no recovery shares.".to_owned(),
                "Keep each with another person, offline. Alone it is worth nothing.".to_owned(),
            ],
        }
    }

    /// What stands on the share beside its value; nothing secret.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let share = self.share;
        let mut fields = Vec::new();
        match share.of {
            ShareOf::Root { keyset_id, version } => {
                fields.push(("keyset", self.owner.to_owned()));
                fields.push(("keyset id", keyset_id.to_string()));
                fields.push(("version", version.to_string()));
            }
            ShareOf::Unlock => fields.push(("service", self.owner.to_owned())),
        }
        fields.push(("share", format!("{} of {}", share.index, share.count)));
        fields.push(("needed", share.threshold.to_string()));
        fields.push(("set", hex_text(&share.set)));
        match share.of {
            ShareOf::Root { .. } => fields.push(("root", hex_text(&share.fingerprint))),
            ShareOf::Unlock => fields.push(("key", hex_text(&share.fingerprint))),
        }
        fields.push(("check", share.check_digits()));
        fields
    }

    /// The words, numbered, in rows.
    #[must_use]
    pub fn word_rows(&self) -> Vec<Zeroizing<String>> {
        let numbered: Vec<_> = (1..).zip(self.share.to_words()).collect();
        let row = |words: &[(i32, &str)]| {
            let cells: Vec<String> =
                words.iter().map(|(number, word)| format!("{number:>2} {word:<8}")).collect();
            Zeroizing::new(cells.join("  "))
        };
        numbered.chunks(WORDS_IN_ROW).map(row).collect()
    }

    /// A text for people and for reading back: what it is, the line, the words.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(4096));
        let mut add = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        add(&format!("# {}", self.title()));
        self.purpose().iter().for_each(|line| add(&format!("# {line}")));
        self.fields().iter().for_each(|(name, value)| add(&format!("# {name:<9}  {value}")));
        add(&self.share.to_line());
        add("# The same as words; type these if there is nothing that reads the line or its QR code.");
        self.word_rows().iter().for_each(|row| add(row));
        text
    }

    /// The line's QR code in black on white for a terminal with at least 70 columns.
    ///
    /// # Errors
    /// [`ServiceError::Share`] if the code can't be made.
    pub fn terminal(&self) -> Result<Zeroizing<String>, ServiceError> {
        Ok(qr::Code::of(self.share)?.terminal())
    }

    fn bytes(&self, form: Form) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
        match form {
            Form::Text => Ok(Zeroizing::new(self.text().as_bytes().to_vec())),
            Form::Png => qr::Code::of(self.share)?.png(&self.title()),
            Form::Pdf => pdf::page(self, &qr::Code::of(self.share)?),
        }
    }

    /// Writes the share in these forms, a new file each with mode 0600, and reads each back: what lies there is the share.
    ///
    /// # Errors
    /// [`ServiceError::Io`], also if a file exists; [`ServiceError::Share`] if what was written does not read back.
    pub fn write(&self, folder: &Path, forms: &[Form]) -> Result<Vec<PathBuf>, ServiceError> {
        let mut paths = Vec::new();
        for form in forms {
            let path = folder.join(format!("{}.{}", self.stem(), form.extension()));
            write_secret_new(&path, &self.bytes(*form)?)?;
            if *load(&path)?.to_line() != *self.share.to_line() {
                return Err(ServiceError::Share("a file does not read back as what was written to it"));
            }
            paths.push(path);
        }
        Ok(paths)
    }
}

/// Reads a share from a file of any form: text, PNG with a QR code, or a PDF that was written here.
///
/// # Errors
/// [`ServiceError::LooseMode`] if others can read it; [`ServiceError::Share`], [`ServiceError::ShareWord`], [`ServiceError::Io`].
pub fn load(path: &Path) -> Result<Share, ServiceError> {
    read(&read_secret_bytes(path, FILE_LEN_MAX)?)
}

/// The same from a file's content.
///
/// # Errors
/// [`ServiceError::Share`], [`ServiceError::ShareWord`].
pub fn read(content: &[u8]) -> Result<Share, ServiceError> {
    if content.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Share::parse(&qr::read_png(content)?);
    }
    if content.starts_with(b"%PDF-") {
        return Share::parse(&pdf::words(content)?);
    }
    let text =
        std::str::from_utf8(content).map_err(|_| ServiceError::Share("neither text nor PNG nor PDF"))?;
    Share::parse(text)
}

pub(super) fn hex_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    push_hex(&mut text, bytes);
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::custody::share::tests::example;

    #[test]
    fn every_form_reads_back_and_names_the_set() {
        let folder = tempfile::tempdir().unwrap();
        let share = example();
        let sheet = Sheet::new(&share, "default");
        let paths = sheet.write(folder.path(), &[Form::Text, Form::Png, Form::Pdf]).unwrap();
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["default-v3-share-2.txt", "default-v3-share-2.png", "default-v3-share-2.pdf"]);
        for path in &paths {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(*load(path).unwrap().to_line(), *share.to_line());
        }
        let text = sheet.text();
        for part in
            ["set        0102030405060708", "root       abababab", "needed     3", "share      2 of 5"]
        {
            assert!(text.contains(part), "{part} in {}", *text);
        }
        assert!(text.contains(&format!("check      {}", share.check_digits())));
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let share = example();
        let sheet = Sheet::new(&share, "default");
        sheet.write(folder.path(), &[Form::Png]).unwrap();
        assert!(matches!(sheet.write(folder.path(), &[Form::Png]), Err(ServiceError::Io { .. })));
    }

    #[test]
    fn a_share_that_others_can_read_is_refused_in_every_form() {
        let folder = tempfile::tempdir().unwrap();
        let share = example();
        let paths = Sheet::new(&share, "default").write(folder.path(), &[Form::Text, Form::Png, Form::Pdf]);
        for path in paths.unwrap() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(load(&path), Err(ServiceError::LooseMode { .. })));
        }
    }

    #[test]
    fn damaged_pictures_and_foreign_pages_are_no_shares_and_harm_nothing() {
        let share = example();
        let sheet = Sheet::new(&share, "default");
        for form in [Form::Png, Form::Pdf] {
            let bytes = sheet.bytes(form).unwrap();
            for len in (0..bytes.len()).step_by(97) {
                match read(&bytes[..len]) {
                    // What is cut off may be the end of the file after the last word.
                    Ok(read) => assert_eq!(*read.to_line(), *share.to_line()),
                    Err(error) => assert!(matches!(error, ServiceError::Share(_)), "{error}"),
                }
            }
        }
        assert!(read(b"%PDF-1.7\nsomething else").is_err());
    }
}
