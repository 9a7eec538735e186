//! Secrets of a build: used by a step, and neither in the image nor in anything that is kept.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use testing::{Bench, Registry, Site, SiteRequest, need, program, run};

const SECRET: &str = "hunter2/and+a bit more";

/// A site that answers who is authorized, and says back what is asked for as `/echo`.
fn site() -> Site {
    Site::answering(|asked: &SiteRequest| {
        let authorization = asked.headers.get("authorization").cloned().unwrap_or_default();
        let allowed = authorization == format!("Bearer {SECRET}");
        match (asked.path.as_str(), allowed) {
            ("/echo", _) => (200, Vec::new(), authorization.into_bytes()),
            (_, true) => (200, Vec::new(), b"for those who are allowed".to_vec()),
            (_, false) => (401, Vec::new(), b"no".to_vec()),
        }
    })
}

struct Given {
    bench: Bench,
    option: String,
}

impl Given {
    fn new() -> Given {
        let bench = Bench::new();
        std::fs::write(bench.path("token"), SECRET).unwrap();
        let option = format!("--secret=id=token,src={}", bench.text("token"));
        Given { bench, option }
    }

    fn assert_nothing_is_kept(&self, of: &str) {
        for text in [SECRET, "hunter2%2Fand%2Ba%20bit%20more", "aHVudGVyMi9hbmQrYSBiaXQgbW9y"] {
            let found = self.bench.holding(text);
            assert!(found.is_empty(), "{of}: {text} in {found:?}");
        }
    }
}

const USES: &str = r#"FROM base:1
RUN --mount=type=secret,id=token,required \
    --mount=type=secret,id=token,target=/etc/other,mode=0440,uid=7,gid=8 \
    --mount=type=secret,id=token,env=TOKEN \
    --mount=type=secret,id=missing \
    test "$TOKEN" = "$(cat /run/secrets/token)" && test ! -e /run/secrets/missing && \
    test "$(stat -c '%a %u %g' /run/secrets/token)" = "400 0 0" && \
    test "$(stat -c '%a %u %g' /etc/other)" = "440 7 8" && ! touch /etc/other && \
    cat /run/secrets/token && printf hunter2 && printf '/and+a bit more\n' && \
    wget -q -O /got --header "Authorization: Bearer $TOKEN" http://site.example/x
RUN test ! -e /run/secrets && test ! -e /etc/other && test -z "$TOKEN" && grep allowed /got
"#;

#[test]
fn a_secret_is_used_and_leaves_no_trace() {
    need!("runc", "unshare", "gzip");
    let (site, given) = (site(), Given::new());
    let bench = &given.bench;
    let commit = bench.dockerfile(USES);
    let option = given.option.as_str();
    let first = bench.build(&site.proxy(), &commit, &[option]).expect(0);
    assert!(!first.text().contains(SECRET) && first.text().matches("***").count() == 2, "{}", first.text());
    given.assert_nothing_is_kept("the build");
    let first = first.json();
    // Another value, and one that is not allowed.
    let by_variable =
        bench.build(&site.proxy(), &commit, &["--secret", "id=token,env=http_proxy"]).expect(5).text();
    assert!(!by_variable.contains(&site.proxy()), "the value is not shown: {by_variable}");
    let second = bench.build(&site.proxy(), &commit, &[option]).expect(0).json();
    assert_eq!(first["digest"], second["digest"]);
    assert!(!first["unrecorded"].as_array().is_some_and(Vec::is_empty), "{first}");
    drop(site);

    let refused = bench.rebuild_cut_off(&[]).expect(2).text();
    assert!(refused.contains("--secret id=token"), "{refused}");
    let again = bench.rebuild_cut_off(&[option]).expect(0).json();
    assert_eq!(again["identical"], true, "{again}");
    given.assert_nothing_is_kept("the rebuild");
}

#[test]
fn a_secret_that_would_be_kept_fails_the_build_and_is_not_kept() {
    need!("runc", "gzip");
    let (site, given) = (site(), Given::new());
    let fetch = |url: &str| format!("wget -q -O /got \"http://site.example{url}\" || true");
    let table: [(&str, String, &str); 8] = [
        ("a file", "mkdir /app && cp /run/secrets/token /app/config".into(), "the file /app/config holds it"),
        ("base64", "printf \"u:$(cat /run/secrets/token)\" | base64 > /basic".into(), "the file /basic"),
        ("a file's name", "mkdir -p \"/app/$(cat /run/secrets/token)\"".into(), "a name in /app/hunter2"),
        ("a link", "ln -s \"/x/$(cat /run/secrets/token)\" /link".into(), "the target of the link /link"),
        ("a URL", fetch("/x?t=$(sed 's/ /%20/g' /run/secrets/token)"), "its URL or method does"),
        (
            "the answer",
            "wget -q -O /dev/null --header \"Authorization: Bearer $(cat /run/secrets/token)\" http://site.example/echo || true"
                .into(),
            "the answer does",
        ),
        (
            "what is sent",
            "wget -q -O /dev/null --post-data \"$(cat /run/secrets/token)\" http://site.example/x || true".into(),
            "http://site.example/x",
        ),
        (
            "a kept header",
            "wget -q -O /dev/null --header \"Accept: $(cat /run/secrets/token)\" http://site.example/x || true".into(),
            "its header accept",
        ),
    ];
    for (of, command, words) in table {
        let commit = given.bench.dockerfile(&format!(
            "FROM base:1\nRUN echo before\nRUN --mount=type=secret,id=token {command}\n"
        ));
        let failed = given.bench.build(&site.proxy(), &commit, &[&given.option]).expect(5);
        let text = failed.text();
        assert!(text.contains("line 3") && text.contains(words), "{of}: {text}");
        assert!(!text.contains(SECRET), "{of}: {text}");
        given.assert_nothing_is_kept(of);
    }
}

