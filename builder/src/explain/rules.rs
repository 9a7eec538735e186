//! Rules for instructions that are hard to reproduce. They match words, so they can be wrong in both directions:
//! their result is advice. Every exchange with the network is recorded in any case.

use serde::Serialize;

use crate::dockerfile::{Command, Copy, Instruction, Run, remote};

/// A cause of poor reproducibility.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Hazard {
    /// The rule's name, which is stable.
    pub(crate) rule: &'static str,
    /// The problem.
    pub(crate) why: &'static str,
    /// A solution.
    pub(crate) fix: &'static str,
}

const BASE_BY_TAG: Hazard = Hazard {
    rule: "base-by-tag",
    why: "a tag can name another image tomorrow; it is resolved once and recorded",
    fix: "pin the base by digest, here or under [bases] in countersign.toml",
};
const UNPINNED_PIP: Hazard = Hazard {
    rule: "unpinned-pip",
    why: "the index gives the newest version that fits, another one tomorrow",
    fix: "pin each package with ==, or install from a requirements file with --require-hashes",
};
const UNPINNED_APT: Hazard = Hazard {
    rule: "unpinned-apt",
    why: "the archive gives the version of the day and drops the older ones",
    fix: "build on a base that has the packages, or install from a snapshot of the archive",
};
const UNLOCKED: Hazard = Hazard {
    rule: "unlocked-install",
    why: "without its lock file the tool takes the newest versions that fit",
    fix: "use the locked form: npm ci, cargo install --locked, uv sync --locked, poetry install",
};
const UNCHECKED_DOWNLOAD: Hazard = Hazard {
    rule: "unchecked-download",
    why: "what the server sends tomorrow may be something else",
    fix: "check it in the same RUN: echo 'DIGEST  FILE' | sha256sum -c",
};
const PIPED_SHELL: Hazard = Hazard {
    rule: "download-into-shell",
    why: "a reviewer cannot read what is run: it is not in the commit",
    fix: "commit the script, or download, check and run it in three steps",
};
const MOVING_GIT: Hazard = Hazard {
    rule: "moving-git",
    why: "a branch or tag can name another commit tomorrow",
    fix: "check out a full commit id: git checkout 3f1c…",
};
const MOVING_ADD: Hazard = Hazard {
    rule: "moving-git",
    why: "a branch or tag can name another commit tomorrow",
    fix: "name the full commit id behind #, or say it with --checksum",
};
const CLOCK: Hazard = Hazard {
    rule: "clock",
    why: "the time of the build gets into the result",
    fix: "use $SOURCE_DATE_EPOCH, which is the commit's time: date -d @$SOURCE_DATE_EPOCH",
};
const CHANCE: Hazard = Hazard {
    rule: "chance",
    why: "it is another value in every build",
    fix: "make it when the image runs, or commit it",
};
const THIS_MACHINE: Hazard = Hazard {
    rule: "this-machine",
    why: "the result depends on the processor of the machine that builds",
    fix: "name the target: -march=x86-64-v2",
};

const UNCHECKED_ADD: Hazard = Hazard {
    rule: "unchecked-add",
    why: "what the server sends tomorrow may be something else",
    fix: "say what it has to be: ADD --checksum=sha256:…",
};
const SECRET: Hazard = Hazard {
    rule: "secret",
    why: "only those can repeat the build who have it, and the provenance says that not all of it is recorded",
    fix: "serve what the step fetches without a secret, or bring it with the repository",
};

pub(super) fn of_base(base: &str) -> Vec<Hazard> {
    if base.contains("@sha256:") { Vec::new() } else { vec![BASE_BY_TAG] }
}

pub(super) fn of_instruction(instruction: &Instruction) -> Vec<Hazard> {
    match instruction {
        Instruction::Run(run) => {
            let secret = run.mounts.iter().any(|mount| mount.is_secret()).then_some(SECRET);
            secret.into_iter().chain(of_command(&text_of(run))).collect()
        }
        Instruction::Copy(copy) if copy.keyword == "ADD" => of_add(copy),
        _ => Vec::new(),
    }
}

