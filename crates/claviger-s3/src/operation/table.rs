//! The table of operations, readable by machines: it drives classification and documentation alike.

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `/`
    Service,
    /// `/bucket`
    Bucket,
    /// `/bucket/key`
    Object,
}

/// Whether an operation is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is.
    Served,
    /// It answers `NotImplemented`.
    Refused,
}

/// A query parameter or header and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// The name.
    pub name: &'static str,
    /// What becomes of it.
    pub note: &'static str,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct OperationRow {
    /// The name in the S3 API reference.
    pub name: &'static str,
    /// Whether it is served.
    pub status: Status,
}

/// All operations of S3.
pub fn table() -> &'static [OperationRow] {
    todo!()
}