#[test]
fn secrets_that_cannot_be_used_are_refused_before_any_work() {
    need!("runc");
    let given = Given::new();
    let commit = given.bench.dockerfile(
        "FROM base:1\nARG X\nRUN echo begun\nRUN --mount=type=secret,id=other,required cat /run/secrets/other\n",
    );
    let build = |more: &[&str]| given.bench.build("http://127.0.0.1:9", &commit, more);
    let missing = build(&[&given.option]).expect(4).text();
    assert!(
        missing.contains("line 4") && missing.contains("--secret id=other") && !missing.contains("begun\"")
    );
    std::fs::write(given.bench.path("short"), "1234567\n").unwrap();
    let short = format!("--secret=id=other,src={}", given.bench.text("short"));
    assert!(build(&[&short]).expect(3).text().contains("fewer than 8"));
    build(&["--secret=id=other,src=/no/such/file"]).expect(4);
    build(&["--secret=src=/x"]).expect(2);
    let argument = format!("X=prefix-{SECRET}");
    let held = build(&[&given.option, "--build-arg", &argument]).expect(2).text();
    assert!(held.contains("holds the secret token") && !held.contains(SECRET), "{held}");
}

/// A secret is exchanged for a token that nobody was given before, and with it for something that is not for everybody.
const EXCHANGES: &str = r#"FROM base:1
RUN --mount=type=secret,id=token,env=TOKEN \
    wget -q -O /dev/shm/fresh --header "Authorization: Bearer $TOKEN" http://site.example/login && \
    wget -q -O /dev/shm/got --header "X-Fresh: $(cat /dev/shm/fresh)" "http://site.example/private?sig=abc" && \
    grep -q members /dev/shm/got && echo done >/done
RUN wget -q -O /public http://site.example/public
"#;
const FRESH: &str = "fresh-token-0123456789";
const SESSION: &str = "session-cookie-0123456789";
const MEMBERS: &str = "for members only 0123456789";

#[test]
fn what_a_secret_was_exchanged_for_stays_with_the_builder() {
    need!("runc", "unshare", "gzip", "docker-registry");
    let site = Site::answering(|asked: &SiteRequest| match asked.path.as_str() {
        "/login" => {
            (200, vec![("Set-Cookie".into(), format!("sid={SESSION}; Path=/"))], FRESH.as_bytes().to_vec())
        }
        "/public" => (200, Vec::new(), b"for everybody".to_vec()),
        _ => {
            let knows = asked.headers.get("x-fresh").is_some_and(|it| it == FRESH);
            (if knows { 200 } else { 403 }, Vec::new(), MEMBERS.as_bytes().to_vec())
        }
    });
    let (given, registry) = (Given::new(), Registry::start());
    let (bench, option) = (&given.bench, given.option.as_str());
    let commit = bench.dockerfile(EXCHANGES);
    let image = registry.name("test/private:1");
    let pushed = bench.build(&site.proxy(), &commit, &[option, "--push", &image]).expect(0);
    let told = pushed.text();
    assert!(told.contains("--attach-private"), "{told}");
    assert!(
        told.contains("holds a signature")
            && !told.contains("line 2: the query of http://site.example/private?")
    );
    for text in [FRESH, SESSION, MEMBERS] {
        let found = registry.holding(text);
        assert!(found.is_empty(), "{text} in {found:?}");
    }
    assert!(!registry.holding("for everybody").is_empty(), "the others are attached");
    assert!(!bench.holding(MEMBERS).is_empty() && bench.holding(SESSION).is_empty());
    drop(site);
    let again = bench.rebuild_cut_off(&[option]).expect(0).json();
    assert_eq!(again["identical"], true, "{again}");

    // Elsewhere it is told what is missing, and how it comes.
    let digest = pushed.json()["digest"].as_str().unwrap().to_owned();
    let materials = |state: &str, words: &[&str]| {
        let state = bench.text(state);
        run(program("countersign-builder"), [&["--state-dir", &state, "materials"], words].concat())
    };
    let missing = materials("elsewhere", &["pull", &image]).expect(4).text();
    for words in ["GET http://site.example/login", "/private", "--include-private"] {
        assert!(missing.contains(words), "{words}: {missing}");
    }
    let (some, all) = (bench.text("some.tar"), bench.text("all.tar"));
    materials("state", &["export", &digest, "--out", &some]).expect(0);
    let missing = materials("elsewhere", &["import", &some]).expect(4).text();
    assert!(missing.contains("--include-private"), "{missing}");
    assert!(!std::fs::read_to_string(&some).unwrap().contains(MEMBERS));
    materials("state", &["export", &digest, "--include-private", "--out", &all]).expect(0);
    materials("elsewhere", &["import", &all]).expect(0);
}
