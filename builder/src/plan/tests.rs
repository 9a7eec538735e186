#![allow(clippy::unwrap_used)]

use super::config;
use super::step::{Action, Copying, Execution, Inline, Script};
use super::*;
use crate::dockerfile::Chmod;

fn request(arguments: &[(&str, &str)], target: Option<&str>) -> PlanRequest {
    PlanRequest {
        target: target.map(str::to_owned),
        arguments: arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        labels: BTreeMap::new(),
        platform: "linux/amd64".parse().unwrap(),
        created: "2026-01-02T03:04:05Z".to_owned(),
    }
}

/// The steps and configuration of the last stage, on an empty base.
fn planned(text: &str, arguments: &[(&str, &str)]) -> Result<Planned, DockerfileError> {
    let file = Dockerfile::parse(text.as_bytes())?;
    let request = request(arguments, None);
    let plan = Plan::new(&file, &request)?;
    plan.steps(file.stages.len() - 1, config::scratch(&Platform::linux("amd64")))
}

fn histories(text: &str, arguments: &[(&str, &str)]) -> Vec<String> {
    planned(text, arguments).unwrap().steps.into_iter().map(|step| step.created_by).collect()
}

fn needed(
    text: &str,
    target: Option<&str>,
    arguments: &[(&str, &str)],
) -> Result<Vec<Needed>, DockerfileError> {
    let file = Dockerfile::parse(text.as_bytes())?;
    let request = request(arguments, target);
    Ok(Plan::new(&file, &request)?.needed().to_vec())
}

#[test]
fn only_the_stages_that_the_target_needs() {
    let text = "ARG V=1\nFROM a:$V AS one\nFROM b:$V AS two\nFROM One AS three\nFROM scratch\nCOPY --from=three /x /\nCOPY --from=0 /y /";
    let stages = |target, arguments: &[_]| needed(text, target, arguments).unwrap();
    assert_eq!(
        stages(None, &[]),
        [
            Needed { stage: 0, base: Base::Image("a:1".to_owned()) },
            Needed { stage: 2, base: Base::Stage(0) },
            Needed { stage: 3, base: Base::Scratch },
        ]
    );
    assert_eq!(
        stages(Some("TWO"), &[("V", "2")]),
        [Needed { stage: 1, base: Base::Image("b:2".to_owned()) }]
    );
    for text in [
        "FROM a\nCOPY --from=1 x y",
        "FROM a AS b\nCOPY --from=b x y",
        "FROM a\nCOPY --from=0 x y",
        "ARG E\nFROM $E",
        "FROM --platform=linux/s390x a",
    ] {
        assert!(needed(text, None, &[]).is_err(), "{text}");
    }
    assert!(needed(text, Some("four"), &[]).is_err());
    assert!(needed("FROM --platform=$TARGETPLATFORM a", None, &[]).is_ok());
}

