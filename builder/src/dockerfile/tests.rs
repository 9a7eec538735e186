#![allow(clippy::unwrap_used)]

use super::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> DockerfileError {
    Dockerfile::parse(text.as_bytes()).unwrap_err()
}

fn only(instruction: &str) -> Instruction {
    let mut file = parse(&format!("FROM scratch\n{instruction}\n"));
    assert_eq!(file.stages[0].instructions.len(), 1, "{instruction}");
    file.stages.remove(0).instructions.remove(0).value
}

fn run(command: Command) -> Instruction {
    let (documents, mounts) = (Vec::new(), Vec::new());
    Instruction::Run(RunInstruction { command, documents, network: Network::Default, mounts })
}

fn shell(text: &str) -> Instruction {
    run(Command::Shell(text.to_owned()))
}

fn pair(name: &str, value: &str) -> Pair<String> {
    Pair { name: name.to_owned(), value: value.to_owned() }
}

#[test]
fn a_whole_file() {
    let file = parse(concat!(
        "# syntax=docker/dockerfile:1\n",
        "# escape=\\\n",
        "\n",
        "ARG VERSION=3.11 # not a comment\n",
        "FROM --platform=linux/amd64 python:${VERSION} AS Build\n",
        "  run pip install \\\n",
        "   # a comment inside\n",
        "\n",
        "    pandas \\\n",
        "    numpy\n",
        "FROM scratch\n",
        "COPY --from=build --chown=1:2 /a /b c/\n",
    ));
    assert_eq!(file.arguments[0].value.len(), 5);
    assert_eq!(file.arguments[0].line, 4);
    let build = &file.stages[0];
    assert_eq!((build.name.as_deref(), build.platform.as_deref()), (Some("build"), Some("linux/amd64")));
    assert_eq!(build.base, "python:${VERSION}");
    assert_eq!(build.instructions[0].line, 6);
    assert_eq!(build.instructions[0].value, shell("pip install     pandas     numpy"));
    assert_eq!(file.stage("BUILD"), Some(0));
    assert_eq!(file.stage("1"), Some(1));
    assert_eq!(file.stage("2"), None);
    assert_eq!(parse("FROM a AS b\nFROM c AS B\nFROM d").stage("b"), Some(1));
    let Instruction::Copy(copy) = &file.stages[1].instructions[0].value else { panic!() };
    assert_eq!((copy.from.as_deref(), copy.chown.as_deref()), (Some("build"), Some("1:2")));
    assert_eq!(
        (copy.sources.as_slice(), copy.destination.as_str()),
        (["/a".to_owned(), "/b".to_owned()].as_slice(), "c/")
    );
}

#[test]
fn forms_of_commands() {
    let exec = |words: &[&str]| Command::Exec(words.iter().map(|word| (*word).to_owned()).collect());
    assert_eq!(only("RUN [\"a\", \"b c\"]"), run(exec(&["a", "b c"])));
    assert_eq!(only("RUN [ -f x ] && y"), shell("[ -f x ] && y"));
    assert_eq!(only("CMD []"), Instruction::Cmd(exec(&[])));
    assert_eq!(
        only("ENTRYPOINT python -m x"),
        Instruction::Entrypoint(Command::Shell("python -m x".to_owned()))
    );
    assert_eq!(
        only("SHELL [\"/bin/bash\",\"-c\"]"),
        Instruction::Shell(vec!["/bin/bash".to_owned(), "-c".to_owned()])
    );
    assert_eq!(only("COPY [\"a b\", \"c d\"]"), only("COPY  [ \"a b\" , \"c d\" ]"));
    assert_eq!(refused("FROM a\nCMD [1]").line, 2);
    assert_eq!(refused("FROM a\nSHELL /bin/sh").line, 2);
}

#[test]
fn names_and_values() {
    assert_eq!(only("ENV a=b c=\"d e\""), Instruction::Env(vec![pair("a", "b"), pair("c", "\"d e\"")]));
    assert_eq!(only("ENV a b c=d"), Instruction::Env(vec![pair("a", "b c=d")]));
    assert_eq!(only("ENV a=b\\ c"), Instruction::Env(vec![pair("a", "b\\ c")]));
    assert_eq!(only("LABEL \"x.y\"='z w'"), Instruction::Label(vec![pair("\"x.y\"", "'z w'")]));
    for text in ["ENV", "ENV a", "ENV a=b c", "ENV =b", "LABEL", "ARG", "ARG =x"] {
        assert_eq!(refused(&format!("FROM a\n{text}")).line, 2, "{text}");
    }
}

