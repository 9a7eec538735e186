//! An error with the errors below it. The outermost one alone says little: an HTTP client's is "error sending request".

use std::error::Error as StdError;

/// The texts of the errors below `error`, outermost first, without what one above has said already: many libraries
/// repeat the text of a cause in their own.
pub fn causes(error: &dyn StdError) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push('\n');
            said.push_str(&text);
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

/// The error and its causes in one text: `outer: inner: innermost`.
pub fn line(error: &dyn StdError) -> String {
    causes(error).into_iter().fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether an error of the chain, `error` itself or one below it, is a `T` for which `holds` is true.
pub(crate) fn any<T: StdError + 'static>(
    error: &(dyn StdError + 'static),
    holds: impl Fn(&T) -> bool,
) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<T>().is_some_and(&holds) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Kind};

    #[test]
    fn each_cause_is_named_once_and_in_order() {
        let innermost = Error::new(Kind::Network, "no route to host");
        let inner = Error::new(Kind::Network, "connecting to r.example").because(innermost);
        let outer = Error::new(Kind::Network, "fetching the manifest").because(inner);
        assert_eq!(line(&outer), "fetching the manifest: connecting to r.example: no route to host");
        assert_eq!(causes(&outer), ["connecting to r.example", "no route to host"]);
    }

    #[test]
    fn what_an_outer_error_said_is_not_repeated() {
        let innermost = Error::new(Kind::Input, "line 3");
        let inner = Error::new(Kind::Input, "unknown word").because(innermost);
        let outer = Error::new(Kind::Input, "line 3: unknown word").because(inner);
        assert_eq!(line(&outer), "line 3: unknown word");
    }
}
