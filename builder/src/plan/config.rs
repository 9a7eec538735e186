//! Changes of an image's configuration by the Dockerfile.

use images::Platform;
pub(crate) use images::image::{Config, Execution, History, RootFs};
use serde_json::Value;

use crate::dockerfile::Health;

/// Docker's default for an image without `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The configuration of `FROM scratch`, as in BuildKit.
pub(crate) fn scratch(platform: &Platform) -> Config {
    let Platform { architecture, os, variant } = platform.clone();
    Config {
        architecture,
        os,
        variant,
        config: Execution {
            env: vec![format!("PATH={DEFAULT_PATH}")],
            working_dir: "/".to_owned(),
            ..Execution::default()
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        ..Config::default()
    }
}

/// The configuration that a build on top of `base` starts with: all but Docker's records of how the base was built,
/// which do not apply to the new image.
pub(crate) fn on_base(base: &Config) -> Config {
    let mut config = base.clone();
    config.created = None;
    config.other.retain(|name, _| name.starts_with("os."));
    if variable(&config.config, "PATH").is_none() {
        config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    config
}

/// The value of an environment variable.
pub(crate) fn variable<'a>(execution: &'a Execution, name: &str) -> Option<&'a str> {
    let mut pairs = execution.env.iter().map(|pair| name_and_value(pair));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// An environment entry. One without `=`, as some builders write, is an empty variable.
pub(crate) fn name_and_value(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Sets an environment variable at its existing position, or at the end.
pub(crate) fn set_variable(execution: &mut Execution, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    let is_it = |pair: &&mut String| name_and_value(pair).0 == name;
    match execution.env.iter_mut().find(is_it) {
        Some(known) => *known = pair,
        None => execution.env.push(pair),
    }
}

/// The words of `SHELL`, or the default ones.
pub(crate) fn shell(execution: &Execution) -> Vec<String> {
    match execution.other.get("Shell").and_then(Value::as_array) {
        Some(words) if !words.is_empty() => {
            words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
    }
}

/// Sets the words of `SHELL`.
pub(crate) fn set_shell(execution: &mut Execution, words: &[String]) {
    execution.other.insert("Shell".to_owned(), words.into());
}

/// Sets the signal that stops a container of the image.
pub(crate) fn set_stop_signal(execution: &mut Execution, signal: &str) {
    execution.other.insert("StopSignal".to_owned(), signal.into());
}

/// Sets the health check. Zero values are left to the engine.
pub(crate) fn set_health(execution: &mut Execution, health: &Health) {
    let mut value = serde_json::json!({ "Test": health.test });
    let numbers = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
        ("Retries", health.retries),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        value[name] = number.into();
    }
    execution.other.insert("Healthcheck".to_owned(), value);
}

/// The `ONBUILD` instructions of the image.
///
/// # Errors
/// When they are not a list of strings.
pub(crate) fn triggers(execution: &Execution) -> Result<Vec<String>, String> {
    match execution.other.get("OnBuild") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => serde_json::from_value(value.clone()).map_err(|cause| cause.to_string()),
    }
}

/// Removes the `ONBUILD` instructions, which run once.
pub(crate) fn forget_triggers(execution: &mut Execution) {
    execution.other.remove("OnBuild");
}

/// Adds an `ONBUILD` instruction.
pub(crate) fn add_trigger(execution: &mut Execution, text: &str) {
    let triggers = execution.other.entry("OnBuild".to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    match triggers {
        Value::Array(all) => all.push(text.into()),
        other => *other = serde_json::json!([text]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_docker_writes_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","docker_version":"20","container":"x","created":"2020-01-01T00:00:00Z",
            "config":{"User":"","Env":["PATH=/bin","A=b=c","B"],"Cmd":["sh"],"Volumes":null,"Entrypoint":null,
            "OnBuild":["RUN x"],"Labels":null,"Shell":["/bin/bash","-c"]},"history":null,
            "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = on_base(&serde_json::from_str(text).unwrap());
        assert_eq!(variable(&config.config, "A"), Some("b=c"));
        assert_eq!((variable(&config.config, "B"), variable(&config.config, "C")), (Some(""), None));
        assert_eq!(shell(&config.config), ["/bin/bash", "-c"]);
        let mut execution = config.config.clone();
        assert_eq!(triggers(&execution).unwrap(), ["RUN x"]);
        forget_triggers(&mut execution);
        assert!(triggers(&execution).unwrap().is_empty());
        assert!(config.other.is_empty() && config.created.is_none());
        assert_eq!(shell(&Execution::default()), ["/bin/sh", "-c"]);
    }

    #[test]
    fn a_variable_keeps_its_place() {
        let mut execution =
            Execution { env: vec!["A=1".to_owned(), "B=2".to_owned()], ..Execution::default() };
        set_variable(&mut execution, "A", "3");
        set_variable(&mut execution, "C", "4");
        assert_eq!(execution.env, ["A=3", "B=2", "C=4"]);
    }
}