fn of_add(copy: &Copy) -> Vec<Hazard> {
    let is_commit = |source: &str| {
        let reference = source.split_once('#').map_or("", |(_, fragment)| fragment).split(':').next();
        reference.is_some_and(|it| it.len() == 40 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let open = |source: &&String| copy.checksum.is_none() && remote::is_remote(source);
    let mut found: Vec<Hazard> = Vec::new();
    for source in copy.sources.iter().filter(open) {
        let hazard = match (remote::is_git(source), is_commit(source)) {
            (true, true) => continue,
            (true, false) => MOVING_ADD,
            (false, _) => UNCHECKED_ADD,
        };
        if !found.contains(&hazard) {
            found.push(hazard);
        }
    }
    found
}

fn text_of(run: &Run) -> String {
    let command = match &run.command {
        Command::Shell(text) => text.clone(),
        Command::Exec(words) => words.join(" "),
    };
    let documents = run.documents.iter().map(|document| format!("\n{}", document.text));
    format!("{command}{}", documents.collect::<String>())
}

fn of_command(text: &str) -> Vec<Hazard> {
    let mut found = Vec::new();
    let words: Vec<&str> = text.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let after = |program: &str, verb: &str| -> Option<&[&str]> {
        let at = words.windows(2).position(|pair| name(pair[0]) == program && pair[1] == verb)?;
        let rest = &words[at + 2..];
        let end = rest.iter().position(|word| ends_command(word)).unwrap_or(rest.len());
        Some(&rest[..end])
    };
    let pip = ["pip", "pip3"].iter().find_map(|program| after(program, "install"));
    if pip.is_some_and(|rest| rest.iter().any(|word| is_open_requirement(word)))
        && !text.contains("--require-hashes")
    {
        found.push(UNPINNED_PIP);
    }
    let apt = ["apt-get", "apt"]
        .iter()
        .any(|program| words.iter().any(|word| name(word) == *program) && has("install"));
    if apt && !text.contains("snapshot.") {
        found.push(UNPINNED_APT);
    }
    let unlocked = after("npm", "install").is_some()
        || after("yarn", "install").is_some_and(|rest| !rest.contains(&"--frozen-lockfile"))
        || after("cargo", "install").is_some_and(|rest| !rest.contains(&"--locked"))
        || after("uv", "sync").is_some_and(|rest| !rest.contains(&"--locked") && !rest.contains(&"--frozen"))
        || after("conda", "install").is_some();
    if unlocked {
        found.push(UNLOCKED);
    }
    let downloads = words.iter().any(|word| matches!(name(word), "curl" | "wget"));
    let checked =
        ["sha256sum", "sha512sum", "gpg --verify", "cosign verify"].iter().any(|it| text.contains(it));
    if downloads && pipes_into_shell(&words) {
        found.push(PIPED_SHELL);
    } else if downloads && !checked {
        found.push(UNCHECKED_DOWNLOAD);
    }
    let is_id = |word: &&str| word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let clones = after("git", "clone").is_some() || text.contains("git+https://") && !text.contains('@');
    if clones && !words.iter().any(is_id) {
        found.push(MOVING_GIT);
    }
    if words.iter().any(|word| is_call(word, "date")) && !text.contains("SOURCE_DATE_EPOCH") {
        found.push(CLOCK);
    }
    let chance =
        ["$RANDOM", "/dev/urandom", "/dev/random", "uuidgen", "ssh-keygen", "openssl rand", "openssl gen"];
    if chance.iter().any(|it| text.contains(it)) {
        found.push(CHANCE);
    }
    if ["-march=native", "-mtune=native", "target-cpu=native"].iter().any(|it| text.contains(it)) {
        found.push(THIS_MACHINE);
    }
    found
}

/// A program's name without its folder and without shell prefixes.
fn name(word: &str) -> &str {
    word.trim_start_matches(['(', '`', '$', '"']).rsplit('/').next().unwrap_or(word)
}

fn is_call(word: &str, program: &str) -> bool {
    name(word).trim_end_matches([')', '`', '"', ';']) == program
}

fn ends_command(word: &str) -> bool {
    matches!(word, "&&" | "||" | ";" | "|" | "&") || word.ends_with(';')
}

/// Whether a requirement has no fixed version. Options, files and the project itself are no requirements.
fn is_open_requirement(word: &str) -> bool {
    let local = word.starts_with(['.', '/', '-', '$', '>']) || word.ends_with(".txt") || word.contains("://");
    !local
        && !word.contains("==")
        && word.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '"' || letter == '\'')
}

fn pipes_into_shell(words: &[&str]) -> bool {
    words
        .windows(2)
        .any(|pair| pair[0] == "|" && matches!(name(pair[1]), "sh" | "bash" | "python" | "python3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_from_elsewhere_should_be_pinned() {
        let id = "0123456789012345678901234567890123456789";
        let table = [
            ("ADD https://e.example/x /".to_owned(), vec!["unchecked-add"]),
            ("ADD https://e.example/$V/x a /".to_owned(), vec!["unchecked-add"]),
            (format!("ADD --checksum=sha256:{id} https://e.example/x /"), vec![]),
            ("ADD https://e.example/x.git#v1:a /".to_owned(), vec!["moving-git"]),
            (format!("ADD https://e.example/x.git#{id}:a /"), vec![]),
            (format!("ADD --checksum={id} https://e.example/x.git /"), vec![]),
            ("ADD a /".to_owned(), vec![]),
            ("RUN --mount=type=secret,id=a true".to_owned(), vec!["secret"]),
        ];
        for (text, expected) in table {
            let file = crate::dockerfile::Dockerfile::parse(format!("FROM a\n{text}").as_bytes()).unwrap();
            let found = of_instruction(&file.stages[0].instructions[0].value);
            assert_eq!(found.iter().map(|hazard| hazard.rule).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn each_rule_speaks_where_it_should_and_nowhere_else() {
        let table: [(&str, &[&str]); 22] = [
            ("pip install pandas", &["unpinned-pip"]),
            ("python -m pip install --no-cache-dir 'numpy>=1' && true", &["unpinned-pip"]),
            ("pip install pandas==2.2.3 numpy==2.0", &[]),
            ("pip install -r requirements.txt", &[]),
            ("pip install .", &[]),
            ("pip install --no-cache-dir /app", &[]),
            ("apt-get update && apt-get install -y gcc", &["unpinned-apt"]),
            ("npm install", &["unlocked-install"]),
            ("npm ci", &[]),
            ("cargo install --locked x", &[]),
            ("curl -O https://example.org/x", &["unchecked-download"]),
            ("curl -O https://example.org/x && echo 'aa  x' | sha256sum -c", &[]),
            ("curl https://example.org/x | sh", &["download-into-shell"]),
            ("wget -qO- https://example.org/x | /bin/bash -s", &["download-into-shell"]),
            ("git clone https://example.org/x", &["moving-git"]),
            ("git clone https://e.org/x && git -C x checkout 0123456789012345678901234567890123456789", &[]),
            ("echo $(date) > /built", &["clock"]),
            ("date -d @$SOURCE_DATE_EPOCH > /built", &[]),
            ("echo update > /x", &[]),
            ("head -c 8 /dev/urandom > /salt", &["chance"]),
            ("gcc -march=native x.c", &["this-machine"]),
            ("echo hello", &[]),
        ];
        for (text, expected) in table {
            let rules: Vec<_> = of_command(text).iter().map(|hazard| hazard.rule).collect();
            assert_eq!(rules, expected, "{text}");
        }
        assert_eq!(of_base("python:3.12"), [BASE_BY_TAG]);
        assert!(of_base(&format!("python@sha256:{}", "0".repeat(64))).is_empty());
    }
}
