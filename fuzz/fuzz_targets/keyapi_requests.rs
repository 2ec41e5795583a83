//! The body of every route of the key service, and every line, token and key file that gateways and operators read: whatever is taken is
//! written the same way again, so nothing in it went unseen.
#![no_main]

use claviger_keyapi::admin::*;
use claviger_keyapi::disclosure::KeyFile;
use claviger_keyapi::enrol::{EnrolRequest, EnrolToken, RecoverRequest, RenewRequest};
use claviger_keyapi::lifecycle::*;
use claviger_keyapi::proposals::*;
use claviger_keyapi::routes::*;
use claviger_keyapi::{Identity, WatchEvent};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a body as its route does. What it means is a fixed point: read and written twice, it stays.
fn body<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("and read again");
    assert_eq!(serde_json::to_vec(&again).expect("and written"), written);
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (which, data) = (input.0, input.1.as_slice());
    match which % 36 {
        0 => body::<Empty>(data),
        1 => body::<BindingRequest>(data),
        2 => body::<BindRequest>(data),
        3 => body::<UnbindRequest>(data),
        4 => body::<RegisterRequest>(data),
        5 => body::<EpochRequest>(data),
        6 => body::<LeaseRequest>(data),
        7 => body::<DeriveRequest>(data),
        8 => body::<ContinueRequest>(data),
        9 => body::<FinishRequest>(data),
        10 => body::<EnrolRequest>(data),
        11 => body::<RecoverRequest>(data),
        12 => body::<RenewRequest>(data),
        13 => body::<UnlockRequest>(data),
        14 => body::<UnlockShareRequest>(data),
        15 => body::<CreateKeysetRequest>(data),
        16 => body::<ConfirmKeysetRequest>(data),
        17 => body::<RevokeRequest>(data),
        18 => body::<EpochListRequest>(data),
        19 => body::<AuditTailRequest>(data),
        20 => body::<BackupReadRequest>(data),
        21 => body::<ProposeRequest>(data),
        22 => body::<ProposalRequest>(data),
        23 => body::<ConfirmRequest>(data),
        24 => body::<FreezeRequest>(data),
        25 => body::<WatchEvent>(data),
        26 => body::<RetireRequest>(data),
        27 => body::<ConsistencyRequest>(data),
        28 => body::<CheckpointRequest>(data),
        29 => body::<ResealRequest>(data),
        30 => body::<ShredPlanRequest>(data),
        31 => body::<VersionRequest>(data),
        32 => body::<ReplicaRequest>(data),
        33 => body::<KeyFile>(data),
        34 => body::<BindingListRequest>(data),
        _ => texts(data),
    }
});

fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = EnrolToken::parse(text) {
        let again = EnrolToken::parse(token.to_text().expose()).expect("it is a token");
        assert_eq!((again.address, again.identity), (token.address, token.identity));
    }
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text);
    }
}
