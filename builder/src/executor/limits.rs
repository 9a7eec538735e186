//! Resource limits of a step's command. They do not affect the image: a step that meets a limit fails.

use std::time::Duration;

use sandbox::Exit;

use crate::dockerfile::bytes;

/// The options of commands that run steps.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits of RUN steps")]
pub(crate) struct StepLimits {
    /// Most processes and threads that a RUN step may have at one time.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    step_processes: u64,
    /// Seconds after which a RUN step is stopped and the build fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..))]
    step_timeout: u64,
    /// Most memory that a RUN step may use, such as 512m or 8g; without it there is no limit.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    step_memory: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    bytes(text).filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text} is not a size, such as 512m or 8g"))
}

impl StepLimits {
    /// The limits as the sandbox takes them.
    pub(crate) fn of_process(&self) -> sandbox::ProcessLimits {
        sandbox::ProcessLimits {
            memory: self.step_memory,
            pids: Some(self.step_processes),
            wall: Some(Duration::from_secs(self.step_timeout)),
            ..sandbox::ProcessLimits::default()
        }
    }

    /// A hint for a command that ended with `exit` and these last lines of output, if a limit may be the cause.
    pub(crate) fn hint(&self, exit: Exit, last: &[String]) -> Option<String> {
        let said = |words: &[&str]| last.iter().any(|line| words.iter().any(|word| line.contains(word)));
        match exit {
            Exit::TimedOut => Some(format!(
                "a step may take {} seconds: see explain-dockerfile for what it waits for, or give it more with --step-timeout",
                self.step_timeout
            )),
            Exit::OutOfMemory => Some("give it more with --step-memory".to_owned()),
            _ if said(&NO_SPACE) => Some(
                "a disk is full, or has no room for more files: free some, or put the state directory elsewhere with --state-dir; /dev, /dev/shm and mounts of type tmpfs have limits of their own"
                    .to_owned(),
            ),
            _ if said(&NO_PROCESS) => Some(format!(
                "a step may have {} processes and threads at the same time: start fewer, or allow more with --step-processes",
                self.step_processes
            )),
            _ => None,
        }
    }
}

/// Messages of programs for ENOSPC and EDQUOT.
const NO_SPACE: [&str; 2] = ["No space left on device", "Disk quota exceeded"];
/// Messages of programs that cannot start another process.
const NO_PROCESS: [&str; 3] = ["Resource temporarily unavailable", "can't fork", "Cannot fork"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        limits: StepLimits,
    }

    fn limits(arguments: &[&str]) -> Result<StepLimits, clap::Error> {
        Program::try_parse_from([&["x"], arguments].concat()).map(|program| program.limits)
    }

    #[test]
    fn there_are_limits_without_a_word_and_none_can_be_nothing() {
        let all = limits(&[]).unwrap().of_process();
        assert_eq!((all.pids, all.wall, all.memory), (Some(4096), Some(Duration::from_secs(86_400)), None));
        let all = limits(&["--step-memory", "512m", "--step-timeout=5", "--step-processes=9"])
            .unwrap()
            .of_process();
        assert_eq!(
            (all.pids, all.wall, all.memory),
            (Some(9), Some(Duration::from_secs(5)), Some(512 << 20))
        );
        for bad in ["--step-memory=0", "--step-memory=much", "--step-processes=0", "--step-timeout=0"] {
            assert!(limits(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_limit_that_was_met_is_named() {
        let limits = limits(&[]).unwrap();
        let hint = |exit, line: &str| limits.hint(exit, &[line.to_owned()]);
        assert!(hint(Exit::TimedOut, "").unwrap().contains("--step-timeout"));
        assert!(hint(Exit::OutOfMemory, "").unwrap().contains("--step-memory"));
        assert!(hint(Exit::Code(1), "cp: x: No space left on device").unwrap().contains("--state-dir"));
        assert!(
            hint(Exit::Code(2), "sh: can't fork: Resource temporarily unavailable").unwrap().contains("4096")
        );
        assert_eq!(hint(Exit::Code(1), "no such file"), None);
    }
}
