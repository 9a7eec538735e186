//! Errors of failed steps: the kind, which says who has to act, the line in the Dockerfile, and a hint.

use super::leak;
use super::mounts::MountError;
use super::steps::copy;
use crate::error::{Error, Kind};
use crate::plan::step::Step;
use recorder::{Incident, IncidentKind};

/// The step did something on the network that cannot be reproduced, or whose record is incomplete.
pub(crate) fn fatal_incidents(step: &Step, first: &Incident, all: &[&Incident]) -> Error {
    let (kind, what, hint) = match first.kind {
        IncidentKind::NotKept => (
            Kind::Machine,
            "what it took from the network could not be kept",
            "free some space for the state directory, or build with --no-keep",
        ),
        IncidentKind::Changed => (
            Kind::Input,
            "a kept material is not what was recorded",
            "`countersign-builder materials verify` finds what was changed; remove it, and fetch or import it again",
        ),
        IncidentKind::HoldsSecret => (
            Kind::Step,
            "what would be recorded of its network holds one of its secrets",
            "send the secret in the Authorization header, of which nothing is kept; it was not kept now either",
        ),
        _ => (
            Kind::Step,
            "it asked for something that was not recorded",
            "the step does not ask the same each time: see `explain-dockerfile`, or repeat it over the network with --online",
        ),
    };
    Error::new(kind, format!("{}: {what}", step.named()))
        .details(all.iter().map(ToString::to_string).collect())
        .hint(hint)
}

/// A step wrote a secret into its files.
pub(crate) fn leaked(step: &Step, leak: &leak::Leak) -> Error {
    let what = format!("{}: it wrote the secret {} into the image", step.named(), leak.id);
    Error::new(Kind::Step, what).details(vec![format!("{} {} holds it", leak.part, leak.path)]).hint(
        "let the step use the secret where it is mounted without copying it, and take away what its programs write down of it; nothing of the step was kept",
    )
}

/// The sandbox failed.
pub(crate) fn machine(cause: sandbox::Error) -> Error {
    let hint = match &cause {
        sandbox::Error::NotRoot { .. } => "run it as root",
        sandbox::Error::NoRuntime { .. } => "install runc",
        _ => "check the machine's kernel, mounts and free space",
    };
    Error::new(Kind::Machine, "the sandbox could not be set up").hint(hint).because(cause)
}

/// The user cancelled the build.
pub(crate) fn cancelled() -> Error {
    Error::new(Kind::Step, "the build was interrupted")
}

/// The files of a step cannot become a layer. It is the step's fault, unless reading or writing failed.
pub(crate) fn layer_failed(step: &Step, cause: images::Error) -> Error {
    if matches!(&cause, images::Error::Io { cause, .. } if is_too_long(cause)) {
        return too_long(step);
    }
    let is_its_own = matches!(cause, images::Error::Refused { .. } | images::Error::TooLarge { .. });
    let what = format!("{}: {cause}", step.named());
    let reports = Error::from(cause);
    let (kind, hint) = match (is_its_own, reports.hint_text()) {
        (true, _) => (
            Kind::Step,
            "what a step leaves must be a layer that others can read: remove the rest in the same RUN"
                .to_owned(),
        ),
        (false, hint) => (reports.kind(), hint.unwrap_or_default().to_owned()),
    };
    Error::new(kind, what).because(reports).hint(hint)
}

/// Whether a path was too long for the kernel.
pub(crate) fn is_too_long(cause: &std::io::Error) -> bool {
    cause.kind() == std::io::ErrorKind::InvalidFilename
}

/// A shell can create such a path by changing folders one by one. Nothing could open the file by its full path, or
/// unpack it from an archive.
pub(crate) fn too_long(step: &Step) -> Error {
    Error::new(
        Kind::Step,
        format!("{}: it made a path longer than 4096 bytes, the most that Linux takes", step.named()),
    )
    .hint("remove it in the same RUN")
}

/// A COPY, ADD or WORKDIR failed.
pub(crate) fn copy_failed(step: &Step, cause: copy::CopyError) -> Error {
    let cause = match cause {
        copy::CopyError::Layer(cause) => return layer_failed(step, cause),
        copy::CopyError::Source(cause) => {
            let cause = Error::from(cause);
            let hint = cause.hint_text().unwrap_or_default().to_owned();
            return Error::new(cause.kind(), format!("{}: {cause}", step.named())).hint(hint);
        }
        other => other,
    };
    let kind = if cause.is_machine() { Kind::Machine } else { Kind::Input };
    Error::new(kind, format!("{}: {cause}", step.named())).because(cause)
}

/// A mount of a step could not be prepared.
pub(crate) fn mount_failed(step: &Step, error: MountError) -> Error {
    match error {
        MountError::Copy(cause) => copy_failed(step, cause),
        MountError::Machine(cause) => machine(cause),
        MountError::Stage(error) => error,
    }
}
