//! What is asked of a call, held against what a rule allows.

use std::collections::BTreeSet;

use super::{Few, Unmet};
use crate::call::Call;
use crate::foreign::Foreign;
use crate::policy::{Allowed, Privileges};

impl Privileges {
    /// Everything in this call that is not allowed; nothing where it may be made. What is not known of a call is not asked.
    pub fn unmet(&self, call: &Call) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if let Some(function) = call.function.as_ref().filter(|name| !self.functions.permits(name)) {
            unmet.push(Unmet::Function { function: Foreign::new(function) });
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

    /// These privileges for this call alone: the function, the databases and the caller that are known of it, and no others.
    pub(super) fn granted(&self, call: &Call) -> Self {
        let mut granted = self.clone();
        if let Some(function) = &call.function {
            granted.functions = Allowed::Only(vec![function.clone()]);
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
