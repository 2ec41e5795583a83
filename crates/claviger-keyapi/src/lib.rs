//! The key service's wire types, its trait and the rules of its channel
