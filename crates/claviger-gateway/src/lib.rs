//! The S3 gateway: seals what goes to the provider and opens what comes back
