use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use claviger_keyapi::admin::KeysetInfo;
use claviger_keyapi::lifecycle::{
    self, Certificate, CertificateAnswer, DESTROY_WAIT_S, ShredPlan, ShredPlanRequest, VersionRequest,
};
use claviger_keyapi::proposals::Action;

use super::Operator;
use super::connection::Connection;
use super::proposals::propose;
use super::state::moment;
use crate::exit::Exit;

const DAY_S: u32 = 24 * 3600;

/// Destroy a version of a keyset, and with it everything that was sealed under it
///
/// A keyset that is rotated at the turn of the year has one version a year: destroying one forgets that year, in every copy
/// that the provider ever made, without touching an object. The way there:
///   claviger keys shred plan KEYSET --version V            what would be lost
///   claviger keys shred propose KEYSET --version V         another operator: claviger keys approve ID
///   claviger keys shred certificate KEYSET --version V --to DIR
/// From the approval on nothing opens what is sealed under the version, so that whoever still needs it is heard of in time.
/// Until the root is erased, a week later unless told otherwise, one operator takes it back: claviger keys shred cancel.
///
/// Hazards. A copy that was made within the store (CopyObject) belongs to the time of its source: it is lost with it, however new it is,
/// unless policy said era_shred = true of the keyset when it was made.
/// So are noncurrent versions and objects under a lock of that time: the provider keeps them, and nobody reads them. Objects are not
/// deleted: a lifecycle rule or you remove the ciphertext. Recovery shares and older backups open it as before, until
/// they are destroyed too; the certificate names them.
#[derive(clap::Subcommand)]
#[command(verbatim_doc_comment)]
pub(super) enum Command {
    Plan(PlanArguments),
    Propose(ProposeArguments),
    /// Take back a decision to destroy a version; everything opens as before
    Cancel(CancelArguments),
    Certificate(CertificateArguments),
}

#[derive(clap::Args)]
struct Which {
    /// Name of the keyset
    keyset: String,

    /// Number of the version (claviger keys keyset list)
    #[arg(long, value_name = "V")]
    version: u32,
}

impl Which {
    fn request(self) -> VersionRequest {
        VersionRequest { keyset: self.keyset, version: self.version }
    }
}

/// Show what the destruction of a version would make unreadable, and who used it lately
///
/// The service counts epochs, an hour of one gateway each, not objects: it does not know them. Buckets are named where
/// single keys were asked for; leases open whole keysets.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    which: Which,

    /// How far back in the audit log to look for who used it
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u32,

    #[command(flatten)]
    operator: Operator,
}

/// Propose to destroy a version; at the approval it stops opening, and after some days its root is erased
///
/// The version has to be retired: claviger keys keyset rotate (or retire) comes first. The key service has to be unlocked
/// and running for the last day before.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ProposeArguments {
    #[command(flatten)]
    which: Which,

    /// Days from the approval to the erasure, 3 to 90
    #[arg(long, value_name = "N", default_value_t = DESTROY_WAIT_S / DAY_S, value_parser = clap::value_parser!(u32).range(3..=90))]
    wait_days: u32,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct CancelArguments {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    operator: Operator,
}

/// Write the certificate of a version that was destroyed: a JSON file and a text
///
/// It says what was destroyed, who decided it, and what could still open it: shares by set, backups by time, other copies. Its
/// SHA-256 stands in the audit log, so claviger audit prove makes a proof that whoever has the log's key can check.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CertificateArguments {
    #[command(flatten)]
    which: Which,

    /// Folder that takes the files KEYSET-vV-destroyed.json and .txt
    #[arg(long, value_name = "DIR")]
    to: PathBuf,

    #[command(flatten)]
    operator: Operator,
}

pub(super) async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Plan(arguments) => plan(arguments).await,
        Command::Propose(arguments) => {
            let ProposeArguments { which: Which { keyset, version }, wait_days, operator } = arguments;
            let action = Action::Destroy { keyset, version, wait_s: wait_days * DAY_S };
            propose(&operator, action).await.map(drop)
        }
        Command::Cancel(CancelArguments { which, operator }) => {
            let request = which.request();
            let _: KeysetInfo = Connection::open(&operator)?.ask(lifecycle::SHRED_CANCEL, &request).await?;
            say!("Version {} of keyset {} opens again and stays.", request.version, request.keyset);
            Ok(())
        }
        Command::Certificate(arguments) => certificate(arguments).await,
    }
}

