//! Prints the operation tables of docs/s3-compatibility.md from the table that drives classification.
//!
//! `cargo run -p claviger-s3 --example compatibility_table`

use std::io::{self, Write};

use claviger_s3::operation::{
    COMMON_HEADERS, IGNORED_PARAMETERS, OperationRow, Parameter, REFUSED_HEADERS, Selector, Target, table,
};

fn main() -> io::Result<()> {
    let out = &mut io::stdout().lock();
    served(out)?;
    headers(out)?;
    refused(out)
}

fn served(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "### Operations that are served\n")?;
    writeln!(out, "| operation | request | further parameters | `x-amz-*` headers | remark |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for row in table().filter(|row| row.served.is_some()) {
        let parameters: Vec<String> = row.parameters.iter().map(|name| format!("`{name}`")).collect();
        let headers: Vec<String> = parameters_of(row).map(|p| format!("`{}`", p.name)).collect();
        let (name, request) = (row.name, request(row));
        writeln!(
            out,
            "| {name} | {request} | {} | {} | {} |",
            parameters.join(" "),
            headers.join(" "),
            row.note
        )?;
    }
    writeln!(out)
}

fn headers(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "### What becomes of `x-amz-*` headers\n")?;
    writeln!(out, "| header | on | what becomes of it |\n|---|---|---|")?;
    for parameter in COMMON_HEADERS {
        writeln!(out, "| `{}` | every request | {} |", parameter.name, parameter.note)?;
    }
    let mut notes: Vec<(&Parameter, Vec<&str>)> = Vec::new();
    for row in table() {
        for parameter in parameters_of(row) {
            match notes.iter_mut().find(|(other, _)| *other == parameter) {
                Some((_, operations)) => operations.push(row.name),
                None => notes.push((parameter, vec![row.name])),
            }
        }
    }
    notes.sort_by_key(|(parameter, _)| parameter.name);
    for (parameter, operations) in notes {
        writeln!(out, "| `{}` | {} | {} |", parameter.name, operations.join(", "), parameter.note)?;
    }
    for parameter in REFUSED_HEADERS {
        writeln!(out, "| `{}` | | refused: {} |", parameter.name, parameter.note)?;
    }
    let ignored: Vec<String> = IGNORED_PARAMETERS.iter().map(|name| format!("`{name}`")).collect();
    writeln!(out, "\nQuery parameters that are ignored: {}.\n", ignored.join(", "))
}

fn refused(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "### Operations that answer `NotImplemented`\n")?;
    writeln!(out, "| operation | request | reason |\n|---|---|---|")?;
    for row in table().filter(|row| row.served.is_none()) {
        writeln!(out, "| {} | {} | {} |", row.name, request(row), row.note)?;
    }
    Ok(())
}

fn parameters_of(row: &'static OperationRow) -> impl Iterator<Item = &'static Parameter> {
    row.headers.iter().flat_map(|group| group.iter())
}

/// `PUT /bucket/key?partNumber&uploadId`, with the selecting header behind it.
fn request(row: &OperationRow) -> String {
    let path = match row.target {
        Target::Service => "/",
        Target::Bucket => "/bucket",
        Target::Object => "/bucket/key",
    };
    let (mut query, mut headers) = (Vec::new(), String::new());
    for selector in row.selectors {
        match selector {
            Selector::Query(name) => query.push((*name).to_owned()),
            Selector::QueryValue(name, value) => query.push(format!("{name}={value}")),
            Selector::Header(name) => headers.push_str(&format!(" with `{name}`")),
        }
    }
    let mark = if query.is_empty() { "" } else { "?" };
    format!("`{} {path}{mark}{}`{headers}", row.method, query.join("&"))
}
