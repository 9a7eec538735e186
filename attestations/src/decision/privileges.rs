//! What is asked of a call, held against what a rule allows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Few, Unmet};
use crate::call::Call;
use crate::foreign::Foreign;
use crate::policy::{Allowed, Arguments, Privileges};

impl Privileges {
    /// Everything in this call that is not allowed; nothing where it may be made. What is not known of a call is not asked.
    pub fn unmet(&self, call: &Call) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if let Some(function) = &call.function {
            unmet.extend(self.lacks(function, call.arguments.as_ref()));
        }
        let asked = call.databases.iter().flatten();
        let refused: BTreeSet<String> =
            asked.filter(|label| !self.databases.permits(label)).cloned().collect();
        if !refused.is_empty() {
            unmet.push(Unmet::Database { found: Few::of(&refused) });
        }
        if let Some(caller) = call.caller.as_ref().filter(|caller| !self.callers.permit(caller)) {
            unmet.push(Unmet::Caller { caller: Foreign::error(caller) });
        }
        unmet
    }

    /// What does not allow a function to be called with these arguments.
    fn lacks(&self, function: &str, arguments: Option<&Value>) -> Option<Unmet> {
        let name = || Foreign::new(function);
        match (self.functions.arguments(function), arguments) {
            (None, _) => Some(Unmet::Function { function: name() }),
            (Some(Arguments::Fit(schemas)), Some(arguments)) => {
                let misfits = schemas.iter().flat_map(|schema| schema.misfits(arguments)).collect();
                let found = Some(Few::of(&misfits)).filter(|found| !found.is_empty());
                found.map(|found| Unmet::Arguments { function: name(), found })
            }
            (Some(Arguments::Fit(_)), None) | (Some(Arguments::Any), _) => None,
        }
    }

    /// What both grant: of two policies each has to.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            functions: self.functions.and(other.functions),
            databases: self.databases.and(other.databases),
            egress: self.egress.and(&other.egress),
            callers: self.callers.and(other.callers),
            budget: self.budget.and(other.budget),
        }
    }

    /// These privileges for this call alone: the function, the databases and the caller that are known of it, and no others.
    pub(super) fn granted(&self, call: &Call) -> Self {
        let mut granted = self.clone();
        if let Some(function) = &call.function {
            granted.functions = granted.functions.only(function);
        }
        if let Some(databases) = &call.databases {
            granted.databases = Allowed::Only(databases.clone());
        }
        if let Some(caller) = &call.caller {
            granted.callers = granted.callers.only(caller);
        }
        granted
    }
}
