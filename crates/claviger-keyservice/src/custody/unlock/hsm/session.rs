//! From a module's path to a session on the right token, logged in, and away again. Everything is set up anew each time: that
//! finds tokens that came back, and leaves nothing behind that could be lost meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::{HsmConfig, HsmProblem};
use crate::ServiceError;
use crate::files::read_secret;

/// How often, and how far apart, a turn at the HSM is asked for: 5 s in all.
const TURN_TRIES: u32 = 100;
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// Modules that were loaded. They stay: unloading a library with threads of its own is not safe. The lock also makes one use
/// at a time, because C_Initialize and C_Finalize are the process's, not a caller's.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// What a session may do with the token's objects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Use them.
    Read,
    /// Make them.
    Write,
}

/// Runs something in a session that is logged in as the token's user.
pub(super) fn with_session<T>(
    config: &HsmConfig,
    access: Access,
    work: impl FnOnce(&Session) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    // Before anything is asked of the HSM: a PIN that others can read is refused.
    let pin = read_secret(&config.pin_file)?;
    let pin = AuthPin::new(pin.trim_end_matches(['\r', '\n']).to_owned().into_boxed_str());
    on_token(config, |module, slot| {
        let opened = match access {
            Access::Read => module.open_ro_session(slot),
            Access::Write => module.open_rw_session(slot),
        };
        let session = opened.map_err(failed("session"))?;
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(login_failed(error)),
        }
        work(&session)
    })
}

/// Runs something on the token, without logging in.
pub(super) fn on_token<T>(
    config: &HsmConfig,
    work: impl FnOnce(&Pkcs11, Slot) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let mut modules = one_at_a_time()?;
    let module = match modules.get(&config.module) {
        Some(module) => module.clone(),
        None => {
            let module = Pkcs11::new(&config.module)
                .map_err(|error| hsm(HsmProblem::Module, &format!("{}: {error}", config.module.display())))?;
            modules.insert(config.module.clone(), module.clone());
            module
        }
    };
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(hsm(HsmProblem::Module, &detail("initialise", &error))),
    }
    let _end = Finalize(module.clone());
    let slot = find(&module, config)?;
    work(&module, slot)
}

/// Waits for another use to end, but not for one that hangs.
fn one_at_a_time() -> Result<MutexGuard<'static, BTreeMap<PathBuf, Pkcs11>>, ServiceError> {
    for _ in 0..TURN_TRIES {
        match MODULES.try_lock() {
            Ok(modules) => return Ok(modules),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(TURN_PAUSE),
        }
    }
    Err(hsm(HsmProblem::Failed, "an earlier call to it has not returned"))
}

/// Ends the module's use, however that went.
struct Finalize(Pkcs11);

impl Drop for Finalize {
    fn drop(&mut self) {
        if let Err(error) = self.0.clone().finalize() {
            tracing::warn!(error = detail("finalise", &error), "the HSM's module did not end cleanly");
        }
    }
}

fn find(module: &Pkcs11, config: &HsmConfig) -> Result<Slot, ServiceError> {
    let is_it = |slot: &Slot| {
        // A slot that can't say what it holds is none of ours.
        module.get_token_info(*slot).is_ok_and(|token| {
            token.label().trim_end() == config.token
                && config.serial.as_ref().is_none_or(|serial| token.serial_number().trim_end() == serial)
        })
    };
    let slots = module.get_slots_with_token().map_err(failed("slots"))?;
    let found: Vec<Slot> = slots.into_iter().filter(is_it).collect();
    match found.as_slice() {
        [slot] => Ok(*slot),
        [] => Err(hsm(HsmProblem::Absent, &config.token)),
        _ => Err(hsm(HsmProblem::Ambiguous, &config.token)),
    }
}

fn login_failed(error: Error) -> ServiceError {
    match error {
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
            hsm(HsmProblem::Pin, "login")
        }
        Error::Pkcs11(RvError::PinLocked | RvError::PinExpired | RvError::UserPinNotInitialized, _) => {
            hsm(HsmProblem::PinLocked, "login")
        }
        other => failed("login")(other),
    }
}

/// What a failed call means. The names that PKCS#11 gives its errors are enough; their texts are paragraphs.
pub(super) fn failed(what: &'static str) -> impl Fn(Error) -> ServiceError {
    move |error| {
        let problem = match error {
            Error::Pkcs11(
                RvError::TokenNotPresent
                | RvError::DeviceRemoved
                | RvError::SlotIdInvalid
                | RvError::SessionHandleInvalid
                | RvError::SessionClosed,
                _,
            ) => HsmProblem::Absent,
            _ => HsmProblem::Failed,
        };
        hsm(problem, &detail(what, &error))
    }
}

fn detail(what: &str, error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{what}: {function:?}: {code:?}"),
        other => format!("{what}: {other}"),
    }
}

pub(super) fn hsm(problem: HsmProblem, detail: &str) -> ServiceError {
    ServiceError::Hsm { problem, detail: detail.to_owned() }
}
