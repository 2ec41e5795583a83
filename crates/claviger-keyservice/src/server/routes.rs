//! One table of every route: what it is called, whom it takes, how long its body may be.

use claviger_keyapi::{admin, routes};

use crate::policy::AdminVerb;

/// Requests without keys in them are short.
const SMALL_BODY_LEN_MAX: usize = 64 << 10;

/// What a route does and whom it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Anyone; the token in the body decides.
    Enrol,
    /// Anyone enrolled.
    Status,
    /// A gateway or an operator, unlocked.
    Renew,
    /// A gateway, unlocked.
    Gateway(GatewayRoute),
    /// An operator with this verb, unlocked.
    Operator(OperatorRoute, AdminVerb),
    /// An operator, also while locked.
    Unlock(UnlockRoute),
    /// An operator, also while locked.
    OperatorStatus,
}

/// What an operator brings to unlock the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnlockRoute {
    Passphrase,
    Share,
    Hsm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayRoute {
    Session,
    Binding,
    Bindings,
    Bind,
    Unbind,
    Register,
    Epoch,
    Lease,
    Derive,
    Continue,
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperatorRoute {
    Lock,
    KeysetCreate,
    KeysetConfirm,
    KeysetList,
    EnrolToken,
    Revoke,
    IdentityList,
    EpochList,
    PolicyReload,
    AuditTail,
    BackupBegin,
    BackupRead,
}

pub(super) fn route(path: &str) -> Option<Route> {
    use GatewayRoute as G;
    use OperatorRoute as O;
    Some(match path {
        routes::ENROL => Route::Enrol,
        routes::STATUS => Route::Status,
        routes::RENEW => Route::Renew,
        routes::SESSION => Route::Gateway(G::Session),
        routes::BINDING => Route::Gateway(G::Binding),
        routes::BINDINGS => Route::Gateway(G::Bindings),
        routes::BIND => Route::Gateway(G::Bind),
        routes::UNBIND => Route::Gateway(G::Unbind),
        routes::REGISTER => Route::Gateway(G::Register),
        routes::EPOCH => Route::Gateway(G::Epoch),
        routes::LEASE => Route::Gateway(G::Lease),
        routes::DERIVE => Route::Gateway(G::Derive),
        routes::CONTINUE => Route::Gateway(G::Continue),
        routes::FINISH => Route::Gateway(G::Finish),
        admin::UNLOCK => Route::Unlock(UnlockRoute::Passphrase),
        admin::UNLOCK_SHARE => Route::Unlock(UnlockRoute::Share),
        admin::UNLOCK_HSM => Route::Unlock(UnlockRoute::Hsm),
        admin::STATUS => Route::OperatorStatus,
        admin::LOCK => Route::Operator(O::Lock, AdminVerb::Unlock),
        admin::KEYSET_CREATE => Route::Operator(O::KeysetCreate, AdminVerb::Keyset),
        admin::KEYSET_CONFIRM => Route::Operator(O::KeysetConfirm, AdminVerb::Keyset),
        admin::KEYSET_LIST => Route::Operator(O::KeysetList, AdminVerb::Inspect),
        admin::ENROL_TOKEN => Route::Operator(O::EnrolToken, AdminVerb::Enrol),
        admin::REVOKE => Route::Operator(O::Revoke, AdminVerb::Enrol),
        admin::IDENTITY_LIST => Route::Operator(O::IdentityList, AdminVerb::Inspect),
        admin::EPOCH_LIST => Route::Operator(O::EpochList, AdminVerb::Inspect),
        admin::POLICY_RELOAD => Route::Operator(O::PolicyReload, AdminVerb::Policy),
        admin::AUDIT_TAIL => Route::Operator(O::AuditTail, AdminVerb::Inspect),
        admin::BACKUP_BEGIN => Route::Operator(O::BackupBegin, AdminVerb::Backup),
        admin::BACKUP_READ => Route::Operator(O::BackupRead, AdminVerb::Backup),
        _ => return None,
    })
}

impl Route {
    pub(super) fn body_len_max(self) -> usize {
        use GatewayRoute as G;
        match self {
            Self::Gateway(G::Lease | G::Derive | G::Continue | G::Finish) => routes::REQUEST_LEN_MAX,
            _ => SMALL_BODY_LEN_MAX,
        }
    }
}
