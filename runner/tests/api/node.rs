//! A stand-in for what runs containers.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use attestations::{Call, Decision, Denial, Digest, Question, Reference, Subject, Unmet, run::Erasure};
use runner::{
    Error, Kind, Result,
    node::Outcome,
    record::{Ending, RecordedTask},
    service::{
        Execute,
        queue::{Outgoing, TaskRequest},
    },
    vantage6::Unusable,
};
use sandbox::Canceller;

use crate::site::report;

/// Does as the task's `method` says.
#[derive(Default)]
pub(crate) struct Node {
    at_once: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    pub(crate) written: Mutex<Vec<String>>,
}

impl Execute for Node {
    fn execute(
        &self,
        task: &TaskRequest,
        _place: &RecordedTask,
        canceller: &Canceller,
        starting: &dyn Fn(),
    ) -> Result<Outcome> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let outcome = Node::method(task, canceller, starting);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn release(&self, outgoing: &Outgoing) -> Result<()> {
        self.written.lock().unwrap().push(format!("released {:?}", outgoing.place.task));
        Ok(())
    }

    fn erase(&self, task: u64, _image: Subject, reason: Erasure) -> Result<()> {
        self.written.lock().unwrap().push(format!("erased {task} {reason:?}"));
        Ok(())
    }

    fn keep(&self) -> Option<Duration> {
        None
    }

    fn verify(&self, image: Reference, call: Call) -> Result<Decision> {
        match call.function.as_deref() {
            Some("broken") => Err(Error::new(Kind::Network, "the registry does not answer")),
            _ => Ok(Decision::Denied(denial(image, call, "two reviews"))),
        }
    }
}

fn denial(asked: Reference, call: Call, text: &str) -> Denial {
    let question = Question { asked, digest: Digest::of(b"an image"), call };
    Denial {
        question: question.into(),
        unmet: vec![Unmet::NoRule { repository: text.to_owned() }],
        ignored: Vec::new(),
    }
}

/// As Python writes the deviation of one value.
pub(crate) const NOT_A_NUMBER: &[u8] = br#"{"mean": 1.0, "std": NaN}"#;

impl Node {
    fn method(task: &TaskRequest, canceller: &Canceller, starting: &dyn Fn()) -> Result<Outcome> {
        let ran = |ending, result: Option<&[u8]>| Ok(Outcome::Ran(report(ending, result, b"printed")));
        let denied = |text: &str| {
            Ok(Outcome::Denied(Box::new(denial(task.image.parse().unwrap(), Call::default(), text))))
        };
        match task.input["method"].as_str().unwrap() {
            "average" => {
                starting();
                std::thread::sleep(Duration::from_millis(60));
                ran(Ending::Exited(0), Some(br#"{"average": 4.5}"#))
            }
            "not-json" => {
                let mut report = report(Ending::Exited(0), None, b"printed");
                let reason = "its result is not JSON: trailing characters".to_owned();
                report.unusable = Some(Unusable { reason, remedy: "write JSON" });
                Ok(Outcome::Ran(report))
            }
            "not-a-number" => ran(Ending::Exited(0), Some(NOT_A_NUMBER)),
            "crash" => ran(Ending::Exited(1), None),
            "denied" => denied("two reviews"),
            "denied at length" => denied(&"x".repeat(9 << 20)),
            "failed" => Err(Error::new(Kind::Machine, "no runc").hint("install runc")),
            "failed at length" => Err(Error::new(Kind::Machine, "x".repeat(9 << 20))),
            "panic" => panic!("a defect"),
            "stubborn" => {
                starting();
                let begun = Instant::now();
                while !canceller.is_cancelled() {
                    assert!(begun.elapsed() < Duration::from_secs(20));
                    std::thread::sleep(Duration::from_millis(5));
                }
                ran(Ending::Cancelled, None)
            }
            other => panic!("{other}"),
        }
    }
}
