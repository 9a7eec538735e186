//! What a rule asks of the materials of the builds that count.

use crate::common::*;
use attestations::policy::Pattern;
use attestations::provenance::{Inventory, Materials, Provenance, ResourceDescriptor};
use attestations::{Decision, Denial, Digest, Evidence, Policy, decide};
use proptest::prelude::*;

const COMPLETE: &str = "complete = true\nhosts = \"any\"\n";

fn package(purl: &str) -> ResourceDescriptor {
    ResourceDescriptor::package(purl, &Digest::of(purl.as_bytes())).annotated("step", "build#2")
}

/// One that is in the image, whose file nobody knows.
fn installed(purl: &str) -> ResourceDescriptor {
    ResourceDescriptor::installed(purl).annotated(ResourceDescriptor::FROM, ResourceDescriptor::FROM_BASE)
}

/// One that only passed by.
fn fetched(purl: &str) -> ResourceDescriptor {
    ResourceDescriptor::fetched(purl, &Digest::of(purl.as_bytes())).annotated("step", "build#2")
}

fn exchange(url: &str) -> ResourceDescriptor {
    ResourceDescriptor::exchange(url, &Digest::of(url.as_bytes())).annotated("step", "build#2")
}

/// Two reviews and the builds of `ci` and `auditor`, each with more dependencies.
fn evidence(world: &World, ci: &[ResourceDescriptor], auditor: &[ResourceDescriptor]) -> Vec<Evidence> {
    let with = |more: &[ResourceDescriptor]| {
        let more = more.to_vec();
        move |it: &mut Signed<Provenance>| it.value.build_definition.resolved_dependencies.extend(more)
    };
    let mut all = world.enough();
    all[2] = world.build(&world.ci, "ci", with(ci));
    all[3] = world.build(&world.auditor, "auditor", with(auditor));
    all
}

fn policy(world: &World, materials: &str) -> Policy {
    Policy::parse(&format!("{}[algorithm.materials]\n{materials}", world.policy_text())).unwrap()
}

fn answer(world: &World, materials: &str, evidence: &[Evidence]) -> Decision {
    decide(&policy(world, materials), &question(), evidence, now())
}

fn denial(world: &World, materials: &str, evidence: &[Evidence]) -> Denial {
    match answer(world, materials, evidence) {
        Decision::Denied(denial) => denial,
        Decision::Admitted(_) => panic!("admitted by {materials}"),
    }
}

/// The codes besides `builds` when every build has the same dependencies.
fn lacking(materials: &str, all: &[ResourceDescriptor]) -> Vec<&'static str> {
    let world = World::new();
    let mut found = codes(&answer(&world, materials, &evidence(&world, all, all)));
    if let Some(last) = found.pop() {
        assert_eq!(last, "builds", "no build counts");
    }
    found
}

