//! Prints the tables of stores of docs/s3-compatibility.md from the table that the gateway works by.
//!
//! `cargo run -q -p claviger-gateway --example store_table`

use std::io::{self, Write};

use claviger_gateway::profile::{
    Condition, Conditions, DeleteObjects, Features, Location, PROFILES, Profile, ShownBy, TagForm,
};

fn main() -> io::Result<()> {
    let out = &mut io::stdout().lock();
    shown(out)?;
    conditions(out)?;
    sources(out)
}

fn shown(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "| store | profile | shown by | metadata, bytes | the gateway minds | of S3 it has | storage classes |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for profile in PROFILES {
        let classes: Vec<String> = profile.storage_classes.iter().map(|class| format!("`{class}`")).collect();
        writeln!(
            out,
            "| {} | `{}` | {} | {} | {} | {} | {} |",
            profile.store,
            profile.name,
            shown_by(profile.shown_by),
            profile.metadata_bytes_max,
            minded(profile).join("; "),
            features(profile.features),
            classes.join(" ")
        )?;
    }
    writeln!(out)
}

fn shown_by(shown_by: ShownBy) -> &'static str {
    match shown_by {
        ShownBy::TheStore => "the store itself, in CI",
        ShownBy::TheStoreOnDemand => "the store itself, on demand",
        ShownBy::ADouble => "a double of ours",
        ShownBy::Nothing => "nothing",
    }
}

/// What the gateway does in its own way there.
fn minded(profile: &Profile) -> Vec<String> {
    let mut minded = Vec::new();
    let mut mind = |applies: bool, text: &str| {
        if applies {
            minded.push(text.to_owned());
        }
    };
    mind(profile.location == Location::OutsideUsEast1, "CreateBucket names the region, but `us-east-1`");
    mind(profile.location == Location::UnlessAuto, "CreateBucket names the region, but `auto`");
    mind(!profile.regions.is_empty(), &format!("regions: {}", profile.regions.join(", ")));
    mind(profile.put_bytes_max < 5 << 30, &format!("one PUT holds {} bytes", profile.put_bytes_max));
    mind(profile.equal_parts, "parts of one size");
    mind(profile.tag_on_put == TagForm::Bare, "the tag of a conditional PUT goes without quotes");
    mind(profile.delete_objects == DeleteObjects::OneByOne, "DeleteObjects becomes single deletions");
    mind(profile.complete_wants_all_parts, "Complete has to name every uploaded part");
    mind(!profile.copy_takes_tags, "the tags of a copy are set when it is made");
    mind(profile.checksum_behind_puts, "a CRC32 of the ciphertext goes behind each PUT");
    mind(profile.signature_v2, "clients may sign with version 2");
    minded
}

fn features(features: Features) -> String {
    let Features { versioning, tagging, acl, object_lock, policy } = features;
    let all = [
        (versioning, "versions"),
        (tagging, "tags"),
        (acl, "ACLs"),
        (object_lock, "Object Lock"),
        (policy, "policies"),
    ];
    let there: Vec<&str> = all.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
    if there.is_empty() { "objects, listings, multipart".to_owned() } else { there.join(", ") }
}

fn conditions(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "| conditional writes | `If-None-Match: *` on PUT | `If-Match` on PUT | on Complete | on DELETE |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for profile in PROFILES {
        let Conditions { put_if_none_match, put_if_match, complete, delete } = profile.conditions;
        let words = [put_if_none_match, put_if_match, complete, delete].map(becomes);
        writeln!(out, "| {} | {} |", profile.store, words.join(" | "))?;
    }
    writeln!(out)
}

fn becomes(condition: Condition) -> &'static str {
    match condition {
        Condition::Kept => "kept",
        Condition::Ignored => "passed on, **ignored** by the store",
        Condition::Refused => "refused by the store",
        Condition::Unknown => "passed on",
        Condition::NotSent => "`NotImplemented` by the gateway",
    }
}

fn sources(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "What is said of stores that were not run is from:\n")?;
    for profile in PROFILES.iter().filter(|profile| profile.shown_by == ShownBy::ADouble) {
        writeln!(out, "- {}: {}", profile.store, profile.sources.join(", "))?;
    }
    Ok(())
}
