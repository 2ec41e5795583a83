//! Wrapping the master with a method, and proving at once that the wrap opens: what was written is read back.

use std::path::{Path, PathBuf};

use claviger_format::Random;
use claviger_keyapi::wire::Blob;

use super::hsm::{self, HsmConfig};
use super::{Wrap, passphrase, quorum};
use crate::ServiceError;
use crate::custody::paper::{self, Form, Sheet};
use crate::files::{private_folder, read_secret, write_secret_new};

/// How a master is to be unlocked.
#[derive(Debug, Clone)]
pub enum Method {
    /// A passphrase is generated and written to a new file.
    Passphrase {
        /// The file.
        file: PathBuf,
    },
    /// A key is split, and its shares are written to a folder.
    Quorum {
        /// Shares to make.
        shares: u8,
        /// How many of them unlock.
        threshold: u8,
        /// Folder for them; made with mode 0700. To be emptied by hand.
        dir: PathBuf,
        /// How they are written; at least one form.
        forms: Vec<Form>,
    },
    /// A key in an HSM, which has to be there already.
    Pkcs11(HsmConfig),
}

/// Wraps the master; returns the wrap and the files that were written. `service` is the address that stands on shares.
///
/// # Errors
/// [`ServiceError`] if anything can't be written, read back, or does not open what it wrapped.
pub(crate) fn establish(
    method: &Method,
    master: &[u8; 32],
    service: &str,
    random: &dyn Random,
) -> Result<(Wrap, Vec<PathBuf>), ServiceError> {
    match method {
        Method::Passphrase { file } => by_passphrase(file, master, random),
        Method::Quorum { shares, threshold, dir, forms } => {
            by_quorum((*threshold, *shares), (dir, forms), master, service, random)
        }
        Method::Pkcs11(config) => {
            let wrapped = hsm::wrap(config, master, random)?;
            proved(master, &*hsm::unwrap(config, &wrapped)?)?;
            Ok((Wrap::Pkcs11(wrapped), Vec::new()))
        }
    }
}

fn by_passphrase(
    file: &Path,
    master: &[u8; 32],
    random: &dyn Random,
) -> Result<(Wrap, Vec<PathBuf>), ServiceError> {
    let text = passphrase::generate(random)?;
    let wrapped = passphrase::wrap(master, &text, random)?;
    write_secret_new(file, format!("{}\n", *text).as_bytes())?;
    proved(master, &*passphrase::unwrap(&wrapped, &read_secret(file)?)?)?;
    Ok((Wrap::Passphrase { wrapped: Blob(wrapped) }, vec![file.to_owned()]))
}

fn by_quorum(
    threshold_and_count: (u8, u8),
    (dir, forms): (&Path, &[Form]),
    master: &[u8; 32],
    service: &str,
    random: &dyn Random,
) -> Result<(Wrap, Vec<PathBuf>), ServiceError> {
    if forms.is_empty() {
        return Err(ServiceError::Share("they have to be written in at least one form"));
    }
    let (wrap, shares) = quorum::wrap(master, threshold_and_count, random)?;
    private_folder(dir)?;
    let mut files = Vec::new();
    for form in forms {
        let mut written = Vec::new();
        for share in &shares {
            written.extend(Sheet::new(share, service).write(dir, &[*form])?);
        }
        let read_back = written.iter().map(|path| paper::load(path)).collect::<Result<Vec<_>, _>>()?;
        let quorum = read_back.get(..usize::from(wrap.threshold)).ok_or(ServiceError::Share("too few"))?;
        // All of them agree only if each lies on the same polynomial; a bare quorum must do as well.
        for together in [read_back.as_slice(), quorum] {
            proved(master, &*wrap.unwrap(together)?)?;
        }
        files.append(&mut written);
    }
    Ok((Wrap::Quorum(wrap), files))
}

fn proved(master: &[u8; 32], opened: &[u8; 32]) -> Result<(), ServiceError> {
    use subtle::ConstantTimeEq as _;
    if bool::from(master.ct_eq(opened)) { Ok(()) } else { Err(ServiceError::Damaged("wrapped master")) }
}
