//! The embedded S3 provider of the demo and the tests: an S3 store that keeps plain files
