use super::*;

fn named(method: &str, url: &str, status: u16, kind: Option<&str>) -> Option<String> {
    let digest = Digest::of(b"x");
    recognise(&Seen { method, url, status, content_type: kind, digest: &digest }).map(|purl| purl.to_string())
}

fn get(path: &str) -> Option<String> {
    named("GET", &format!("https://mirror.example/{path}"), 200, None)
}

/// URL shapes as the ecosystems' own tools ask for them.
#[test]
fn packages_are_named_by_the_shape_of_their_urls() {
    let cases = [
        (
            "debian/pool/main/c/curl/curl_7.88.1-10+deb12u5_amd64.deb",
            "pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64",
        ),
        (
            "debian/pool/main/g/gcc-12/libstdc++6_12.2.0-14_amd64.deb",
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64",
        ),
        (
            "debian-security/pool/updates/main/v/vim/vim_2%3a9.0.1378-2_arm64.deb",
            "pkg:deb/debian/vim@2:9.0.1378-2?arch=arm64",
        ),
        ("ubuntu/pool/universe/t/tini/tini_0.19.0-1_amd64.deb", "pkg:deb/ubuntu/tini@0.19.0-1?arch=amd64"),
        (
            "pool/main/t/tzdata/tzdata_2024a-0+deb12u1_all.deb",
            "pkg:deb/debian/tzdata@2024a-0%2Bdeb12u1?arch=all",
        ),
        (
            "packages/3b/00/ab/pandas-2.2.3-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "pkg:pypi/pandas@2.2.3?file_name=pandas-2.2.3-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        ),
        (
            "packages/aa/bb/cc/typing_extensions-4.12.2-py3-none-any.whl",
            "pkg:pypi/typing-extensions@4.12.2?file_name=typing_extensions-4.12.2-py3-none-any.whl",
        ),
        (
            "simple/Zope.Interface/zope.interface-6.0-1-cp311-cp311-linux_x86_64.whl",
            "pkg:pypi/zope-interface@6.0?file_name=zope.interface-6.0-1-cp311-cp311-linux_x86_64.whl",
        ),
        (
            "whl/cpu/torch-2.3.1%2Bcpu-cp311-cp311-linux_x86_64.whl",
            "pkg:pypi/torch@2.3.1%2Bcpu?file_name=torch-2.3.1%2Bcpu-cp311-cp311-linux_x86_64.whl",
        ),
        (
            "packages/source/v/vantage6-algorithm-tools/vantage6-algorithm-tools-4.15.2.tar.gz",
            "pkg:pypi/vantage6-algorithm-tools@4.15.2?file_name=vantage6-algorithm-tools-4.15.2.tar.gz",
        ),
        (
            "packages/87/5b/aa/markupsafe-2.1.5.tar.gz",
            "pkg:pypi/markupsafe@2.1.5?file_name=markupsafe-2.1.5.tar.gz",
        ),
        (
            "api/pypi/repo/packages/a/b/foo_bar-1.0rc1.zip",
            "pkg:pypi/foo-bar@1.0rc1?file_name=foo_bar-1.0rc1.zip",
        ),
        (
            "conda-forge/linux-64/numpy-1.26.4-py311h64a7726_0.conda",
            "pkg:conda/numpy@1.26.4?build=py311h64a7726_0&channel=conda-forge&subdir=linux-64&type=conda",
        ),
        (
            "pkgs/main/noarch/tzdata-2024a-h04d1e81_0.tar.bz2",
            "pkg:conda/tzdata@2024a?build=h04d1e81_0&channel=main&subdir=noarch&type=tar.bz2",
        ),
        ("src/contrib/jsonlite_1.8.8.tar.gz", "pkg:cran/jsonlite@1.8.8"),
        ("src/contrib/Archive/Matrix/Matrix_1.6-5.tar.gz", "pkg:cran/Matrix@1.6-5"),
        (
            "bin/linux/x/src/contrib/data.table_1.15.4_R_x86_64-pc-linux-gnu.tar.gz",
            "pkg:cran/data.table@1.15.4",
        ),
        ("left-pad/-/left-pad-1.3.0.tgz", "pkg:npm/left-pad@1.3.0"),
        ("@types/node/-/node-20.14.2.tgz", "pkg:npm/%40types/node@20.14.2"),
        ("@types%2fnode/-/node-20.14.2.tgz", ""),
        ("repository/npm/@Babel/core/-/core-7.24.7.tgz", "pkg:npm/%40babel/core@7.24.7"),
        ("api/v1/crates/itoa/1.0.11/download", "pkg:cargo/itoa@1.0.11"),
        ("crates/serde_json/serde_json-1.0.117.crate", "pkg:cargo/serde_json@1.0.117"),
        ("crates/tokio/1.38.0/download", "pkg:cargo/tokio@1.38.0"),
        ("github.com/google/uuid/@v/v1.6.0.zip", "pkg:golang/github.com/google/uuid@v1.6.0"),
        (
            "goproxy/github.com/!masterminds/semver/v3/@v/v3.2.1.zip",
            "pkg:golang/github.com/masterminds/semver/v3@v3.2.1",
        ),
        (
            "golang.org/x/text/@v/v0.0.0-20170915032832-14c0d48ead0c.zip",
            "pkg:golang/golang.org/x/text@v0.0.0-20170915032832-14c0d48ead0c",
        ),
        ("gopkg.in/yaml.v3/@v/v3.0.1.zip", "pkg:golang/gopkg.in/yaml.v3@v3.0.1"),
        (
            "maven2/org/apache/commons/commons-lang3/3.12.0/commons-lang3-3.12.0.jar",
            "pkg:maven/org.apache.commons/commons-lang3@3.12.0",
        ),
        (
            "maven2/org/apache/commons/commons-lang3/3.12.0/commons-lang3-3.12.0.pom",
            "pkg:maven/org.apache.commons/commons-lang3@3.12.0?type=pom",
        ),
        (
            "maven2/com/google/inject/guice/4.2.2/guice-4.2.2-no_aop.jar",
            "pkg:maven/com.google.inject/guice@4.2.2?classifier=no_aop",
        ),
        ("nexus/content/junit/junit/4.13.2/junit-4.13.2.jar", "pkg:maven/junit/junit@4.13.2"),
        ("alpine/v3.20/main/x86_64/curl-8.9.0-r0.apk", "pkg:apk/alpine/curl@8.9.0-r0?arch=x86_64"),
        ("alpine/v3.20/main/x86_64/py3-pip-24.0-r2.apk", "pkg:apk/alpine/py3-pip@24.0-r2?arch=x86_64"),
        ("fedora/Packages/c/curl-8.0.1-1.fc39.x86_64.rpm", "pkg:rpm/fedora/curl@8.0.1-1.fc39?arch=x86_64"),
        (
            "almalinux/9/BaseOS/Packages/bash-5.1.8-9.el9.x86_64.rpm",
            "pkg:rpm/redhat/bash@5.1.8-9.el9?arch=x86_64",
        ),
        // Indexes and pages are no packages.
        ("debian/dists/bookworm/InRelease", ""),
        ("debian/dists/bookworm/main/binary-amd64/Packages.xz", ""),
        ("debian/dists/bookworm/main/binary-amd64/by-hash/SHA256/aabbcc.xz", ""),
        ("debian/dists/bookworm/main/i18n/Translation-en.xz", ""),
        ("simple/pandas/", ""),
        ("left-pad", ""),
        ("@types/node", ""),
        ("in/de/index.json", ""),
        ("config.json", ""),
        ("github.com/google/uuid/@v/list", ""),
        ("github.com/google/uuid/@v/v1.6.0.info", ""),
        ("github.com/google/uuid/@v/v1.6.0.mod", ""),
        ("github.com/google/uuid/@latest", ""),
        ("maven2/org/apache/maven/plugins/maven-metadata.xml", ""),
        ("maven2/org/apache/commons/commons-lang3/3.12.0/commons-lang3-3.12.0.jar.sha1", ""),
        ("conda-forge/linux-64/repodata.json.zst", ""),
        ("alpine/v3.20/main/x86_64/APKINDEX.tar.gz", ""),
        ("src/contrib/PACKAGES.gz", ""),
    ];
    for (path, expected) in cases {
        assert_eq!(get(path).unwrap_or_default(), expected, "{path}");
    }
}

