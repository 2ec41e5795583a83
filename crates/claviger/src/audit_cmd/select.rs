//! Which records are meant.

use anyhow::{Context as _, anyhow};
use claviger_audit::Line;
use claviger_keyservice::ServiceError;
use claviger_keyservice::audit_log::AuditFolder;
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};

use crate::exit::Exit;

/// Conditions, all of which have to hold.
#[derive(clap::Args, Default)]
pub(super) struct Selection {
    /// Records that name this object: its key, or its id (32 hex digits)
    #[arg(long, value_name = "KEY|ID")]
    object: Option<String>,

    /// Records that name this bucket: its name, or its id (name#…)
    #[arg(long, value_name = "NAME|ID")]
    bucket: Option<String>,

    /// Records of this epoch (32 hex digits)
    #[arg(long, value_name = "ID")]
    epoch: Option<String>,

    /// Records of this identity, as gateway:NAME or admin:NAME: made by it, done to it, or on behalf of this access key id
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,

    /// Records of this action, as lease, derive, enrol
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,

    /// Records of one request (`x-request-id`)
    #[arg(long, value_name = "ID")]
    request: Option<String>,

    /// Records from this moment on: RFC 3339 or a date, in UTC
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    since: Option<u64>,

    /// Records before this moment
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    until: Option<u64>,
}

/// What of a record is looked at.
#[derive(Deserialize)]
pub(super) struct Fields {
    pub(super) time_ms: u64,
    pub(super) action: String,
    pub(super) outcome: String,
    request_id: Option<String>,
    identity: Option<String>,
    subject: Option<String>,
    on_behalf_of: Option<String>,
    epoch_id: Option<String>,
    object_id: Option<String>,
    bucket: Option<String>,
    bucket_id: Option<String>,
    key: Option<String>,
    dest_bucket_id: Option<String>,
    dest_key: Option<String>,
}

impl Selection {
    /// The records of one request.
    pub(super) fn of_request(id: &str) -> Self {
        Self { request: Some(id.to_owned()), ..Self::default() }
    }

    fn fits(&self, fields: &Fields) -> bool {
        let any = |wanted: &Option<String>, values: &[Option<&str>]| {
            wanted.as_deref().is_none_or(|wanted| values.contains(&Some(wanted)))
        };
        let destination = fields.dest_bucket_id.as_deref();
        let destination_name = destination.and_then(|id| id.split('#').next());
        any(&self.object, &[fields.key.as_deref(), fields.dest_key.as_deref(), fields.object_id.as_deref()])
            && any(
                &self.bucket,
                &[fields.bucket.as_deref(), fields.bucket_id.as_deref(), destination, destination_name],
            )
            && any(&self.epoch, &[fields.epoch_id.as_deref()])
            && any(
                &self.identity,
                &[fields.identity.as_deref(), fields.subject.as_deref(), fields.on_behalf_of.as_deref()],
            )
            && any(&self.action, &[Some(&fields.action)])
            && any(&self.request, &[fields.request_id.as_deref()])
            && self.since.is_none_or(|since| fields.time_ms >= since)
            && self.until.is_none_or(|until| fields.time_ms < until)
    }
}

