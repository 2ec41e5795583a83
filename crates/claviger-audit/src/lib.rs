//! The audit log as data: what a record's leaf is, the Merkle tree over the leaves, its tiles, signed checkpoints, proofs,
//! and the verifier of a whole log.
//!
//! Nothing here does I/O: bytes come in, bytes and verdicts go out. The formats are public ones, so that an auditor needs
//! none of this code: RFC 6962 §2.1 for the tree, and of C2SP tlog-tiles, signed-note, tlog-checkpoint, tlog-cosignature
//! (Ed25519) and tlog-proof. `docs/key-service-api.md` ("Audit log") says how the key service uses them.
//!
//! Reading order: [`line`](mod@line) (a record as it lies in the log, and its entry), [`pruned`] and [`pruning`] (one that was removed), [`tree`] and [`proof`] (RFC 6962), [`tile`] and
//! [`builder`] (the tree as files), [`anchor`] (files held against a tree in memory), [`note`], [`checkpoint`] and [`cosignature`] (what is signed), [`log_proof`] (a proof as a
//! file), [`verify`](mod@verify) (all of it), [`memory`] (what others keep of it).

pub mod anchor;
pub mod builder;
pub mod checkpoint;
pub mod cosignature;
mod hash;
pub mod line;
pub mod log_proof;
pub mod memory;
pub mod note;
pub mod proof;
pub mod pruned;
pub mod pruning;
pub mod tile;
pub mod tree;
pub mod verify;

pub use anchor::Anchor;
pub use builder::LogTree;
pub use checkpoint::{Checkpoint, SignedCheckpoint};
pub use hash::{HASH_LEN, Hash, empty_root, leaf_hash, node_hash};
pub use line::Line;
pub use log_proof::LogProof;
pub use memory::LogMemory;
pub use note::{Note, SigningKey, VerifierKey};
pub use pruned::{LogLine, Pruned};
pub use tile::{TilePath, TileTree, Tiles};
pub use verify::Verifier;
