//! One table of every route: what it is called, whom it takes, how long its body may be.

use claviger_keyapi::{admin, lifecycle, proposals, routes};

use crate::policy::AdminVerb;

/// Requests without keys in them are short.
const SMALL_BODY_LEN_MAX: usize = 64 << 10;

/// What a route does and whom it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Anyone; the token in the body decides.
    Enrol,
    /// Anyone; the recovery shares in the body decide.
    Recover,
    /// Anyone enrolled.
    Status,
    /// A gateway or an operator, also while locked.
    Checkpoint,
    /// A gateway or an operator, unlocked.
    Renew,
    /// A gateway, unlocked; answered with a stream.
    Watch,
    /// A gateway, unlocked.
    Gateway(GatewayRoute),
    /// An operator with this verb, unlocked. `None`: which verb it takes stands in what he asks for.
    Operator(OperatorRoute, Option<AdminVerb>),
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
    AcceptRollback,
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
    LogHead,
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
    KeysetRetire,
    Reseal,
    ShredPlan,
    ShredCancel,
    ShredCertificate,
    Propose,
    Approve,
    Collect,
    Confirm,
    Withdraw,
    ProposalList,
    Freeze,
    Revoke,
    IdentityList,
    EpochList,
    QuarantineList,
    BindingList,
    PolicyShow,
    ReplicaList,
    BudgetList,
    AuditTail,
    BackupBegin,
    BackupRead,
}

pub(super) fn route(path: &str) -> Option<Route> {
    use GatewayRoute as G;
    use OperatorRoute as O;
    Some(match path {
        routes::ENROL => Route::Enrol,
        routes::RECOVER => Route::Recover,
        routes::STATUS => Route::Status,
        routes::CHECKPOINT => Route::Checkpoint,
        routes::RENEW => Route::Renew,
        routes::WATCH => Route::Watch,
        routes::SESSION => Route::Gateway(G::Session),
        routes::BINDING => Route::Gateway(G::Binding),
        routes::BINDINGS => Route::Gateway(G::Bindings),
        routes::BIND => Route::Gateway(G::Bind),
        routes::UNBIND => Route::Gateway(G::Unbind),
        routes::REGISTER => Route::Gateway(G::Register),
        routes::EPOCH => Route::Gateway(G::Epoch),
        routes::CONSISTENCY => Route::Gateway(G::LogHead),
        routes::LEASE => Route::Gateway(G::Lease),
        routes::DERIVE => Route::Gateway(G::Derive),
        routes::CONTINUE => Route::Gateway(G::Continue),
        routes::FINISH => Route::Gateway(G::Finish),
        admin::UNLOCK => Route::Unlock(UnlockRoute::Passphrase),
        admin::UNLOCK_SHARE => Route::Unlock(UnlockRoute::Share),
        admin::UNLOCK_HSM => Route::Unlock(UnlockRoute::Hsm),
        admin::ACCEPT_ROLLBACK => Route::Unlock(UnlockRoute::AcceptRollback),
        admin::STATUS => Route::OperatorStatus,
        admin::LOCK => Route::Operator(O::Lock, Some(AdminVerb::Unlock)),
        admin::KEYSET_CREATE => Route::Operator(O::KeysetCreate, Some(AdminVerb::Keyset)),
        admin::KEYSET_CONFIRM => Route::Operator(O::KeysetConfirm, Some(AdminVerb::Keyset)),
        admin::KEYSET_LIST => Route::Operator(O::KeysetList, Some(AdminVerb::Inspect)),
        admin::KEYSET_RETIRE => Route::Operator(O::KeysetRetire, Some(AdminVerb::Keyset)),
        lifecycle::RESEAL => Route::Operator(O::Reseal, Some(AdminVerb::Keyset)),
        lifecycle::SHRED_PLAN => Route::Operator(O::ShredPlan, Some(AdminVerb::Inspect)),
        lifecycle::SHRED_CANCEL => Route::Operator(O::ShredCancel, Some(AdminVerb::Keyset)),
        lifecycle::SHRED_CERTIFICATE => Route::Operator(O::ShredCertificate, Some(AdminVerb::Inspect)),
        proposals::PROPOSE => Route::Operator(O::Propose, None),
        proposals::APPROVE => Route::Operator(O::Approve, None),
        proposals::CONFIRM => Route::Operator(O::Confirm, None),
        proposals::COLLECT => Route::Operator(O::Collect, None),
        proposals::WITHDRAW => Route::Operator(O::Withdraw, None),
        proposals::PROPOSAL_LIST => Route::Operator(O::ProposalList, Some(AdminVerb::Inspect)),
        admin::FREEZE => Route::Operator(O::Freeze, Some(AdminVerb::Freeze)),
        admin::REVOKE => Route::Operator(O::Revoke, Some(AdminVerb::Enrol)),
        admin::IDENTITY_LIST => Route::Operator(O::IdentityList, Some(AdminVerb::Inspect)),
        admin::EPOCH_LIST => Route::Operator(O::EpochList, Some(AdminVerb::Inspect)),
        admin::QUARANTINE_LIST => Route::Operator(O::QuarantineList, Some(AdminVerb::Inspect)),
        admin::BINDING_LIST => Route::Operator(O::BindingList, Some(AdminVerb::Inspect)),
        admin::POLICY_SHOW => Route::Operator(O::PolicyShow, Some(AdminVerb::Inspect)),
        admin::REPLICA_LIST => Route::Operator(O::ReplicaList, Some(AdminVerb::Inspect)),
        admin::BUDGET_LIST => Route::Operator(O::BudgetList, Some(AdminVerb::Inspect)),
        admin::AUDIT_TAIL => Route::Operator(O::AuditTail, Some(AdminVerb::Inspect)),
        admin::BACKUP_BEGIN => Route::Operator(O::BackupBegin, Some(AdminVerb::Backup)),
        admin::BACKUP_READ => Route::Operator(O::BackupRead, Some(AdminVerb::Backup)),
        _ => return None,
    })
}