#[test]
fn each_demand_is_met_or_named() {
    let pandas = package("pkg:pypi/pandas@2.2.3?file_name=pandas-2.2.3-py3-none-any.whl");
    let libc = installed("pkg:deb/debian/libc6@2.36-9?arch=amd64");
    let tried = fetched("pkg:pypi/tried@1?file_name=tried-1-py3-none-any.whl");
    let zope = package("pkg:pypi/zope-interface@6.0?file_name=zope.interface-6.0.whl");
    let dotted = package("pkg:pypi/zope.interface@6.0");
    let curl = package("pkg:deb/debian/curl@7.88.1-10%2Bdeb12u1?arch=amd64");
    let model = package("pkg:generic/model.tar.gz?download_url=https:%2F%2Fa.example%2Fmodel.tar.gz");
    let deb = exchange("https://deb.example.org/pool/main/c/curl/curl.deb?x=https://evil.example/");
    let port = exchange("http://deb.example.org:8080/");
    let deep = exchange("https://a.b.example.org/");
    let address = exchange("https://[2001:db8::1]:8443/x");
    let all = |list: &[&ResourceDescriptor]| list.iter().map(|it| (*it).clone()).collect::<Vec<_>>();
    let any = "complete = true\nhosts = \"any\"\n";
    let hosts = |list: &str| format!("complete = true\nhosts = {list}\n");
    let table: Vec<(String, Vec<ResourceDescriptor>, &[&str])> = vec![
        ("complete = false\nhosts = \"any\"".into(), all(&[&pandas, &deb]), &[]),
        (any.into(), all(&[&pandas, &curl, &model, &deb, &port]), &[]),
        (hosts("[]"), all(&[&pandas]), &[]),
        (hosts("[]"), all(&[&deb]), &["hosts"]),
        (hosts("['deb.example.org']"), all(&[&deb, &port]), &[]),
        (hosts("['deb.example.org']"), all(&[&deb, &deep]), &["hosts"]),
        (hosts("['*.example.org']"), all(&[&deb, &port]), &[]),
        (hosts("['*.example.org']"), all(&[&deep]), &["hosts"]),
        (hosts("['**.example.org']"), all(&[&deb, &deep]), &[]),
        (hosts("['example.org', 'deb.example', 'eb.example.org']"), all(&[&deb]), &["hosts"]),
        (hosts("['[2001:db8::1]']"), all(&[&address]), &[]),
        (hosts("['[2001:db8::2]']"), all(&[&address]), &["hosts"]),
        (format!("{any}require = ['pkg:pypi/pandas@2.*']"), all(&[&pandas]), &[]),
        (format!("{any}require = ['pkg:pypi/pandas@2.*']"), all(&[&curl]), &["missing-packages"]),
        (format!("{any}require = ['pkg:pypi/pandas@2']"), all(&[&pandas]), &["missing-packages"]),
        (format!("{any}require = ['pkg:pypi/pandas@*', 'pkg:deb/*/curl@*']"), all(&[&pandas, &curl]), &[]),
        (
            format!("{any}require = ['pkg:pypi/pandas@*', 'pkg:deb/*/curl@*']"),
            all(&[&pandas]),
            &["missing-packages"],
        ),
        (format!("{any}forbid = ['pkg:pypi/requests@*']"), all(&[&pandas, &curl]), &[]),
        (format!("{any}forbid = ['pkg:pypi/pandas@*']"), all(&[&pandas]), &["forbidden-packages"]),
        (format!("{any}forbid = ['pkg:pypi/pandas@2.*']"), all(&[&pandas]), &["forbidden-packages"]),
        (format!("{any}forbid = ['pkg:pypi/pandas@1.*']"), all(&[&pandas]), &[]),
        (format!("{any}forbid = ['pkg:pypi/zope.interface@*']"), all(&[&zope]), &["forbidden-packages"]),
        (format!("{any}forbid = ['pkg:pypi/zope-interface@*']"), all(&[&dotted]), &["forbidden-packages"]),
        (format!("{any}forbid = ['pkg:deb/debian/libc6@*']"), all(&[&libc]), &["forbidden-packages"]),
        (format!("{any}forbid_fetched = ['pkg:deb/debian/libc6@*']"), all(&[&libc]), &[]),
        (format!("{any}require = ['pkg:deb/debian/libc6@*']"), all(&[&libc]), &[]),
        (format!("{any}forbid = ['pkg:pypi/tried@*']"), all(&[&tried]), &[]),
        (format!("{any}require = ['pkg:pypi/tried@*']"), all(&[&tried]), &["missing-packages"]),
        (format!("{any}forbid_fetched = ['pkg:pypi/tried@*']"), all(&[&tried]), &["fetched-packages"]),
        (format!("{any}forbid_fetched = ['pkg:pypi/pandas@*']"), all(&[&pandas]), &["fetched-packages"]),
        (format!("{any}forbid_fetched = ['pkg:pypi/other@*']"), all(&[&pandas, &tried]), &[]),
        (
            "complete = false\nhosts = \"any\"\nforbid = ['pkg:pypi/pandas@*']".into(),
            all(&[&pandas]),
            &["forbidden-packages"],
        ),
        (format!("{any}forbid = ['pkg:deb/*@*']"), all(&[&curl]), &[]),
        (format!("{any}forbid = ['pkg:deb/**@*']"), all(&[&curl]), &["forbidden-packages"]),
        (format!("{any}forbid = ['pkg:**@*']"), all(&[&model]), &["forbidden-packages"]),
        (format!("{any}forbid = ['pkg:**@*']"), all(&[&deb]), &[]),
        (format!("{any}forbid = ['pkg:generic/*@*']"), all(&[&model]), &["forbidden-packages"]),
        (
            format!("{}require = ['pkg:cargo/a@1']\nforbid = ['pkg:deb/**@*']", hosts("[]")),
            all(&[&curl, &deb]),
            &["forbidden-packages", "hosts", "missing-packages"],
        ),
    ];
    for (materials, resources, wanted) in table {
        let mut found = lacking(&materials, &resources);
        found.sort_unstable();
        assert_eq!(found, wanted, "{materials}");
    }
}

