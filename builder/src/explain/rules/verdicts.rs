//! The rules against the verdicts of a human reader: `verdicts.tsv` has an instruction in each line, and what is to be said
//! of it with nothing else known.

use super::super::files::NoFiles;
use super::super::hazards::ALL;
use super::*;
use crate::dockerfile::Dockerfile;

const TABLE: &str = include_str!("verdicts.tsv");

fn rules_of(text: &str, files: &dyn Files) -> Vec<&'static str> {
    let file = Dockerfile::parse(format!("FROM a\n{text}\n").as_bytes())
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut scene = Scene::new(files);
    let located = &file.stages[0].instructions;
    let mut found: Vec<&str> = located
        .iter()
        .flat_map(|it| of_instruction(&it.value, &it.text, &mut scene))
        .map(|hazard| hazard.rule.name)
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn a_human_reader_says_the_same() {
    let mut wrong = Vec::new();
    let (mut lines, mut seen) = (0, std::collections::BTreeSet::new());
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (verdict, text) = line.split_once('\t').unwrap();
        let text = text.replace("\\n", "\n");
        let mut wanted: Vec<&str> = verdict.split(',').filter(|rule| *rule != "-").collect();
        wanted.sort_unstable();
        let found = match text.strip_prefix("FROM ") {
            Some(base) => of_base(base).iter().map(|hazard| hazard.rule.name).collect(),
            None => rules_of(&text, &NoFiles),
        };
        if found != wanted {
            wrong.push(format!("{text}\n  wanted {wanted:?}\n  found  {found:?}"));
        }
        lines += 1;
        seen.extend(wanted.iter().map(|rule| (*rule).to_owned()));
    }
    assert!(wrong.is_empty(), "{} of {lines}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(lines >= 60, "{lines} lines");
    let all = ALL.iter().map(|rule| rule.name.to_owned()).collect();
    assert_eq!(seen, all, "every rule is in the table, and nothing else");
}

struct Some_(&'static [(&'static str, &'static str)]);

impl Files for Some_ {
    fn are_known(&self) -> bool {
        true
    }

    fn at(&self, path: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
    }
}

#[test]
fn files_of_the_context_are_read() {
    const HASH: &str = "six==1.16.0 --hash=sha256:00\n# a comment\n-r other.txt\n-i https://index.example\n";
    let files = Some_(&[
        ("open.txt", "six==1.16.0\npandas>=2 ; python_version > '3.8'\n"),
        ("pinned.txt", HASH),
        ("other.txt", "numpy==2.0 \\\n  --hash=sha256:00\n"),
        ("git.txt", "x @ git+https://e.example/x@v1\n"),
        ("scripts/install.sh", "#!/bin/sh\n# apt-get install nothing\napt-get install -y curl\n"),
        (
            "snapshot.sh",
            "date=$(date -d @${SOURCE_DATE_EPOCH} +%Y%m%d)\necho deb http://x/$date > /etc/apt/sources.list\n",
        ),
        ("make.py", "import datetime\nprint(datetime.datetime.now())\n"),
        ("loop.sh", "sh loop.sh\nsh ./loop.sh\n"),
        ("uv.lock", ""),
    ]);
    for (text, wanted) in [
        ("RUN pip install -r open.txt", vec!["unpinned-pip"]),
        ("RUN pip install -r /app/pinned.txt", vec![]),
        ("RUN uv pip sync git.txt", vec!["moving-git"]),
        ("RUN pip install -r none.txt", vec!["requirements-file"]),
        ("RUN sh /tmp/scripts/install.sh && true", vec!["unpinned-apt"]),
        ("RUN ./scripts/install.sh", vec!["unpinned-apt"]),
        ("RUN /snapshot.sh", vec!["reads-epoch"]),
        ("ENV SOURCE_DATE_EPOCH=1700000000\nRUN /snapshot.sh", vec![]),
        ("RUN python3 make.py > /x", vec!["clock"]),
        ("RUN sh loop.sh", vec![]),
        ("RUN poetry install", vec!["unlocked-install"]),
        ("RUN cargo build --release", vec!["unlocked-install"]),
        ("RUN julia -e 'using Pkg; Pkg.instantiate()'", vec!["unlocked-install"]),
        ("RUN sh ../../etc/passwd", vec![]),
    ] {
        assert_eq!(rules_of(text, &files), wanted, "{text}");
    }
    let file = Dockerfile::parse(b"FROM a\nRUN sh scripts/install.sh\n").unwrap();
    let located = &file.stages[0].instructions[0];
    let found = of_instruction(&located.value, &located.text, &mut Scene::new(&files));
    assert_eq!(
        (found[0].words.as_str(), found[0].file.as_deref()),
        ("apt-get install -y curl", Some("scripts/install.sh"))
    );
}

#[test]
fn what_is_found_is_told_by_its_words() {
    let text = "RUN set -ex; apt-get update && apt-get install -y curl && pip install pandas \u{1b}[2J && echo $(date) > /x";
    let file = Dockerfile::parse(format!("FROM a\n{text}\n").as_bytes()).unwrap();
    let located = &file.stages[0].instructions[0];
    let found = of_instruction(&located.value, &located.text, &mut Scene::new(&NoFiles));
    let words: Vec<&str> = found.iter().map(|hazard| hazard.words.as_str()).collect();
    assert_eq!(
        words,
        ["apt-get install -y curl", "pip install pandas \\u{1b}[2J", "date "].map(str::trim_end)
    );
}
