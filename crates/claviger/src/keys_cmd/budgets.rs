use claviger_keyapi::admin::{self, BudgetInfo, BudgetList};
use claviger_keyapi::routes::Empty;

use super::Operator;
use super::connection::Connection;
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    Show(ShowArguments),
}

/// Show how far each budget is used
///
/// A budget is a `[[budget]]` of the policy: most distinct epochs (by "lease") and objects (by the other
/// verbs) of a keyset that a gateway is given within a window that moves on with the time. A gateway
/// that wants more is frozen. If it was only busy, two operators raise the budget and unfreeze it;
/// that begins a new window:
///   claviger keys policy propose FILE
///   claviger keys unfreeze --gateway NAME
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    operator: Operator,
}

pub(super) async fn run(command: Command) -> Result<(), Exit> {
    let Command::Show(arguments) = command;
    let list: BudgetList = Connection::open(&arguments.operator)?.ask(admin::BUDGET_LIST, &Empty {}).await?;
    if list.budgets.is_empty() {
        say!("the policy has no [[budget]]: a gateway that is stolen opens all that its grants reach");
    }
    for budget in &list.budgets {
        say!("{}", line(budget));
        if let Some(why) = &budget.stopped {
            say!("  stopped: {why}");
        }
    }
    Ok(())
}

fn line(budget: &BudgetInfo) -> String {
    let part = |used: Option<u64>, max: Option<u32>, what: &str| match (used, max) {
        (Some(used), Some(max)) => format!("{used} of {max} {what}"),
        _ => format!("any number of {what}"),
    };
    let epochs = part(budget.epochs, budget.epochs_max, "epochs");
    let objects = part(budget.objects, budget.objects_max, "objects");
    format!("{}  {}  {epochs}, {objects} in {} s", budget.identity, budget.keyset, budget.window_s)
}
