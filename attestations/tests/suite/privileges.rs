//! What a rule lets an image do: each unmet condition, its remedy followed, and that less is never more.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::common::*;
use attestations::{
    Admitted, Call, Caller, Decision, Evidence, Policy, PolicyError, Question, Unmet, decide,
};
use proptest::prelude::*;
use serde_json::json;

/// A world whose evidence is enough, made once.
fn world() -> &'static (World, Vec<Evidence>) {
    static WORLD: OnceLock<(World, Vec<Evidence>)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World::new();
        let evidence = world.enough();
        (world, evidence)
    })
}

/// The world's policy with these lines in its rule, and others of its own before it.
fn text(own: &str, lines: &str) -> String {
    let (functions, databases) = ("functions = [\"partial\"]\n", "databases = [\"default\"]\n");
    let text = world().0.policy_text().replacen(databases, "", 1).replacen(functions, lines, 1);
    text.replacen("[[algorithm]]", &format!("{own}\n[[algorithm]]"), 1)
}

fn policy(own: &str, lines: &str) -> Policy {
    let text = text(own, lines);
    Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refused(own: &str, lines: &str) -> PolicyError {
    Policy::parse(&text(own, lines)).unwrap_err()
}

fn decided(policy: &Policy, call: &Call) -> Decision {
    decide(policy, &Question { call: call.clone(), ..question() }, &world().1, now())
}

#[track_caller]
fn admitted(policy: &Policy, call: &Call) -> Admitted {
    match decided(policy, call) {
        Decision::Admitted(admitted) => admitted,
        Decision::Denied(denial) => panic!("{denial}"),
    }
}

/// The one thing that lacks.
#[track_caller]
fn lacks(policy: &Policy, call: &Call) -> Unmet {
    match decided(policy, call) {
        Decision::Denied(mut denial) if denial.unmet.len() == 1 => denial.unmet.remove(0),
        other => panic!("{other:?}"),
    }
}

fn databases(labels: &[&str]) -> Call {
    Call { databases: Some(labels.iter().map(|label| (*label).to_owned()).collect()), ..Call::default() }
}

fn user(name: Option<&str>, uid: Option<u32>) -> Call {
    let caller = Caller { user: name.map(str::to_owned), uid };
    Call { caller: Some(caller), ..Call::default() }
}

const ANY: &str = "functions = \"any\"\n";

#[test]
fn a_database_that_no_line_lists_is_denied_by_name_and_listing_it_is_the_remedy() {
    let call = databases(&["patients", "default", "genomes"]);
    let none = policy("", ANY);
    let unmet = lacks(&none, &call);
    assert_eq!(
        (unmet.code(), unmet.found().as_str()),
        ("database", "not listed: default; genomes; patients")
    );
    assert!(admitted(&none, &databases(&[])).privileges().unmet(&Call::default()).is_empty());
    let one = policy("", &format!("{ANY}databases = [\"default\"]\n"));
    assert_eq!(lacks(&one, &call).found(), "not listed: genomes; patients");
    // Either half of the remedy: ask without these, or list them.
    let granted = admitted(&one, &databases(&["default"]));
    assert!(granted.privileges().unmet(&databases(&["default"])).is_empty());
    let listed = format!("{ANY}databases = [\"default\", \"genomes\", \"patients\"]\n");
    let granted = admitted(&policy("", &listed), &databases(&["genomes"]));
    // What was granted is what was asked for, although the rule allows more.
    assert_eq!(granted.privileges().unmet(&databases(&["patients"]))[0].code(), "database");
    admitted(&policy("", &format!("{ANY}databases = \"any\"\n")), &call);
    for wrong in ["databases = [\"../etc\"]\n", "databases = [\"\"]\n", "databases = \"all\"\n"] {
        assert!(refused("", &format!("{ANY}{wrong}")).line > 1, "{wrong}");
    }
}

#[test]
fn a_caller_whom_no_line_lists_is_denied_and_listing_them_is_the_remedy() {
    let alice = user(Some("alice"), Some(1000));
    let anybody = policy("", ANY);
    for call in [&alice, &user(None, None)] {
        admitted(&anybody, call);
    }
    let nobody = policy("", &format!("{ANY}users = []\n"));
    let unmet = lacks(&nobody, &alice);
    assert_eq!((unmet.code(), unmet.found().as_str()), ("caller", "alice (uid 1000) is not listed"));
    let organisations =
        "[organisations.cardiology]\nusers = [\"alice\", \"uid:1001\"]\n[organisations.empty]\nusers = []\n";
    for lines in [
        "users = [\"alice\"]\n",
        "users = [\"uid:1000\"]\n",
        "organisations = [\"cardiology\"]\n",
        "users = []\norganisations = [\"empty\", \"cardiology\"]\n",
        "users = \"any\"\n",
    ] {
        let granted = admitted(&policy(organisations, &format!("{ANY}{lines}")), &alice);
        if !lines.contains("any") {
            assert_eq!(granted.privileges().unmet(&user(Some("bob"), Some(1001)))[0].code(), "caller");
        }
    }
    let cardiology = policy(organisations, &format!("{ANY}organisations = [\"cardiology\"]\n"));
    admitted(&cardiology, &user(Some("whoever"), Some(1001)));
    // Whoever has a token is nobody in particular; a name is not a number, and not the beginning of another.
    for call in [user(None, None), user(Some("1001"), None), user(Some("alic"), None), user(None, Some(1000))]
    {
        assert_eq!(lacks(&cardiology, &call).code(), "caller", "{call:?}");
    }
    for wrong in [
        "users = [\"uid:x\"]\n",
        "users = [\"uid:+1\"]\n",
        "users = [\"a b\"]\n",
        "users = [\"\"]\n",
        "users = \"alice\"\n",
        "organisations = [\"nephrology\"]\n",
        "users = \"any\"\norganisations = [\"cardiology\"]\n",
        "users = [\"alice\"]\norganisations = \"any\"\n",
    ] {
        assert!(refused(organisations, &format!("{ANY}{wrong}")).line > 1, "{wrong}");
    }
}

/// A call of `average` with this column.
fn averages(kwargs: serde_json::Value) -> Call {
    let arguments = json!({ "args": [], "kwargs": kwargs });
    Call { function: Some("average".to_owned()), arguments: Some(arguments), ..Call::default() }
}

/// A rule's functions: `average` with these arguments, `count` with any.
fn functions(arguments: &str) -> String {
    // A table comes after every plain line of the rule, and before its other tables.
    format!("functions = {{ count = {{}}, average = {{ arguments = {arguments} }} }}\n")
}

const COLUMN: &str = r#"'''{
    "properties": {
        "args": { "maxItems": 0 },
        "kwargs": {
            "properties": {
                "column": { "enum": ["age", "weight"] },
                "bins": { "type": "integer", "minimum": 1, "maximum": 20 },
                "since": { "format": "date" },
                "name": { "pattern": "^[a-z]+$" }
            },
            "required": ["column"],
            "additionalProperties": false
        }
    },
    "additionalProperties": false
}'''"#;

#[test]
fn arguments_that_do_not_fit_are_denied_by_their_place_and_never_by_their_value() {
    let rule = policy("", &functions(COLUMN));
    admitted(&rule, &averages(json!({ "column": "age", "bins": 20, "since": "2026-02-28", "name": "a" })));
    for (kwargs, found) in [
        (json!({ "column": "Mr Secret" }), "/kwargs/column: enum"),
        (json!({}), "/kwargs: lacks column"),
        (json!({ "column": "age", "bins": 21 }), "/kwargs/bins: maximum"),
        (json!({ "column": "age", "bins": 1.5 }), "/kwargs/bins: type"),
        (json!({ "column": "age", "since": "2026-02-30" }), "/kwargs/since: format"),
        (json!({ "column": "age", "name": "a\u{1b}" }), "/kwargs/name: pattern"),
        (json!({ "column": "age", "rows\u{1b}[2J": true }), "/kwargs/rows\\u{1b}[2J: not known"),
        (json!([]), "/kwargs: type"),
        (json!({ "column": "x", "bins": 0 }), "/kwargs/bins: minimum; /kwargs/column: enum"),
    ] {
        // What is no object passes keywords about objects: that has to be said, too.
        let rule = match kwargs.is_array() {
            true => policy(
                "",
                &functions(&COLUMN.replacen("\"kwargs\": {", "\"kwargs\": { \"type\": \"object\",", 1)),
            ),
            false => rule.clone(),
        };
        let unmet = lacks(&rule, &averages(kwargs));
        assert_eq!((unmet.code(), unmet.found().as_str()), ("arguments", found));
        assert!(!unmet.to_string().contains("Secret"), "{unmet}");
        assert!(unmet.remedy().contains("[algorithm.functions.average]"), "{unmet}");
    }
    // Whatever else stands in an input is an argument, too.
    let mut other = averages(json!({ "column": "age" }));
    other.arguments.as_mut().unwrap()["output_format"] = json!("pickle");
    assert_eq!(lacks(&rule, &other).found(), "/output_format: not known");
    // Where the arguments are not known, they are not asked about; a function without a schema takes any.
    admitted(&rule, &Call { arguments: None, ..other.clone() });
    admitted(&rule, &Call { function: Some("count".to_owned()), ..other.clone() });
    assert_eq!(lacks(&rule, &Call { function: Some("dump".to_owned()), ..other }).code(), "function");
    // The proof of a call without its arguments does not allow any.
    let granted = admitted(&rule, &Call { function: Some("average".to_owned()), ..Call::default() });
    assert_eq!(granted.privileges().unmet(&averages(json!({ "column": "x" })))[0].code(), "arguments");
}

#[test]
fn a_schema_may_be_written_as_a_table() {
    let table = "{ properties = { kwargs = { properties = { column = { enum = [\"age\"] }, p = { exclusiveMaximum = 0.5 } } } } }";
    let rule = policy("", &functions(table));
    admitted(&rule, &averages(json!({ "column": "age", "p": 0.4 })));
    assert_eq!(
        lacks(&rule, &averages(json!({ "column": "age", "p": 0.5 }))).found(),
        "/kwargs/p: exclusiveMaximum"
    );
    // As tables of their own, after the lines of the rule.
    let text = text("", "").replacen(
        "[algorithm.reviews]",
        "[algorithm.functions.average.arguments.properties.kwargs]\nrequired = [\"column\"]\n[algorithm.reviews]",
        1,
    );
    let rule = Policy::parse(&text).unwrap();
    assert_eq!(lacks(&rule, &averages(json!({}))).found(), "/kwargs: lacks column");
}

#[test]
fn of_alternatives_the_place_is_told_and_of_many_misfits_a_few() {
    let rule = policy(
        "",
        &functions(
            "'{\"properties\":{\"kwargs\":{\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}}}'",
        ),
    );
    assert_eq!(lacks(&rule, &averages(json!({}))).found(), "/kwargs: anyOf");
    let numbers = policy(
        "",
        &functions("'{\"properties\":{\"kwargs\":{\"additionalProperties\":{\"type\":\"string\"}}}}'"),
    );
    let many: serde_json::Map<_, _> = (0..20).map(|n| (format!("n{n:02}"), json!(n))).collect();
    let found = lacks(&numbers, &averages(many.into())).found();
    assert!(found.ends_with("/kwargs/n07: type; and 12 more"), "{found}");
    let false_ =
        policy("", &functions("'{\"properties\":{\"kwargs\":{\"additionalProperties\":{\"not\":{}}}}}'"));
    assert_eq!(lacks(&false_, &averages(json!({ "a": 1 }))).found(), "/kwargs/a: not");
}

#[test]
fn more_values_than_can_be_looked_at_are_refused() {
    let rule = policy(
        "",
        &functions(
            "'{\"properties\":{\"kwargs\":{\"additionalProperties\":{\"items\":{\"type\":\"string\"}}}}}'",
        ),
    );
    let list = |length: usize| averages(json!({ "list": vec![1; length] }));
    let found = lacks(&rule, &list(1000)).found();
    assert!(found.ends_with("and 992 more"), "{found}");
    let found = lacks(&rule, &list(1 << 20)).found();
    assert!(found.ends_with("values are too many for this schema"), "{found}");
}

#[test]
fn a_schema_in_which_anything_would_be_ignored_or_fetched_is_an_error_with_its_line() {
    let deep = format!("{}true{}", "{\"not\":".repeat(200), "}".repeat(200));
    let large = format!("{{\"description\":\"{}\"}}", "x".repeat(65 << 10));
    for (schema, told) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("1", "the whole is no schema"),
        ("{\"maximum\":5,\"maximum\":500}", "`maximum` stands twice"),
        ("{\"additionalProperites\":false}", "/additionalProperites is a keyword that is not known"),
        ("{\"properties\":{\"kwargs\":{\"requird\":[\"a\"]}}}", "/properties/kwargs/requird is a keyword"),
        ("{\"allOf\":[{\"items\":{\"typ\":\"string\"}}]}", "/allOf/0/items/typ is a keyword"),
        ("{\"type\":\"strin\"}", "type"),
        ("{\"required\":\"a\"}", "required"),
        ("{\"minimum\":\"1\"}", "minimum"),
        ("{\"anyOf\":[]}", "anyOf"),
        ("{\"format\":\"iban\"}", "/format is none of"),
        ("{\"pattern\":\"(\"}", "/pattern is no regular expression"),
        ("{\"pattern\":\"(?=a)\"}", "/pattern is no regular expression"),
        ("{\"pattern\":\"(x{500}){500}\"}", "/pattern is no regular expression"),
        ("{\"patternProperties\":{\"[\":true}}", "/patternProperties is no regular expression"),
        ("{\"$ref\":\"https://evil.example/schema\"}", "/$ref: a schema in a policy refers to nothing"),
        ("{\"$ref\":\"file:///etc/passwd\"}", "/$ref: a schema in a policy refers to nothing"),
        ("{\"$ref\":\"#\"}", "/$ref: a schema in a policy refers to nothing"),
        ("{\"$id\":\"https://evil.example/\"}", "/$id: a schema in a policy refers to nothing"),
        (
            "{\"$schema\":\"https://evil.example/meta\"}",
            "/$schema is not https://json-schema.org/draft/2020-12",
        ),
        (&deep, "recursion limit"),
        (&large, "65536 are the most"),
    ] {
        let error = refused("", &functions(&format!("'''{schema}'''")));
        assert!(error.line > 5 && error.message.contains(told), "{schema:.200}: {error}");
    }
    let error = refused("", &functions("{ minimum = 2026-01-01 }"));
    assert!(error.message.contains("JSON has no dates"), "{error}");
    let error = refused("", "functions = { average = { argument = true } }\n");
    assert!(error.message.contains("argument"), "{error}");
}

/// Whether what was granted has this request.
fn passes(granted: &Admitted, method: &str, path: &[&str], query: &[(&str, &str)]) -> bool {
    granted.privileges().egress().permit(method, path, query).is_ok()
}

#[test]
fn no_requests_are_granted_but_those_of_the_rule() {
    let own =
        "[egress.portal]\nrequests = [{ methods = [\"GET\"], path = \"/terms/{id}\", query = [\"page\"] }]\n";
    let granted = |line: &str| admitted(&policy(own, &format!("{ANY}{line}\n")), &Call::default());
    for none in ["", "egress = \"none\"", "egress = []"] {
        assert!(granted(none).privileges().egress().is_empty(), "{none}");
    }
    let portal = granted("egress = \"portal\"");
    assert!(passes(&portal, "GET", &["terms", "7"], &[("page", "2")]));
    assert!(!passes(&portal, "POST", &["terms", "7"], &[]) && !passes(&portal, "GET", &["terms", "x"], &[]));
    assert!(
        !passes(&portal, "GET", &["terms", "7"], &[("q", "")])
            && !passes(&portal, "GET", &["task", "1"], &[])
    );
    let inline = granted("egress = [{ methods = [\"PUT\"], path = \"/a\" }]");
    assert!(passes(&inline, "PUT", &["a"], &[]) && !passes(&inline, "GET", &["a"], &[]));
    let (read, central) = (granted("egress = \"vantage6-read\""), granted("egress = \"vantage6-central\""));
    for all in [&read, &central] {
        assert!(passes(all, "GET", &["result"], &[("task_id", "1")]) && !passes(all, "GET", &["user"], &[]));
    }
    assert!(!passes(&read, "POST", &["task"], &[]) && passes(&central, "POST", &["task"], &[]));
    for (own, line, told) in [
        (own, "egress = \"portals\"", "no profile"),
        (own, "egress = \"any\"", "no profile"),
        (own, "egress = [{ methods = [], path = \"/a\" }]", "names no method"),
        (own, "egress = [{ methods = [\"CONNECT\"], path = \"/a\" }]", "CONNECT"),
        (own, "egress = [{ methods = [\"GET\"], path = \"/a/../b\" }]", "dot segments"),
        (own, "egress = [{ methods = [\"GET\"], path = \"/a\", extra = 1 }]", "extra"),
        ("[egress.none]\nrequests = []\n", "", "every policy knows"),
        ("[egress.vantage6-read]\nrequests = []\n", "", "every policy knows"),
        ("[egress.x]\n", "", "requests"),
    ] {
        let error = refused(own, &format!("{ANY}{line}\n"));
        assert!(error.line > 1 && error.to_string().contains(told), "{line}: {error}");
    }
}

/// A rule's own lines, as values.
#[derive(Debug, Clone)]
struct Lines {
    functions: Option<BTreeSet<String>>,
    /// The most that the argument `n` of the functions may be.
    most: Option<u32>,
    databases: Option<BTreeSet<String>>,
    users: Option<BTreeSet<String>>,
    organisations: Option<BTreeSet<String>>,
    egress: BTreeSet<usize>,
}

/// What may stand in a list: so few that lists and calls meet often.
const NAMES: [&str; 3] = ["a", "b", "c"];
const OWN: &str = "[organisations.a]\nusers = [\"a\", \"uid:1\"]\n[organisations.b]\nusers = [\"uid:2\"]\n[organisations.c]\nusers = []\n";

fn some() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len())
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

fn lines() -> impl Strategy<Value = Lines> {
    let list = || proptest::option::of(some());
    let egress = proptest::collection::btree_set(0..4_usize, 0..4);
    (list(), proptest::option::of(0..4_u32), list(), list(), list(), egress).prop_map(
        |(functions, most, databases, users, organisations, egress)| Lines {
            functions,
            most,
            databases,
            users,
            organisations,
            egress,
        },
    )
}

impl Lines {
    /// The same with nothing more anywhere, and less wherever `by` has less.
    fn narrowed(&self, by: &Self) -> Self {
        type List = Option<BTreeSet<String>>;
        let both = |own: &List, by: &List| match (own, by) {
            (Some(own), Some(by)) => Some(own & by),
            (Some(list), None) | (None, Some(list)) => Some(list.clone()),
            (None, None) => None,
        };
        // Whoever is in one of the two lists may ask: where only one is there, the other must not come.
        let (users, organisations) = match (&self.users, &self.organisations) {
            (None, None) => (by.users.clone(), by.organisations.clone()),
            (Some(users), None) => (both(&Some(users.clone()), &by.users), None),
            (None, Some(organisations)) => (None, both(&Some(organisations.clone()), &by.organisations)),
            (users, organisations) => (both(users, &by.users), both(organisations, &by.organisations)),
        };
        Self {
            functions: both(&self.functions, &by.functions),
            // Where any function may be called, nothing is said of arguments.
            most: match self.most.filter(|_| self.functions.is_some()) {
                Some(most) => Some(by.most.map_or(most, |other| most.min(other))),
                None => by.most,
            },
            databases: both(&self.databases, &by.databases),
            users,
            organisations,
            egress: &self.egress & &by.egress,
        }
    }

    fn policy(&self) -> Policy {
        let list = |list: &BTreeSet<String>| format!("{:?}", list.iter().collect::<Vec<_>>());
        let or_any = |it: &Option<BTreeSet<String>>| it.as_ref().map_or("\"any\"".to_owned(), list);
        let kwargs = |most| format!("{{ properties = {{ n = {{ maximum = {most} }} }} }}");
        let schema = |most| format!("{{ arguments = {{ properties = {{ kwargs = {} }} }} }}", kwargs(most));
        let functions = self.functions.as_ref().map(|names| {
            let schema = self.most.map_or("{}".to_owned(), schema);
            let each: Vec<String> = names.iter().map(|name| format!("{name} = {schema}")).collect();
            format!("{{ {} }}", each.join(", "))
        });
        let line = |name: &str, it: &Option<BTreeSet<String>>| {
            it.as_ref().map_or(String::new(), |it| format!("{name} = {}\n", list(it)))
        };
        let request = |number: &usize| format!("{{ methods = [\"GET\"], path = \"/{number}\" }}");
        let egress: Vec<String> = self.egress.iter().map(request).collect();
        let text = format!(
            "functions = {}\ndatabases = {}\n{}{}egress = [{}]\n",
            functions.as_deref().unwrap_or("\"any\""),
            or_any(&self.databases),
            line("users", &self.users),
            line("organisations", &self.organisations),
            egress.join(", ")
        );
        policy(OWN, &text)
    }
}

fn call() -> impl Strategy<Value = Call> {
    let name = || proptest::option::of(proptest::sample::select(NAMES.to_vec()).prop_map(str::to_owned));
    let caller = (name(), proptest::option::of(0..4_u32)).prop_map(|(user, uid)| Caller { user, uid });
    let number = proptest::option::of(0..5_u32);
    (name(), number, proptest::option::of(some()), proptest::option::of(caller)).prop_map(
        |(function, number, databases, caller)| Call {
            function,
            arguments: number.map(|number| json!({ "args": [], "kwargs": { "n": number } })),
            databases: databases.map(|labels| labels.into_iter().collect()),
            caller,
        },
    )
}

proptest! {
    #[test]
    fn a_policy_that_is_narrowed_never_admits_more(wide in lines(), by in lines(), call in call()) {
        let narrow = wide.narrowed(&by);
        if let Decision::Admitted(granted) = decided(&narrow.policy(), &call) {
            let more = admitted(&wide.policy(), &call);
            for number in 0..4 {
                let path = number.to_string();
                let passes = |it| passes(it, "GET", &[path.as_str()], &[]);
                prop_assert!(passes(&more) || !passes(&granted), "{number}");
            }
            // Nor does what was granted allow another call than was asked for.
            prop_assert!(granted.privileges().unmet(&call).is_empty());
        }
    }
}
