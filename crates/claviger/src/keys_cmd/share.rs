use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use claviger_keyservice::ServiceError;
use claviger_keyservice::custody::paper::{self, Form, Sheet};
use claviger_keyservice::custody::shamir::{Share, Verdict, verify};
use claviger_keyservice::custody::words;
use claviger_keyservice::files::private_folder;
use zeroize::Zeroizing;

use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    Check(CheckArguments),
    Show(ShowArguments),
    Print(PrintArguments),
}

/// Whether shares are sound and belong together; with enough of them, whether they give their root
///
/// FILE is a text (line or words), a PNG with the QR code, or a PDF that claviger wrote; `-` reads
/// what you type, to the end of input (Ctrl-D). Nothing secret is shown. With enough shares the
/// root is put together for the moment that it takes to compare its fingerprint.
///
/// Exit code 0 if everything that could be checked is right, 1 if something is wrong, or if
/// there are fewer shares than open the root and --some was not given.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckArguments {
    /// The shares
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Fingerprint that the root must have, as `keys keyset list` shows it
    #[arg(long, value_name = "HEX")]
    root: Option<String>,

    /// Content with fewer shares than open the root
    #[arg(long)]
    some: bool,
}

/// Show one share on this terminal: what it is, its words, its QR code
#[derive(clap::Args)]
pub(super) struct ShowArguments {
    /// The share; `-` reads what you type
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Name of the keyset
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyset: String,
}

/// Write one share in another form, to a new file: typed words to a sheet, say
#[derive(clap::Args)]
pub(super) struct PrintArguments {
    /// The share; `-` reads what you type
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Folder that takes the new files
    #[arg(long, value_name = "DIR")]
    to: PathBuf,

    /// text, png, pdf; several with commas
    #[arg(long, value_name = "FORM", value_delimiter = ',', default_value = "pdf")]
    shares_format: Vec<Form>,

    /// Name of the keyset
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyset: String,
}

pub(super) fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Check(arguments) => check(&arguments),
        Command::Show(arguments) => show(&arguments),
        Command::Print(arguments) => print(&arguments),
    }
}

fn check(arguments: &CheckArguments) -> Result<(), Exit> {
    let mut shares = Vec::new();
    for file in &arguments.files {
        let share = read(file)?;
        say!(
            "{}: share {} of {}, any {} are needed",
            file.display(),
            share.index,
            share.count,
            share.threshold
        );
        shares.push(share);
    }
    let verdict = verify(&shares).map_err(Exit::failed)?;
    let first = shares.first().ok_or_else(|| Exit::usage(anyhow!("no share")))?;
    let fields = Sheet::new(first, "").fields();
    let root = fields.iter().find(|(name, _)| *name == "root").map(|(_, value)| value.as_str());
    if let (Some(wanted), Some(root)) = (&arguments.root, root)
        && !wanted.eq_ignore_ascii_case(root)
    {
        return Err(Exit::failed(anyhow!("they are for the root {root}, not {wanted}")));
    }
    for (name, value) in
        fields.iter().filter(|(name, _)| ["keyset id", "version", "set", "root"].contains(name))
    {
        say!("{name:<9}  {value}");
    }
    match verdict {
        Verdict::Proved => say!("They belong together and give the root that they name."),
        Verdict::TooFew { missing } => {
            let text =
                format!("they belong together; {missing} more are needed to prove that they give the root");
            if !arguments.some {
                return Err(Exit::failed(anyhow!("{text} (--some: content with that)")));
            }
            say!("{text}");
        }
    }
    Ok(())
}

fn show(arguments: &ShowArguments) -> Result<(), Exit> {
    let share = read(&arguments.file)?;
    let sheet = Sheet::new(&share, &arguments.keyset);
    say!("{}", sheet.text().trim_end());
    say!("{}", sheet.terminal().map_err(Exit::failed)?.as_str());
    Ok(())
}

fn print(arguments: &PrintArguments) -> Result<(), Exit> {
    let share = read(&arguments.file)?;
    private_folder(&arguments.to).map_err(Exit::failed)?;
    let sheet = Sheet::new(&share, &arguments.keyset);
    for path in sheet.write(&arguments.to, &arguments.shares_format).map_err(Exit::failed)? {
        say!("{}", path.display());
    }
    Ok(())
}

/// Reads a share; where one word is wrong, says which.
pub(crate) fn read(file: &Path) -> Result<Share, Exit> {
    if file != Path::new("-") {
        return paper::load(file).with_context(|| file.display().to_string()).map_err(Exit::failed);
    }
    let mut typed = Zeroizing::new(String::with_capacity(64 << 10));
    std::io::stdin().take(64 << 10).read_to_string(&mut typed).map_err(Exit::failed)?;
    Share::parse(&typed).map_err(|error| match (&error, words::suspect(&typed)) {
        (ServiceError::Share(_), Some(number)) => {
            Exit::failed(anyhow!("word {number} is another than on the paper"))
        }
        _ => Exit::failed(error),
    })
}
