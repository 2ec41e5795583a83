//! The key service: custody of the root secrets, policy, registry, release and its audit file