/// When the room is taken that an answer takes up until it is sent: whoever asks and does not read fills his share of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerRoom {
    /// Never: a brake, or the status. It is short, and gets through however much lies about that nobody reads; its body has room of
    /// its own, too.
    Urgent,
    /// Before anything is done, up to so many bytes: what was done is told.
    Before(usize),
    /// Once its length is known. Nothing is lost with it; what carries keys is asked about again after that.
    After,
}

/// With secrets in the hand of whoever asked once, or the words of a policy.
const OPERATORS_ANSWER_LEN_MAX: usize = 256 << 10;

impl Route {
    /// When its answer's room is taken.
    pub(super) fn answer_room(self) -> AnswerRoom {
        use GatewayRoute as G;
        use OperatorRoute as O;
        match self {
            Self::OperatorStatus
            | Self::Operator(O::Lock | O::Freeze | O::Revoke | O::Withdraw | O::ShredCancel, _) => {
                AnswerRoom::Urgent
            }
            Self::Operator(
                O::KeysetList
                | O::ShredPlan
                | O::ShredCertificate
                | O::ProposalList
                | O::IdentityList
                | O::EpochList
                | O::QuarantineList
                | O::BindingList
                | O::PolicyShow
                | O::ReplicaList
                | O::BudgetList
                | O::AuditTail
                | O::BackupRead,
                _,
            )
            | Self::Gateway(
                G::Session
                | G::Binding
                | G::Bindings
                | G::Epoch
                | G::LogHead
                | G::Lease
                | G::Derive
                | G::Continue,
            ) => AnswerRoom::After,
            Self::Operator(..) | Self::Gateway(G::Finish) => AnswerRoom::Before(OPERATORS_ANSWER_LEN_MAX),
            _ => AnswerRoom::Before(SMALL_BODY_LEN_MAX),
        }
    }

    /// Whether a body of this length has room that only brakes have.
    pub(super) fn is_urgent(self, body_len: usize) -> bool {
        self.answer_room() == AnswerRoom::Urgent && body_len <= SMALL_BODY_LEN_MAX
    }

    pub(super) fn body_len_max(self) -> usize {
        use GatewayRoute as G;
        match self {
            Self::Gateway(G::Lease | G::Derive | G::Continue | G::Finish) => routes::REQUEST_LEN_MAX,
            // With what other replicas' logs tell of leases.
            Self::Operator(OperatorRoute::Revoke, _) => routes::REQUEST_LEN_MAX,
            _ => SMALL_BODY_LEN_MAX,
        }
    }
}
