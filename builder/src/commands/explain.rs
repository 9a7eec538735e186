//! `explain-dockerfile` on the command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use errors::files;
use images::Platform;

use super::{Answer, Session};
use crate::explain::{Explanation, Hazard};
use crate::plan::PlanRequest;

use crate::dockerfile::{Dockerfile, SIZE_LIMIT};
use crate::error::{Error, Kind, Result};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Dockerfile to explain; it need not be committed, since nothing is built.
    #[arg(default_value = "Dockerfile")]
    file: PathBuf,
    /// Stage to explain, instead of the last one.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value for an ARG of the Dockerfile; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// Those that a build of the file would have, with the line.
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let path = &arguments.file;
    let bytes = files::read(path, SIZE_LIMIT)?;
    let named = |error: crate::dockerfile::DockerfileError| {
        Error::new(Kind::Input, format!("{}: {error}", path.display()))
    };
    let file = Dockerfile::parse(&bytes).map_err(named)?;
    let given = arguments.build_arg.iter().map(|pair| {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Error::new(Kind::Usage, format!("--build-arg {pair} is not of the form NAME=VALUE"))
        })?;
        Ok((name.to_owned(), value.to_owned()))
    });
    let request = PlanRequest {
        target: arguments.target.clone(),
        arguments: given.collect::<Result<BTreeMap<_, _>>>()?,
        labels: BTreeMap::new(),
        platform: Platform::here(),
        created: "1970-01-01T00:00:00Z".to_owned(),
    };
    let explained = Explanation::new(&file, &request).map_err(named)?;
    let value = serde_json::to_value(&explained)
        .map_err(|cause| Error::new(Kind::Bug, "writing the explanation").because(cause))?;
    session.result(&text(&explained), &value)?;
    Ok(Answer::Yes)
}

fn text(explained: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |words: String| _ = writeln!(text, "{words}");
    for stage in &explained.stages {
        let at = stage.line.map_or_else(|| "  image".to_owned(), |number| format!("{number:>7}"));
        line(format!("{at}  FROM {} ({})", stage.base, stage.name));
        hazards(&stage.hazards, &mut line);
        for step in &stage.steps {
            line(format!("{:>7}  {}", step.line, step.instruction));
            hazards(&step.hazards, &mut line);
        }
    }
    let count = explained.count();
    let total: usize = count.values().sum();
    line(String::new());
    line(match total {
        0 => "nothing here is known to be hard to repeat".to_owned(),
        _ => {
            let rules: Vec<String> = count.iter().map(|(rule, times)| format!("{rule} ({times})")).collect();
            format!("{total} to look at: {}", rules.join(", "))
        }
    });
    let left = explained
        .stages_in_file
        .saturating_sub(explained.stages.iter().filter(|it| it.line.is_some()).count());
    if left > 0 {
        line(format!("{left} stage(s) of the file are not needed and not built"));
    }
    text
}

fn hazards(found: &[Hazard], line: &mut impl FnMut(String)) {
    for hazard in found {
        line(format!("         ! {}: {}", hazard.rule, hazard.why));
        line(format!("           {}", hazard.fix));
    }
}