#[test]
fn plain_files_and_git_are_named_by_where_they_came_from() {
    let digest = Digest::of(b"x").hex();
    let file =
        named("GET", "https://dl.example/tools/tool.bin?sig=SECRET", 200, Some("application/octet-stream"));
    let expected = format!(
        "pkg:generic/tool.bin?checksum=sha256:{digest}&download_url=https://dl.example/tools/tool.bin"
    );
    assert_eq!(file, Some(expected), "a query may hold a secret");
    let archive = get("releases/download/v1/model.tar.xz").unwrap();
    assert!(archive.starts_with("pkg:generic/model.tar.xz?checksum="), "{archive}");
    let kind = Some("application/x-git-upload-pack-result");
    let pack = named("POST", "https://git.example/team/thing.git/git-upload-pack", 200, kind);
    assert_eq!(pack.as_deref(), Some("pkg:generic/thing?vcs_url=git%2Bhttps://git.example/team/thing.git"));
    assert_eq!(
        named("POST", "https://git.example/team/thing.git/git-upload-pack", 200, Some("text/html")),
        None
    );
    assert_eq!(named("GET", "https://a.example/page.html", 200, Some("text/html")), None);
    for status in [206, 301, 404, 500] {
        assert_eq!(named("GET", "https://a.example/left-pad/-/left-pad-1.3.0.tgz", status, None), None);
    }
}