#[test]
fn materials_that_are_not_complete_are_told_with_their_reasons() {
    let world = World::new();
    for (reasons, told) in [(vec!["line 7: port 22 of a.example"], "line 7: port 22"), (vec![], "no reason")]
    {
        let reasons: Vec<String> = reasons.into_iter().map(str::to_owned).collect();
        let mut all = world.enough();
        all[2] = world.build(&world.ci, "ci", |it| {
            it.value.build_definition.internal_parameters.materials = Materials::Incomplete { reasons }
        });
        assert!(world.unmet(&all).is_empty(), "nothing is asked without the table");
        let denial = denial(&world, COMPLETE, &all);
        assert_eq!(denial.unmet[0].code(), "incomplete-materials");
        assert!(denial.unmet[0].found().contains(told), "{denial}");
        assert!(
            denial
                .ignored
                .iter()
                .any(|it| it.origin.as_str() == "ci" && it.reason.to_string().contains(told)),
            "{denial}"
        );
    }
}

/// What is forbidden in an image is not known to be missing there when a record was not read.
#[test]
fn packages_that_nobody_could_read_are_none_that_are_allowed() {
    let world = World::new();
    let forbid = format!("{COMPLETE}forbid = ['pkg:pypi/requests@*']");
    let reason = "opt/x.dist-info/METADATA: a package without a name".to_owned();
    for (inventory, told) in [
        (None, "did not look"),
        (Some(Inventory::Incomplete { reasons: vec![reason] }), "opt/x.dist-info/METADATA"),
        (Some(Inventory::Incomplete { reasons: vec![] }), "no reason"),
    ] {
        let mut all = world.enough();
        all[2] = world.build(&world.ci, "ci", |it| {
            it.value.build_definition.internal_parameters.inventory = inventory.clone()
        });
        let denial = denial(&world, &forbid, &all);
        assert_eq!(denial.unmet[0].code(), "incomplete-packages");
        assert!(denial.unmet[0].found().contains(told), "{denial}");
        let require = format!("{COMPLETE}forbid_fetched = ['pkg:pypi/requests@*']");
        assert!(matches!(answer(&world, &require, &all), Decision::Admitted(_)), "what was fetched is known");
    }
}

#[test]
fn only_a_build_that_meets_every_demand_counts() {
    let world = World::new();
    let forbid = format!("{COMPLETE}forbid = ['pkg:pypi/requests@*']");
    let bad = [package("pkg:pypi/requests@2.31.0?file_name=requests-2.31.0-py3-none-any.whl")];
    let one = evidence(&world, &bad, &[]);
    let told = denial(&world, &forbid, &one);
    assert_eq!(told.unmet.iter().map(|it| it.code()).collect::<Vec<_>>(), ["forbidden-packages", "builds"]);
    let found = "pkg:pypi/requests@2.31.0, which pkg:pypi/requests@* forbids (step build#2)";
    assert_eq!(told.unmet[0].found(), found);
    assert!(told.unmet[1].found().starts_with("auditor for commit"), "{told}");
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["unmet"][0]["code"], "forbidden-packages");
    assert_eq!(json["unmet"][0]["found"], found);
    assert!(json["unmet"][0]["remedy"].as_str().unwrap().contains("build without them"), "{json}");
    assert_eq!(json["ignored"][0]["origin"], "ci");
    // Another builder of the same operator stands in for the one that does not count, which is still told.
    let mut two = one.clone();
    two.push(world.build(&world.twin, "twin", |_| {}));
    let Decision::Admitted(admitted) = answer(&world, &forbid, &two) else { panic!("denied") };
    assert_eq!(admitted.builds(), ["auditor", "twin"]);
}

