//! The S3 protocol as data: operations, signatures, chunked bodies, XML, ranges, checksums
