//! Repositories as people have them: of another user, with an odd past, with things in them that nobody copies.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use testing::{Bench, need, program, run};

const COPIES: &str = "FROM base:1\nCOPY a.txt /a.txt\n";

fn words(bench: &Bench, commit: &str) -> Vec<String> {
    let (source, base) = (bench.source.path(), bench.base());
    let words =
        [program("countersign-builder").display().to_string(), "--state-dir".into(), bench.text("state")];
    let more =
        ["build".into(), "--repo".into(), source.display().to_string(), "--commit".into(), commit.into()];
    let base = ["--base".into(), format!("base:1={}", base.display())];
    [&words[..], &more, &base].concat()
}

fn owned_by(path: &Path, user: &str) {
    run("chown", ["-R", &format!("{user}:{user}"), path.to_str().unwrap()]).expect(0);
}

#[test]
fn a_folder_of_another_user_is_refused_in_git_s_own_words_and_the_remedy_works() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    bench.source.write("a.txt", "hello");
    let commit = bench.dockerfile(COPIES);
    owned_by(&bench.source.path(), "1234");
    let home = format!("HOME={}", bench.text("home"));
    std::fs::create_dir(bench.path("home")).unwrap();
    let build = || {
        let environment = [home.clone(), "GIT_CONFIG_NOSYSTEM=1".to_owned()];
        run("env", environment.into_iter().chain(words(&bench, &commit)))
    };
    let refused = build().expect(8);
    assert!(refused.stderr.contains("detected dubious ownership in repository at"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("access rights"), "{}", refused.stderr);
    let hint =
        refused.stderr.lines().find_map(|line| line.split_once("git config --global --add safe.directory "));
    let (_, folder) = hint.unwrap_or_else(|| panic!("no remedy: {}", refused.stderr));
    run("env", [home.as_str(), "git", "config", "--global", "--add", "safe.directory", folder]).expect(0);
    build().expect(0);
}

#[test]
fn an_odd_old_commit_far_below_does_not_matter() {
    need!("git", "runc", "skopeo");
    let bench = Bench::new();
    let root = bench.source.path().display().to_string();
    bench.source.write("a.txt", "one");
    let make = "git -C \"$0\" add a.txt; old=$(printf 'tree %s\\nauthor O <o@example.org> 1259452800 +0000\\ncommitter O \
                <o@example.org> 1287367363 -700\\n\\nimported\\n' $(git -C \"$0\" write-tree) | git -C \"$0\" hash-object \
                -t commit -w --stdin --literally); git -C \"$0\" reset -q --hard $old";
    run("sh", ["-euc", make, &root]).expect(0);
    let commit = bench.dockerfile(COPIES);
    let words = words(&bench, &commit);
    run(&words[0], &words[1..]).expect(0);
}