#[test]
fn hosts_that_can_be_read_in_two_ways_are_not_allowed() {
    let allowed = "complete = true\nhosts = ['deb.example.org', '127.0.0.1']\n";
    for url in [
        "",
        "deb.example.org",
        "//deb.example.org/",
        "https:/deb.example.org/",
        "https:deb.example.org",
        "ftp://deb.example.org/",
        "file://deb.example.org/x",
        "HTTPS://deb.example.org/",
        " https://deb.example.org/",
        "https:///deb.example.org/",
        "https://user@deb.example.org/",
        "https://deb.example.org@evil.example/",
        "https://deb.example.org:x@evil.example/",
        r"https://evil.example\@deb.example.org/",
        r"https://deb.example.org\.evil.example/",
        "https://deb.example.org\t.evil.example/",
        "https://deb.example.org\n/",
        "https://deb.example.org:99999/",
        "https://deb.example.org:port/",
        "https://deb.example.org./",
        "https://DEB.example.org/",
        "https://deb.example.org.evil.example/",
        "https://evil.example/deb.example.org",
        "https://evil.example#deb.example.org",
        "https://d%65b.example.org/",
        "https://deb。example。org/",
        "https://[deb.example.org]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://127.0.0.1.nip.example/",
    ] {
        assert_eq!(lacking(allowed, &[exchange(url)]), ["hosts"], "{url:?}");
    }
    for url in ["https://deb.example.org", "http://127.0.0.1:8080/x", "https://deb.example.org/a|b\\@c"] {
        assert!(lacking(allowed, &[exchange(url)]).is_empty(), "{url:?}");
    }
    let nameless = ResourceDescriptor { uri: None, ..exchange("https://deb.example.org/") };
    assert_eq!(lacking(allowed, &[nameless]), ["hosts"]);
}

#[test]
fn a_package_that_cannot_be_read_is_no_package_that_is_allowed() {
    let nameless = ResourceDescriptor { uri: None, ..package("pkg:pypi/pandas@1") };
    for demand in ["forbid = ['pkg:pypi/requests@*']", "require = ['pkg:pypi/pandas@*']"] {
        let materials = format!("{COMPLETE}{demand}");
        let all = [package("pkg:pypi/pandas@1"), nameless.clone(), package("pkg:pypi/Requests@1")];
        assert_eq!(lacking(&materials, &all), ["package-names"], "{demand}");
    }
    assert!(lacking(COMPLETE, &[nameless]).is_empty(), "nothing is asked of packages");
}

#[test]
fn a_denial_stays_short_and_plain_whatever_the_names_are() {
    let world = World::new();
    let materials = "complete = true\nhosts = []\nforbid = ['pkg:**@*']";
    let mut all: Vec<_> = (0..3000).map(|n| exchange(&format!("https://host-{n}.example/"))).collect();
    all.push(exchange(&format!("https://a/\u{202e}\u{1b}[2J{}", "x".repeat(100_000))));
    all.push(exchange(&format!("a\u{202e}\u{1b}[2J\r\n'{}", "x".repeat(100_000))));
    all.push(package(&format!("\u{1b}[2J{}", "x".repeat(100_000))));
    let denial = denial(&world, materials, &evidence(&world, &all, &all));
    let told = denial.to_string();
    assert!(told.len() < 20_000, "{} bytes", told.len());
    assert!(told.contains("and 2994 more"), "{told}");
    assert!(told.lines().all(|line| !line.contains(['\u{1b}', '\u{202e}', '\r'])), "{told}");
    assert!(told.contains(r"a\u{202e}\u{1b}[2J\r\n'xxx"), "{told}");
}