async fn plan(arguments: PlanArguments) -> Result<(), Exit> {
    let PlanArguments { which: Which { keyset, version }, days, operator } = arguments;
    let request = ShredPlanRequest { keyset, version, days };
    let plan: ShredPlan = Connection::open(&operator)?.ask(lifecycle::SHRED_PLAN, &request).await?;
    say!("Destroying version {} of keyset {} would make unreadable for ever:", plan.version, plan.keyset);
    let span = match (plan.epochs.first_ms, plan.epochs.last_ms) {
        (Some(first), Some(last)) => format!(", begun {} to {}", moment(first), moment(last)),
        _ => String::new(),
    };
    say!("  everything in {} epochs{span}", plan.epochs.lost);
    for gateway in &plan.gateways {
        let name =
            gateway.identity.as_ref().map_or_else(|| gateway.gateway_id.to_string(), ToString::to_string);
        say!("    {} of {name}", gateway.lost);
    }
    if plan.epochs.kept > 0 {
        say!("  not {} more, which another version opens as well", plan.epochs.kept);
    }
    say!("  what gateways sealed under it that they never could register");
    if !plan.unheard.is_empty() {
        say!(
            "NOT HEARD since it was retired: what they sealed to it nobody here knows. Reach them first, or revoke them."
        );
    }
    for gateway in &plan.unheard {
        let last = gateway.last_ms.map_or_else(|| "no session in the log".to_owned(), moment);
        say!("  {}  last session: {last}", gateway.identity);
    }
    say!(
        "Copies made within the store belong to the time of their source, and go with it; but for those that were made while policy \
         had era_shred for the keyset."
    );
    say!(
        "Buckets of the keyset: {}",
        if plan.buckets.is_empty() { "none".to_owned() } else { plan.buckets.join(", ") }
    );
    match (plan.used.is_empty(), plan.unread.is_empty()) {
        (true, true) => say!("Nobody was given a key of it since {}.", moment(plan.since_ms)),
        (true, false) => say!("This replica gave nobody a key of it since {}.", moment(plan.since_ms)),
        (false, _) => say!("IN USE since {}:", moment(plan.since_ms)),
    }
    for used in &plan.used {
        let place = used.bucket.as_deref().unwrap_or("(leases: any bucket)");
        say!("  {}  {place}  {} times, last {}", used.identity, used.releases, moment(used.last_ms));
    }
    if !plan.unread.is_empty() {
        say!(
            "NOT READ: the logs of {}. They may have served since then: who was given keys by them, or asked them for a session, is not in \
             here. Look into each (claviger audit search AUDIT --since TIME) before you destroy anything.",
            plan.unread.join(", ")
        );
    }
    Ok(())
}

async fn certificate(arguments: CertificateArguments) -> Result<(), Exit> {
    let request = arguments.which.request();
    let connection = Connection::open(&arguments.operator)?;
    let answer: CertificateAnswer = connection.ask(lifecycle::SHRED_CERTIFICATE, &request).await?;
    let certificate: Certificate = serde_json::from_str(&answer.json)
        .context("the certificate is of a later version of this program")
        .map_err(Exit::failed)?;
    let base = format!("{}-v{}-destroyed", certificate.keyset, certificate.version);
    let (json, text) = (arguments.to.join(format!("{base}.json")), arguments.to.join(format!("{base}.txt")));
    write_new(&json, answer.json.as_bytes())?;
    write_new(&text, certificate_text(&certificate, &answer.sha256).as_bytes())?;
    say!("{}", json.display());
    say!("{}", text.display());
    say!("Proof, from a copy of the audit folder:");
    say!("  claviger audit prove DIR --request {} -o {base}.proof", certificate.request_id);
    say!(
        "  claviger audit check-proof {base}.proof --key KEY    # its record's subject is {}",
        answer.sha256
    );
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Exit> {
    let written = OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| Exit::failed(anyhow!("{}: {error}", path.display())))
}

/// The certificate for people.
fn certificate_text(certificate: &Certificate, sha256: &str) -> String {
    let Certificate { decision, epochs, backups, .. } = certificate;
    let mut lines = vec![
        format!("Version {} of keyset {} was destroyed", certificate.version, certificate.keyset),
        String::new(),
        format!("keyset      {} ({})", certificate.keyset, certificate.keyset_id),
        format!("root        {}", certificate.root_fingerprint),
        format!(
            "decided     {} by {}, approved by {}",
            moment(decision.decided_ms),
            decision.proposer,
            decision.approver
        ),
        format!(
            "erased      {} from the key service's database ({})",
            moment(certificate.destroyed_ms),
            certificate.store
        ),
        format!(
            "unreadable  what was sealed in {} epochs; {} more open under another version",
            epochs.lost, epochs.kept
        ),
        format!("proposal    {}", certificate.proposal),
        format!("audit log   request {}", certificate.request_id),
        format!("SHA-256     {sha256} (of the JSON file)"),
        String::new(),
        "What could still open it, and until when:".to_owned(),
    ];
    for set in &certificate.share_sets {
        lines.push(format!(
            "- any {} of the {} recovery shares of set {}, until {} of them are destroyed",
            set.threshold,
            set.shares,
            set.set.as_deref().unwrap_or("(made by a release that did not remember it)"),
            u32::from(set.shares) + 1 - u32::from(set.threshold)
        ));
    }
    lines.push(match (backups.begun, backups.first_ms, backups.newest_ms.last()) {
        (begun, Some(first), Some(last)) => format!(
            "- {begun} backups that were taken through the service, from {} to {}, until they are destroyed, with what unlocks the \
             service ({})",
            moment(first),
            moment(*last),
            certificate.unlock_method
        ),
        _ => "- no backup was taken through the service".to_owned(),
    });
    lines.push(format!(
        "- keys of single epochs and objects that honest gateways held, until {}",
        moment(certificate.keys_in_use_until_ms)
    ));
    lines.extend(certificate.beyond.iter().map(|text| format!("- {text}")));
    lines.join("\n") + "\n"
}