/// Hands over every record from `from_index` on that fits, and says on standard error if some were pruned.
///
/// # Errors
/// Exit code 1 for what is not a record, 2 for what can't be read.
pub(super) fn each(
    folder: &AuditFolder,
    from_index: u64,
    selection: &Selection,
    mut take: impl FnMut(&Line<'_>, &Fields),
) -> Result<(), Exit> {
    let mut wrong = None;
    let read = folder.for_each_record(from_index, |line| {
        match serde_json::from_str::<Fields>(line.record) {
            Ok(fields) if selection.fits(&fields) => take(line, &fields),
            Ok(_) => {}
            Err(error) => wrong = Some(anyhow!("record {} can't be understood: {error}", line.index)),
        }
        wrong.is_none()
    });
    let pruned = read.map_err(|error| match error {
        ServiceError::Audit(_) => Exit::failed(error),
        other => Exit::usage(other),
    })?;
    if pruned > 0 {
        use std::io::Write as _;
        // Not among the records: whoever reads those reads nothing else.
        let _ = writeln!(
            std::io::stderr(),
            "{pruned} records were pruned: what they said can't be found any more"
        );
    }
    wrong.map_or(Ok(()), |error| Err(Exit::failed(error)))
}

/// What is looked at of a record, if it fits.
///
/// # Errors
/// For what is not a record.
pub(super) fn chosen(selection: &Selection, line: &Line<'_>) -> Result<Option<Fields>, anyhow::Error> {
    let fields = serde_json::from_str::<Fields>(line.record)
        .with_context(|| format!("record {} can't be understood", line.index))?;
    Ok(Some(fields).filter(|fields| selection.fits(fields)))
}

/// The line as it stands in the log, without its end.
pub(super) fn text(line: &Line<'_>) -> String {
    let mut bytes = Vec::new();
    line.write(&mut bytes);
    bytes.pop();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Unix milliseconds of an RFC 3339 moment or of a date's beginning, UTC.
fn moment_ms(text: &str) -> Result<u64, anyhow::Error> {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    let moment = match Date::parse(text, format) {
        Ok(date) => date.midnight().assume_utc(),
        Err(_) => OffsetDateTime::parse(text, &Rfc3339)
            .context("neither a date as 2026-03-31 nor a moment as 2026-03-31T14:00:00Z")?,
    };
    u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).context("before 1970")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"v":1,"time_ms":1750000000000,"request_id":"00ff","identity":"gateway:main","action":"derive",
        "outcome":"released","epoch_id":"0e","object_id":"0b","bucket":"photos","bucket_id":"photos#01","key":"a/\"b\".txt",
        "dest_bucket_id":"copies#02","dest_key":"c","on_behalf_of":"AKID","new_field":[1]}"#;

    fn fits(selection: &Selection) -> bool {
        selection.fits(&serde_json::from_str(RECORD).unwrap())
    }

    #[test]
    fn a_record_is_found_by_everything_that_it_names_and_by_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        for object in ["a/\"b\".txt", "0b", "c"] {
            assert!(fits(&Selection { object: some(object), ..Selection::default() }), "{object}");
        }
        for bucket in ["photos", "photos#01", "copies", "copies#02"] {
            assert!(fits(&Selection { bucket: some(bucket), ..Selection::default() }), "{bucket}");
        }
        for identity in ["gateway:main", "AKID"] {
            assert!(fits(&Selection { identity: some(identity), ..Selection::default() }), "{identity}");
        }
        let both = Selection { object: some("c"), bucket: some("other"), ..Selection::default() };
        assert!(!fits(&both));
        assert!(!fits(&Selection { object: some("a"), ..Selection::default() }));
        assert!(!fits(&Selection { action: some("lease"), ..Selection::default() }));
        assert!(fits(&Selection { action: some("derive"), epoch: some("0e"), ..Selection::default() }));
    }

    #[test]
    fn since_counts_its_moment_and_until_does_not() {
        let at = |since, until| Selection { since, until, ..Selection::default() };
        let moment = Some(1_750_000_000_000);
        assert!(fits(&at(moment, None)) && !fits(&at(None, moment)));
        assert!(!fits(&at(Some(1_750_000_000_001), None)));
    }

    #[test]
    fn moments_are_read_as_dates_and_as_rfc_3339() {
        assert_eq!(moment_ms("2025-06-15T15:06:40Z").unwrap(), 1_750_000_000_000);
        assert_eq!(moment_ms("2025-06-15T17:06:40.5+02:00").unwrap(), 1_750_000_000_500);
        assert_eq!(moment_ms("1970-01-02").unwrap(), 86_400_000);
        assert!(moment_ms("yesterday").unwrap_err().to_string().contains("2026-03-31"));
        assert!(moment_ms("1969-12-31").is_err());
    }
}
