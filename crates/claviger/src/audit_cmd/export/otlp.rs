//! OTLP's JSON (opentelemetry-proto, `collector/logs/v1`): 64-bit numbers are texts, enums are numbers.

use claviger_audit::Line;
use serde_json::{Value, json};

use super::super::select::{self, Fields};

/// SEVERITY_NUMBER_INFO and SEVERITY_NUMBER_WARN.
const INFO: u32 = 9;
const WARN: u32 = 13;

/// One `LogRecord`. Its body is the log's line: what arrives can still be checked against the tree.
pub(super) fn log_record(line: &Line<'_>, fields: &Fields) -> String {
    let (number, text) = if fields.outcome == "refused" { (WARN, "WARN") } else { (INFO, "INFO") };
    // A time beyond what nanoseconds in 64 bits can say is unknown.
    let time = fields.time_ms.checked_mul(1_000_000).unwrap_or(0).to_string();
    let record = json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": number,
        "severityText": text,
        "body": {"stringValue": select::text(line)},
        "attributes": [
            attribute("claviger.index", json!({"intValue": line.index.to_string()})),
            attribute("claviger.action", json!({"stringValue": fields.action})),
            attribute("claviger.outcome", json!({"stringValue": fields.outcome})),
        ],
    });
    record.to_string()
}

/// An `ExportLogsServiceRequest` of such records.
pub(super) fn request(records: &[String], hostname: &str) -> String {
    let mut resource = vec![attribute("service.name", json!({"stringValue": "claviger-keyservice"}))];
    if hostname != "-" {
        resource.push(attribute("host.name", json!({"stringValue": hostname})));
    }
    let resource = json!({ "attributes": resource });
    format!(
        "{{\"resourceLogs\":[{{\"resource\":{resource},\"scopeLogs\":[{{\"scope\":{{\"name\":\"claviger.audit\"}},\"logRecords\":[{}]}}]}}]}}",
        records.join(",")
    )
}

fn attribute(key: &str, value: Value) -> Value {
    json!({"key": key, "value": value})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_the_specification_s_json() {
        let record = r#"{"time_ms":1750000000042,"action":"derive","outcome":"refused","key":"ä"}"#;
        let line = Line { index: 7, salt: [0; 16], record };
        let fields = serde_json::from_str(record).unwrap();
        let request: Value =
            serde_json::from_str(&request(&[log_record(&line, &fields)], "keys.example")).unwrap();
        let resource = &request["resourceLogs"][0];
        assert_eq!(resource["resource"]["attributes"][1]["value"]["stringValue"], "keys.example");
        let record = &resource["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["timeUnixNano"], "1750000000042000000");
        assert_eq!((&record["severityNumber"], &record["severityText"]), (&json!(13), &json!("WARN")));
        assert_eq!(record["attributes"][0], json!({"key": "claviger.index", "value": {"intValue": "7"}}));
        assert_eq!(record["body"]["stringValue"], select::text(&line));
    }

    #[test]
    fn a_time_beyond_every_clock_is_unknown() {
        let record = r#"{"time_ms":18446744073709551615,"action":"derive","outcome":"done"}"#;
        let line = Line { index: 7, salt: [0; 16], record };
        let text = log_record(&line, &serde_json::from_str(record).unwrap());
        assert!(text.contains("\"timeUnixNano\":\"0\""), "{text}");
    }
}