#[test]
fn demands_that_mean_nothing_are_refused_with_the_policy() {
    let world = World::new();
    let refused = |materials: &str| {
        let text = format!("{}[algorithm.materials]\n{materials}", world.policy_text());
        let error = Policy::parse(&text).map(|_| ()).expect_err(materials);
        assert!(error.line > text.lines().count() - materials.lines().count() - 1, "{materials}: {error}");
        error.to_string()
    };
    for (materials, why) in [
        ("", "missing field"),
        ("complete = true", "missing field `hosts`"),
        ("hosts = \"any\"", "missing field `complete`"),
        ("complete = \"yes\"\nhosts = \"any\"", "invalid type"),
        ("complete = true\nhosts = \"any\"\nforbidden = []", "unknown field"),
        ("complete = true\nhosts = \"none\"", "neither a list"),
        ("complete = false\nhosts = []", "may be incomplete"),
        ("complete = false\nhosts = \"any\"\nforbid_fetched = ['pkg:pypi/a@*']", "may be incomplete"),
        ("complete = true\nhosts = ['https://a.example']", "can match no host"),
        ("complete = true\nhosts = ['a.example:443']", "can match no host"),
        ("complete = true\nhosts = ['A.example']", "can match no host"),
        ("complete = true\nhosts = ['']", "can match no host"),
        ("complete = true\nhosts = ['.example']", "can match no host"),
        ("complete = true\nhosts = ['***.example']", "can match no host"),
        ("complete = true\nhosts = ['[::01]']", "can match no host"),
        ("complete = true\nhosts = \"any\"\nforbid = ['requests']", "does not begin with pkg:"),
        ("complete = true\nhosts = \"any\"\nforbid = ['pkg:pypi/requests']", "names no version"),
        ("complete = true\nhosts = \"any\"\nforbid = ['pkg:pypi/Requests@*']", "small letters"),
        ("complete = true\nhosts = \"any\"\nforbid = ['pkg:*/zope.interface@*']", "each type"),
        ("complete = true\nhosts = \"any\"\nforbid = ['pkg:npm/@angular/core@*']", "%40"),
        ("complete = true\nhosts = \"any\"\nforbid = ['pkg:deb/debian/libstdc++6@*']", "%2B"),
        ("complete = true\nhosts = \"any\"\nforbid = ['pkg:deb/debian/curl@*?arch=amd64']", "qualifiers"),
        ("complete = true\nhosts = \"any\"\nforbid = ['pkg:pypi/***@*']", "three stars"),
        (
            "complete = true\nhosts = \"any\"\nrequire = ['pkg:pypi/a@2.*']\nforbid = ['pkg:pypi/*@*']",
            "is required, and forbidden by",
        ),
    ] {
        let told = refused(materials);
        assert!(told.contains(why), "{materials}: {told}");
    }
}

#[test]
fn a_star_stays_within_its_part() {
    let host = |text| Pattern::host(text).unwrap();
    assert!(host("*.example").matches("a.example") && !host("*.example").matches("a.b.example"));
    assert!(host("**.example").matches("a.b.example") && !host("**.example").matches("aexample"));
    let package = |text| Pattern::package(text).unwrap();
    assert!(package("pkg:golang/**@*").matches("pkg:golang/github.com/a/b@v1"));
    assert!(!package("pkg:golang/*@*").matches("pkg:golang/github.com/a/b@v1"));
    assert!(
        !package("pkg:pypi/a@1").matches("pkg:pypi/a@1.0")
            && !package("pkg:pypi/a@1.*").matches("pkg:pypi/a@1x0")
    );
}