#[test]
fn scopes_of_arguments_and_variables() {
    let text = concat!(
        "ARG GLOBAL=g\nARG UNSEEN=u\nFROM scratch\n",
        "ARG GLOBAL\nARG OWN=o\nARG OWN2=$OWN$GLOBAL$UNSEEN\nARG NONE\nARG TARGETARCH\n",
        "ENV A=1 B=$A$OWN2\nENV A=2 C=$A\nENV OWN=env\nARG OWN=late\n",
        "RUN x\nLABEL l=$OWN m='$OWN' \"n o\"=${NONE:-none} p=$TARGETARCH",
    );
    assert_eq!(
        histories(text, &[("GLOBAL", "given")]),
        [
            "ARG GLOBAL=given",
            "ARG OWN=o",
            "ARG OWN2=ogiven",
            "ARG NONE",
            "ARG TARGETARCH=amd64",
            "ENV A=1 B=ogiven",
            "ENV A=2 C=1",
            "ENV OWN=env",
            "ARG OWN=late",
            "RUN |5 GLOBAL=given OWN=late OWN2=ogiven NONE= TARGETARCH=amd64 /bin/sh -c x",
            "LABEL l=late m=$OWN n o=none p=amd64",
        ]
    );
    let planned = planned(text, &[]).unwrap();
    let Action::Run(Execution { env, cwd, user, .. }) = &planned.steps[9].action else { panic!() };
    let value = |name: &str| {
        env.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(
        (value("OWN"), value("GLOBAL"), value("NONE"), value("A")),
        (vec!["late"], vec!["g"], vec![], vec!["2"])
    );
    assert_eq!((cwd.as_str(), user.as_str()), ("/", ""));
    let path = format!("PATH={}", config::DEFAULT_PATH);
    assert_eq!(planned.config.config.env, [path.as_str(), "A=2", "B=og", "C=1", "OWN=env"]);
}

#[test]
fn commands_shells_and_entry_points() {
    let text = "FROM scratch\nCMD early\nENTRYPOINT [\"e\"]\nSHELL [\"/bin/bash\",\"-c\"]\nRUN a && b\nRUN [\"c\", \"$d\"]\nCMD f $g";
    let planned = planned(text, &[]).unwrap();
    assert_eq!(planned.config.config.entrypoint, Some(vec!["e".to_owned()]));
    assert_eq!(
        planned.config.config.cmd,
        Some(vec!["/bin/bash".to_owned(), "-c".to_owned(), "f $g".to_owned()])
    );
    let Action::Run(Execution { args, .. }) = &planned.steps[4].action else { panic!() };
    assert_eq!(args, &["c", "$d"]);
    assert_eq!(planned.steps[3].created_by, "RUN /bin/bash -c a && b");
    assert_eq!(planned.steps[5].created_by, "CMD [\"/bin/bash\" \"-c\" \"f $g\"]");
}

#[test]
fn an_entry_point_clears_the_command_of_the_base() {
    let file = Dockerfile::parse(b"FROM scratch\nENTRYPOINT [\"e\"]").unwrap();
    let request = request(&[], None);
    let mut base = config::scratch(&Platform::linux("amd64"));
    base.config.cmd = Some(vec!["python".to_owned()]);
    let planned = Plan::new(&file, &request).unwrap().steps(0, base).unwrap();
    assert_eq!(planned.config.config.cmd, None);
}

#[test]
fn paths_of_workdir_and_copy() {
    let text = concat!(
        "FROM scratch\nUSER alice\nWORKDIR /app/x/..\nWORKDIR sub\nWORKDIR /\nWORKDIR /app\n",
        "COPY a .\nCOPY a b\nCOPY a b/\nCOPY a b ./\nCOPY --chown=1:2 --chmod=0644 a ../../../etc/\nCOPY a ..\nCOPY a x.",
    );
    let planned = planned(text, &[]).unwrap();
    assert_eq!(
        planned.steps[1].action,
        Action::Workdir { path: "/app".to_owned(), user: "alice".to_owned() }
    );
    assert_eq!(planned.steps[2].created_by, "WORKDIR /app/sub");
    assert_eq!(planned.steps[3].action, Action::Configure);
    let destinations: Vec<_> = planned.steps[5..]
        .iter()
        .map(|step| match &step.action {
            Action::Copy(Copying { destination, .. }) => destination.as_str(),
            _ => "",
        })
        .collect();
    assert_eq!(destinations, ["/app/", "/app/b", "/app/b/", "/app/", "/etc/", "/", "/app/x."]);
    assert!(
        matches!(&planned.steps[9].action, Action::Copy(Copying { chmod: Some(Chmod::Octal(0o644)), chown: Some(chown), .. }) if chown == "1:2")
    );
    for text in ["COPY a <<b c\nb", "COPY --chmod=u+y a b", "COPY --chmod=77777 a b"] {
        assert_eq!(
            crate::plan::tests::planned(&format!("FROM scratch\n{text}"), &[]).unwrap_err().line,
            2,
            "{text}"
        );
    }
}

#[test]
fn ports() {
    let planned = planned("FROM scratch\nENV P=80\nEXPOSE $P 53/UDP 8000-8002", &[]).unwrap();
    let ports: Vec<_> = planned.config.config.exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
    for word in ["x", "80/http", "9-8", "65536", "1-2-3"] {
        assert!(crate::plan::tests::planned(&format!("FROM scratch\nEXPOSE {word}"), &[]).is_err(), "{word}");
    }
}

#[test]
fn an_image_to_copy_from_is_a_stage_in_front() {
    let text = "FROM a AS one\nCOPY --from=tool:1 /x /\nFROM one\nCOPY --from=tool:1 /y /\nCOPY --from=other:2 /z /\nFROM scratch\nCOPY --from=third:3 / /";
    let image = |name: &str| Base::Image(name.to_owned());
    assert_eq!(
        needed(text, Some("1"), &[]).unwrap(),
        [
            Needed { stage: 3, base: image("tool:1") },
            Needed { stage: 4, base: image("other:2") },
            Needed { stage: 0, base: image("a") },
            Needed { stage: 1, base: Base::Stage(0) },
        ]
    );
    let file = Dockerfile::parse(text.as_bytes()).unwrap();
    let request = request(&[], None);
    let plan = Plan::new(&file, &request).unwrap();
    assert_eq!(plan.needed().len(), 2, "only what the target needs");
    assert_eq!(
        (plan.name(5), plan.name(0), plan.name(2)),
        ("third:3".into(), "one".into(), "stage 2".into())
    );
    let base = config::scratch(&Platform::linux("amd64"));
    assert_eq!(
        plan.steps(5, base.clone()).unwrap(),
        Planned { steps: Vec::new(), config: base, arguments: Vec::new() }
    );
}

#[test]
fn what_a_base_wants_done_is_done_first_and_once() {
    let file = Dockerfile::parse(b"FROM scratch\nRUN own\nONBUILD RUN later").unwrap();
    let request = request(&[], None);
    let mut base = config::scratch(&Platform::linux("amd64"));
    config::add_trigger(&mut base.config, "ENV A=1");
    config::add_trigger(&mut base.config, "RUN trigger");
    let mut plan = Plan::new(&file, &request).unwrap();
    plan.learn(0, &base).unwrap();
    let planned = plan.steps(0, base.clone()).unwrap();
    let created_by: Vec<_> = planned.steps.iter().map(|step| step.created_by.as_str()).collect();
    assert_eq!(created_by, ["ENV A=1", "RUN /bin/sh -c trigger", "RUN /bin/sh -c own", ""]);
    assert_eq!(config::triggers(&planned.config.config).unwrap(), ["RUN later"]);
    for text in ["FROM x", "", "RUN a\nRUN b", "COPY <<E /x\nF"] {
        let mut base = config::scratch(&Platform::linux("amd64"));
        config::add_trigger(&mut base.config, text);
        assert!(Plan::new(&file, &request).unwrap().learn(0, &base).is_err(), "{text}");
    }
}

#[test]
fn what_bases_want_done_needs_stages_and_images() {
    let text = "FROM a AS one\nFROM b AS two\nFROM scratch AS three\nONBUILD COPY --from=one /x /\nONBUILD COPY <<E /e\nt\nE\nFROM three AS four\nFROM c\nCOPY --from=four / /";
    let file = Dockerfile::parse(text.as_bytes()).unwrap();
    let request = request(&[("LATER", "1")], None);
    let mut plan = Plan::new(&file, &request).unwrap();
    let stages = |plan: &Plan<'_>| plan.needed().iter().map(|needed| needed.stage).collect::<Vec<_>>();
    assert_eq!(stages(&plan), [0, 2, 3, 4]);
    assert!(plan.check_arguments().unwrap_err().to_string().contains("LATER"));
    let base = config::scratch(&Platform::linux("amd64"));
    plan.learn(0, &base).unwrap();
    let mut wants = base.clone();
    for text in ["ARG LATER", "RUN --mount=from=tool:1,target=/t x", "COPY --from=two /y /"] {
        config::add_trigger(&mut wants.config, text);
    }
    plan.learn(4, &wants).unwrap();
    plan.learn(4, &base).unwrap();
    assert_eq!(stages(&plan), [5, 0, 1, 2, 3, 4]);
    plan.check_arguments().unwrap();
    let steps = plan.steps(3, base).unwrap().steps;
    let found: Vec<_> = steps.iter().map(|step| (step.line, step.text.as_str())).collect();
    assert_eq!(found, [(8, "COPY --from=one /x /"), (8, "COPY <<E /e")]);
}

#[test]
fn here_documents_are_run_or_copied() {
    let text = concat!(
        "FROM scratch\nENV x=1\n",
        "RUN <<EOF\necho $x\nEOF\n",
        "RUN <<-P\n\t#!/bin/cat\n\tx\nP\n",
        "RUN cat <<EOF > /a\n$x\nEOF\n",
        "COPY <<A <<\"B\" /etc/\n$x \\$x \"q\"\nA\n$x\nB\n",
    );
    let planned = planned(text, &[]).unwrap();
    let run = |at: usize| match &planned.steps[at].action {
        Action::Run(Execution { args, script, .. }) => (args.last().unwrap().as_str(), script.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(run(1), ("echo $x\n", None));
    let script = Script { path: "/dev/pipes/P".to_owned(), text: "#!/bin/cat\nx\n".to_owned() };
    assert_eq!(run(2), ("/dev/pipes/P", Some(script)));
    assert_eq!(run(3), ("cat <<EOF > /a\n$x\nEOF", None));
    let Action::Copy(Copying { inline, sources, .. }) = &planned.steps[4].action else { panic!() };
    let file = |name: &str, text: &str| Inline { name: name.to_owned(), text: text.to_owned() };
    assert_eq!(
        (inline.as_slice(), sources.len()),
        ([file("A", "1 $x \"q\"\n"), file("B", "$x\n")].as_slice(), 0)
    );
    assert_eq!(planned.steps[4].created_by, "COPY <<A <<B /etc/");
}

#[test]
fn what_is_empty_once_expanded_is_nothing() {
    let text = "FROM scratch\nWORKDIR /a/\nWORKDIR $none\nUSER a\nUSER $none\nEXPOSE $none\nCOPY --chown=$none --chmod=$none a b\nWORKDIR b/../c/";
    let planned = planned(text, &[]).unwrap();
    let found: Vec<_> = planned.steps.iter().map(|step| step.created_by.as_str()).collect();
    let expected =
        ["WORKDIR /a/", "WORKDIR /a", "USER a", "USER ", "EXPOSE []", "COPY a /a/b", "WORKDIR /a/c"];
    assert_eq!(found, expected);
    let config = &planned.config.config;
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("", "/a/c"));
}

#[test]
fn ports_are_those_inside() {
    let text = "FROM scratch\nEXPOSE 80/ 8080:81 127.0.0.1:8080:82/udp 127.0.0.1::83 [::1]:80:84 8000-8001:90-91 1-9:7";
    let ports = planned(text, &[]).unwrap().config.config.exposed_ports;
    let ports: Vec<_> = ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["7/tcp", "80/tcp", "81/tcp", "82/udp", "83/tcp", "84/tcp", "90/tcp", "91/tcp"]);
    for text in ["80/x", "a", "80:", "1:2-3", "1-3:4-5", "3-1"] {
        assert!(crate::plan::tests::planned(&format!("FROM scratch\nEXPOSE {text}"), &[]).is_err(), "{text}");
    }
}

#[test]
fn volumes_signals_and_checks() {
    let text = "FROM scratch\nENV d=/data\nVOLUME $d /b\nSTOPSIGNAL sigint\nHEALTHCHECK --interval=90s --retries=3 CMD [\"a\",\"b\"]\nMAINTAINER Carol";
    let planned = planned(text, &[]).unwrap();
    let config = &planned.config;
    assert_eq!(config.config.volumes.keys().collect::<Vec<_>>(), ["/b", "/data"]);
    assert_eq!(config.config.other["StopSignal"], "sigint");
    let check =
        serde_json::json!({ "Test": ["CMD", "a", "b"], "Interval": 90_000_000_000_i64, "Retries": 3 });
    assert_eq!(config.config.other["Healthcheck"], check);
    assert_eq!(config.author.as_deref(), Some("Carol"));
    let found: Vec<_> = planned.steps[1..].iter().map(|step| step.created_by.as_str()).collect();
    let health =
        "HEALTHCHECK {Test:[CMD a b] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}";
    assert_eq!(found, ["VOLUME [/data /b]", "STOPSIGNAL sigint", health, "MAINTAINER Carol"]);
    for text in ["VOLUME $none", "STOPSIGNAL SIGNOTHING", "STOPSIGNAL SIGRTMIN+01", "STOPSIGNAL 0"] {
        assert!(crate::plan::tests::planned(&format!("FROM scratch\n{text}"), &[]).is_err(), "{text}");
    }
    for text in
        ["STOPSIGNAL 65", "STOPSIGNAL -1", "STOPSIGNAL SIGRTMIN+3", "STOPSIGNAL RTMAX", "STOPSIGNAL sigpoll"]
    {
        assert!(crate::plan::tests::planned(&format!("FROM scratch\n{text}"), &[]).is_ok(), "{text}");
    }
}

#[test]
fn a_secret_in_an_argument_is_refused() {
    let text = "FROM scratch\nARG GITHUB_TOKEN\nARG TOKENIZER\nARG MY_API_KEY";
    for name in ["GITHUB_TOKEN", "MY_API_KEY"] {
        let error = planned(text, &[(name, "x")]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("secret"), "{error}");
    }
    assert!(planned(text, &[("TOKENIZER", "x")]).is_ok());
}
