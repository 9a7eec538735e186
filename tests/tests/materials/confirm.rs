//! The servers of a build are asked again.

use testing::{Site, need};

use super::Bench;

/// Takes a package, an index that changes, and posts something.
const TAKES: &str = r#"FROM python
RUN python3 - <<EOF
import urllib.request
for path in ("files/demo-1.0-py3-none-any.whl", "count", "same"):
    urllib.request.urlopen("http://site.example/" + path).read()
urllib.request.urlopen("http://site.example/posted", data=b"body").read()
EOF
"#;

#[test]
fn the_servers_are_asked_again_whether_they_give_what_was_kept() {
    need!("runc", "mmdebstrap");
    let site = Site::start();
    let (bench, commit) = Bench::new(TAKES);
    let built = bench.build_through(&site.proxy(), &commit, &[]).expect(0).json();
    let digest = built["digest"].as_str().unwrap();
    let verdicts = |confirmed: &serde_json::Value| -> Vec<String> {
        let all = confirmed["answers"].as_array().unwrap();
        all.iter()
            .map(|one| format!("{} {}", one["method"].as_str().unwrap(), one["verdict"].as_str().unwrap()))
            .collect()
    };
    let honest = bench.confirm(&site.proxy(), digest).expect(0);
    let told = honest.stderr.lines().filter(|line| line.contains("\"asked\"")).count();
    let honest = honest.json();
    assert_eq!(verdicts(&honest), ["GET same", "GET other", "GET same", "POST not-asked"], "{honest}");
    assert_eq!(
        (told, &honest["packages"], &honest["packagesInDoubt"]),
        (4, &1.into(), &0.into()),
        "{honest}"
    );
    let package = honest["answers"][0]["package"].as_str().unwrap();
    assert!(package.starts_with("pkg:pypi/demo@1.0"), "{package}");

    // A server that gives others something else than the builder says it got: longer, and of the same length.
    for end in ["and more", ""] {
        let other = Site::saying(move |path, _| {
            (200, Vec::new(), format!("{}{end}", path.to_uppercase()).into_bytes())
        });
        let doubtful = bench.confirm(&other.proxy(), digest).expect(1).json();
        assert_eq!(verdicts(&doubtful)[0], "GET other", "{doubtful}");
        assert_eq!(doubtful["packagesInDoubt"], 1, "{doubtful}");
    }
    let gone = Site::saying(|_, _| (404, Vec::new(), Vec::new()));
    let doubtful = bench.confirm(&gone.proxy(), digest).expect(1).json();
    assert_eq!(
        verdicts(&doubtful)[..3],
        ["GET unavailable", "GET unavailable", "GET unavailable"],
        "{doubtful}"
    );
    let (proxy, unknown) = (site.proxy(), format!("sha256:{}", "0".repeat(64)));
    drop(site);
    let nobody = bench.confirm(&proxy, digest).expect(1);
    assert_eq!(nobody.json()["unavailable"], 3, "{}", nobody.text());
    bench.confirm(&proxy, &unknown).expect(4);
}