/// Requests by many names: all that a lenient reader takes for `pkg:pypi/requests`.
fn spelling() -> impl Strategy<Value = String> {
    let letter = |c: char| {
        let upper = c.to_ascii_uppercase();
        prop_oneof![6 => Just(c.to_string()), 1 => Just(upper.to_string()),
            1 => Just(format!("%{:02X}", c as u32)), 1 => Just(format!("%{:02x}", c as u32))]
    };
    let word =
        move |text: &str| text.chars().map(letter).collect::<Vec<_>>().prop_map(|parts| parts.concat());
    let one_of = |texts: &[&'static str]| prop::sample::select(texts.to_vec());
    (
        one_of(&["pkg:", "pkg:", "PKG:", "pkg:/", "pkg://"]),
        word("pypi"),
        one_of(&["/", "/", "//"]),
        word("requests"),
        one_of(&["", "@2.31.0", "@2%2e31", "@", "/@1", "@1/2", "@1@2"]),
        one_of(&[
            "",
            "?file_name=a/b",
            "?a=@2",
            "?",
            "#sub/path",
            "?download_url=https:%2F%2Fa%2Fb",
            " ",
            "\n",
        ]),
    )
        .prop_map(|(scheme, kind, slash, name, version, rest)| {
            [scheme, &kind, slash, &name, version, rest].concat()
        })
}

fn purl() -> impl Strategy<Value = String> {
    prop_oneof![
        "pkg:(pypi|npm|deb/debian|generic)/[a-c]{1,2}(@[1-3](\\.[0-9])?)?(\\?arch=[ab])?",
        spelling(),
        "\\PC{0,40}",
        "[pkg:/@?#%*a-c0-9A-F.-]{0,24}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_spelling_slips_past_what_forbids_it(purl in spelling()) {
        for (list, kind, code) in [
            ("forbid", package as fn(&str) -> ResourceDescriptor, "forbidden-packages"),
            ("forbid", installed, "forbidden-packages"),
            ("forbid_fetched", package, "fetched-packages"),
            ("forbid_fetched", fetched, "fetched-packages"),
        ] {
            let found = lacking(&format!("{COMPLETE}{list} = ['pkg:pypi/requests@*']"), &[kind(&purl)]);
            prop_assert!(found == [code] || found == ["package-names"], "{purl:?}: {found:?}");
        }
    }

    #[test]
    fn a_forbidden_package_more_never_turns_no_into_yes(
        builds in prop::array::uniform3((prop::collection::vec(purl(), 0..3), any::<bool>())),
        forbid in prop::collection::vec("pkg:(pypi|npm|deb/\\*|\\*)/([a-c]|\\*)@(1|2\\.\\*)", 0..3),
        require in prop::option::of("pkg:pypi/[a-c]@\\*"),
        worse in 0..3usize,
        at in 0..4usize,
    ) {
        let world = World::new();
        // What is forbidden also meets what is required, if anything is.
        let forbidden = require.as_ref().map_or("pkg:pypi/bad@0".to_owned(), |it| it.replace('*', "0"));
        let list = |texts: &[String]| texts.iter().map(|it| format!("'{it}', ")).collect::<String>();
        let materials = format!(
            "complete = true\nhosts = ['a.example']\nforbid = [{}'{forbidden}']\nrequire = [{}]",
            list(&forbid), list(require.as_slice())
        );
        let policy = policy(&world, &materials);
        let signed = |builds: &[(Vec<String>, bool)]| {
            let mut all = world.enough();
            all.truncate(2);
            let builders = [("ci", &world.ci), ("auditor", &world.auditor), ("twin", &world.twin)];
            for ((name, key), (packages, allowed)) in builders.into_iter().zip(builds) {
                let host = if *allowed { "a.example" } else { "b.example" };
                let taken = packages.iter().map(|it| package(it)).chain([exchange(&format!("https://{host}/"))]);
                all.push(world.build(key, name, |it| {
                    it.value.build_definition.resolved_dependencies.extend(taken)
                }));
            }
            all
        };
        let names = |evidence: &[Evidence]| match decide(&policy, &question(), evidence, now()) {
            Decision::Admitted(admitted) => admitted.builds().to_vec(),
            Decision::Denied(_) => Vec::new(),
        };
        let mut builds = builds.to_vec();
        let before = signed(&builds);
        let place = at.min(builds[worse].0.len());
        builds[worse].0.insert(place, forbidden);
        let after = names(&signed(&builds));
        prop_assert!(after.is_empty() || !names(&before).is_empty(), "a forbidden package made it a yes");
        let builder = ["ci", "auditor", "twin"][worse];
        prop_assert!(!after.contains(&builder.to_owned()), "a build with what is forbidden counts");
        // And what is asked of materials never admits what would be denied without it.
        prop_assert!(names(&before).is_empty() || world.unmet(&before).is_empty());
    }
}