#[test]
fn what_is_not_supported_is_named_with_its_line() {
    let table = [
        ("ADD --keep-git-dir https://example.org/x.git /", "ADD --keep-git-dir"),
        ("COPY --checksum=sha256:00 a b", "COPY --checksum"),
        ("RUN --mount=type=ssh y", "RUN --mount=type=ssh"),
        ("RUN --network=host y", "RUN --network=host"),
        ("RUN --security=insecure y", "RUN --security"),
        ("LABEL --x=y", "LABEL --x"),
        ("CMD --x y", "CMD --x"),
        ("ADD --parents a b", "ADD --parents"),
    ];
    for (text, name) in table {
        let error = refused(&format!("FROM scratch\n\n{text}"));
        assert_eq!(error.line, 3, "{text}");
        assert!(
            matches!(&error.problem, Problem::Unsupported { what, .. } if what == name),
            "{text}: {error}"
        );
    }
    let error = refused("FROM scratch\nINCLUDE x");
    assert_eq!(error.problem, Problem::UnknownInstruction("INCLUDE".to_owned()));
    assert!(matches!(refused("# syntax=evil/frontend:1\nFROM a").problem, Problem::Unsupported { .. }));
}

#[test]
fn arguments_are_what_docker_takes_them_for() {
    assert_eq!(only("CMD -- y"), Instruction::Cmd(Command::Shell("y".to_owned())));
    assert_eq!(only("CMD"), Instruction::Cmd(Command::Shell(String::new())));
    assert_eq!(only("VOLUME [\" /a \"]"), only("VOLUME /a"));
    let halves = r#"CMD ["\ud83d\ude00\\ud83d","\uDC00\ud83d\n\ud83d"]"#;
    assert_eq!(
        only(halves),
        Instruction::Cmd(Command::Exec(vec![
            "\u{1f600}\\ud83d".to_owned(),
            "\u{fffd}\u{fffd}\n\u{fffd}".to_owned()
        ]))
    );
    assert_eq!(only("CMD [\"\\é"), Instruction::Cmd(Command::Shell("[\"\\é".to_owned())));
    let escaped =
        parse("# escape=`\nFROM a\nCOPY --exclude=a`\"\\ b c\n").stages.remove(0).instructions.remove(0);
    let Instruction::Copy(copy) = escaped.value else { panic!() };
    assert_eq!((copy.excludes, copy.sources), (vec!["a\"\\".to_owned()], vec!["b".to_owned()]));
    // A blank of another language is part of a name.
    assert_eq!(only("VOLUME /a\u{a0}b\u{3000}c"), only("VOLUME [\"/a\u{a0}b\u{3000}c\"]"));
    let Instruction::Copy(copy) = only("COPY --chown= --chmod= --exclude= --link=TRUE a\u{b}b /c/") else {
        panic!()
    };
    assert_eq!((copy.chown, copy.chmod, copy.excludes.len(), copy.link), (None, None, 0, true));
    assert_eq!(copy.sources, ["a", "b"]);
    assert_eq!(only("RUN --security=sandbox x"), only("RUN x"));
    let zero = only("HEALTHCHECK --interval=0s --timeout= --retries= --start-period=+0s CMD x");
    assert_eq!(zero, only("HEALTHCHECK CMD x"));
    assert_eq!(only("HEALTHCHECK --interval=1s NONE"), only("HEALTHCHECK NONE"));
    assert_eq!(refused("FROM a\nHEALTHCHECK --retries=1 --retries=2 CMD x").line, 2);
}

#[test]
fn shifts_are_no_here_documents() {
    for text in ["RUN python -c 'print(1<<2)'", "RUN echo $((1 << 2))", "RUN echo \"<<EOF\"", "RUN cat <<<x"]
    {
        assert!(matches!(only(text), Instruction::Run(_)), "{text}");
    }
}

#[test]
fn directives_and_escapes() {
    let file = parse("# escape=`\nFROM a\nRUN one `\n two\nRUN three ``\nRUN dir C:\\\n");
    assert_eq!(file.escape, '`');
    let texts: Vec<_> = file.stages[0].instructions.iter().map(|located| located.text.as_str()).collect();
    assert_eq!(texts, ["RUN one  two", "RUN three ``", "RUN dir C:\\"]);
    assert_eq!(parse("# not=a directive\n# escape=`\nFROM a").escape, '\\');
    assert_eq!(refused("# escape=x\nFROM a").line, 1);
    assert_eq!(refused("# escape=`\n# escape=`\nFROM a").line, 2);
}

#[test]
fn line_ends_and_marks_of_other_systems() {
    let file = parse("\u{feff}FROM a\r\nRUN one \\\r\n  two\r\n");
    assert_eq!(file.stages[0].base, "a");
    assert_eq!(file.stages[0].instructions[0].value, shell("one   two"));
}