#[test]
fn hostile_names_are_no_packages_and_never_a_panic() {
    let long = format!("pool/{}_1_amd64.deb", "a".repeat(3000));
    for path in [
        "pool/a%0ab_1_amd64.deb",
        "pool/a%2fb_1_amd64.deb",
        "pool/%ff%fe_1_amd64.deb",
        "pool/a%_1_amd64.deb",
        "pool/a%zz_1_amd64.deb",
        "pool/__.deb",
        "pool/_1_amd64.deb",
        "x/-.whl",
        "x/----.whl",
        "x/-/-.tgz",
        "-/-/-.tgz",
        "a/@v/.zip",
        "@v/v1.zip",
        "a.b/!/@v/!.zip",
        "noarch/-.conda",
        "noarch/--.conda",
        ".crate",
        "a/a-.crate",
        "contrib/_.tar.gz",
        "x/-r.apk",
        "x/--r0.apk",
        "x/-.rpm",
        "-/-/--.jar",
        "a/1/a-1-.jar",
        "..",
        ".tar.gz",
        &long,
    ] {
        let found = get(path).unwrap_or_default();
        assert!(!found.chars().any(char::is_control), "{path}: {found}");
        assert!(
            !found.contains("@?") && !found.ends_with('@') && !found.contains("pkg://"),
            "{path}: {found}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn any_url_is_named_without_control_characters_or_not_at_all(path in "[ -~]{0,60}", ending in "(\\.deb|\\.whl|\\.tgz|\\.crate|\\.zip|\\.jar|\\.conda|\\.rpm|\\.apk|\\.tar\\.gz)?") {
        if let Some(purl) = get(&format!("{path}{ending}")) {
            let plain = purl.bytes().all(|byte| byte.is_ascii_graphic());
            proptest::prop_assert!(plain && purl.starts_with("pkg:"), "{}", purl);
        }
    }
}

#[test]
fn a_segment_that_is_no_encoding_of_a_name_names_nothing() {
    assert_eq!(decoded("libstdc%2B%2b6").as_deref(), Some("libstdc++6"));
    assert_eq!(decoded("%2541").as_deref(), Some("%41"), "once, not until nothing is left");
    for segment in ["a%", "a%2", "a%2G", "%+1", "a%2Fb", "a%00", "%FF"] {
        assert_eq!(decoded(segment), None, "{segment}");
    }
}