#[test]
fn hostile_files() {
    assert!(matches!(
        Dockerfile::parse(b"FROM a\nRUN \0").unwrap_err(),
        DockerfileError { line: 2, problem: Problem::NotText(_) }
    ));
    assert!(matches!(
        Dockerfile::parse(b"FROM a\n\n\xff").unwrap_err(),
        DockerfileError { line: 3, problem: Problem::NotText(_) }
    ));
    let huge = [b"FROM a\nRUN ".as_slice(), &vec![b'x'; 10 * 1024 * 1024]].concat();
    assert!(matches!(Dockerfile::parse(&huge).unwrap_err().problem, Problem::TooLarge(_)));
    for text in ["", "# nothing\n", "RUN x", "FROM", "FROM a b c", "FROM a AS", "FROM a AS 1x", "ARG a=b"] {
        assert!(Dockerfile::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert_eq!(parse("FROM a\nRUN x \\").stages[0].instructions.len(), 1);
    assert_eq!(refused("FROM a\nCOPY a").line, 2);
    assert_eq!(refused("FROM a\nRUN").line, 2);
    assert_eq!(refused("FROM a\nCOPY --chown a b").line, 2);
}

#[test]
fn here_documents_end_where_their_name_stands_alone() {
    let file = parse(concat!(
        "FROM scratch\n",
        "RUN <<EOF\n# no comment\n\necho one \\\n  two\nEOF\n",
        "COPY --chmod=644 <<-\"A\" <<B more /etc/\n\ta $x\n\tA\nb\nB\n",
        "RUN cat <<x 3<<y\n1\nx\n2\ny\n",
        "ENV A=1\n",
    ));
    let instructions = &file.stages[0].instructions;
    assert_eq!(instructions.iter().map(|located| located.line).collect::<Vec<_>>(), [2, 8, 13, 18]);
    let Instruction::Run(run) = &instructions[0].value else { panic!() };
    assert_eq!(run.documents[0].text, "# no comment\n\necho one \\\n  two\n");
    let Instruction::Copy(copy) = &instructions[1].value else { panic!() };
    assert_eq!(
        (copy.sources.as_slice(), copy.destination.as_str()),
        (["more".to_owned()].as_slice(), "/etc/")
    );
    let [a, b] = copy.documents.as_slice() else { panic!() };
    assert_eq!((a.name.as_str(), a.content().as_str(), a.expand), ("A", "a $x\n", false));
    assert_eq!((b.content().as_str(), b.expand), ("b\n", true));
    let Instruction::Run(run) = &instructions[2].value else { panic!() };
    assert_eq!(run.documents.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), ["1\n", "2\n"]);
    for (text, line) in [
        ("FROM a\n\nRUN <<EOF\necho\n", 3),
        ("FROM a\nCOPY x <<EOF\nEOF\n", 2),
        ("FROM a\nCOPY <<../x /\n../x\n", 2),
        ("FROM a\nRUN cat <<- EOF\n\tEOF\n", 3),
    ] {
        assert_eq!(refused(text).line, line, "{text}");
    }
    let file = parse(
        "FROM a\nRUN cat <<  EOF >x\r\n$a\r\nEOF\r\nRUN cat <<a/b <<\\c\na/b\nc\nCOPY --from=b <<c /\nc\n",
    );
    let documents = file.stages[0].instructions.iter().flat_map(|located| match &located.value {
        Instruction::Run(RunInstruction { documents, .. }) | Instruction::Copy(Copy { documents, .. }) => {
            documents
        }
        other => panic!("{other:?}"),
    });
    let told: Vec<_> = documents.map(|it| (it.name.as_str(), it.text.as_str())).collect();
    assert_eq!(told, [("EOF", "$a\r\n"), ("a/b", ""), ("c", ""), ("c", "")]);
}

#[test]
fn what_the_configuration_takes() {
    assert_eq!(only("VOLUME /a /b"), only("VOLUME [\"/a\", \"/b\"]"));
    assert_eq!(only("STOPSIGNAL SIGINT"), Instruction::StopSignal("SIGINT".to_owned()));
    assert_eq!(only("MAINTAINER A B <c@d>"), Instruction::Maintainer("A B <c@d>".to_owned()));
    for text in ["RUN x", "COPY --from=a b c", "RUN --mount=from=a x", "run <<A cat <<-B\n1\nA\n\t2\nB"] {
        assert_eq!(only(&format!("ONBUILD {text}")), Instruction::OnBuild(text.to_owned()));
    }
    let Instruction::HealthCheck(health) = only("HEALTHCHECK --interval=1m --retries=3 CMD curl x || exit 1")
    else {
        panic!()
    };
    assert_eq!((health.interval, health.retries), (60_000_000_000, 3));
    assert_eq!(health.test, ["CMD-SHELL", "curl x || exit 1"]);
    for text in [
        "VOLUME",
        "VOLUME []",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "HEALTHCHECK CMD",
        "HEALTHCHECK NONE x",
        "HEALTHCHECK --interval=1 CMD x",
        "HEALTHCHECK --x=1 CMD x",
        "ONBUILD FROM x",
        "ONBUILD ONBUILD RUN x",
        "ONBUILD MAINTAINER x",
        "ONBUILD",
        "ONBUILD NONSENSE",
        "COPY --link=maybe a b",
    ] {
        assert_eq!(refused(&format!("FROM a\n{text}")).line, 2, "{text}");
    }
}
