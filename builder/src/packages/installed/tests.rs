use std::io::Write as _;

use proptest::prelude::*;

use super::*;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn said(path: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let kind = kind_of(path.as_bytes(), 0o644).unwrap();
    match read(kind, path, Content::of(&file(bytes)).unwrap())? {
        Said::Vendor(name) => Ok(vec![name]),
        Said::Packages(packages) => Ok(packages.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn records_are_known_by_their_paths() {
    for (path, kind) in [
        ("var/lib/dpkg/status", Some(RecordKind::Dpkg)),
        ("var/lib/dpkg/status.d/libc6", Some(RecordKind::Dpkg)),
        ("var/lib/dpkg/status.d/libc6.md5sums", None),
        ("home/var/lib/dpkg/status", None),
        ("lib/apk/db/installed", Some(RecordKind::Apk)),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite", Some(RecordKind::RpmSqlite)),
        ("var/lib/rpm/Packages", Some(RecordKind::RpmOther)),
        ("opt/venv/lib/python3.13/site-packages/pandas-2.2.3.dist-info/METADATA", Some(RecordKind::Python)),
        ("x/pandas-2.2.3.dist-info/RECORD", None),
        ("usr/lib/python3/dist-packages/six.egg-info", Some(RecordKind::Python)),
        ("app/node_modules/left-pad/package.json", Some(RecordKind::Npm)),
        ("app/node_modules/@types/node/package.json", Some(RecordKind::Npm)),
        ("app/node_modules/.pnpm/a@1/node_modules/a/package.json", Some(RecordKind::Npm)),
        ("app/node_modules/left-pad/lib/package.json", None),
        ("app/package.json", None),
        ("app/my_node_modules/a/package.json", None),
        ("usr/lib/R/library/jsonlite/DESCRIPTION", Some(RecordKind::R)),
        ("opt/conda/conda-meta/numpy-1.26.4-py312_0.json", Some(RecordKind::Conda)),
        ("opt/conda/conda-meta/history", None),
        ("usr/lib/libx.so.1", Some(RecordKind::Program)),
    ] {
        assert_eq!(kind_of(path.as_bytes(), 0o644), kind, "{path}");
    }
    assert_eq!(kind_of(b"usr/bin/tool", 0o755), Some(RecordKind::Program));
    assert_eq!(kind_of(b"\xff/tool", 0o755), Some(RecordKind::Program));
    assert_eq!(kind_of(b"usr/share/text", 0o644), None);
}

/// As the tools write them.
#[test]
fn each_installer_says_what_it_installed() {
    let dpkg = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:7.88.1-10+deb12u5\n\
                Description: x\n Package: other\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                Package: half\nStatus: install ok half-configured\nArchitecture: all\nVersion: 2\n";
    let r =
        "Package: data.table\nVersion: 1.15.4\nDepends: R (>= 3.3.0)\nBuilt: R 4.3.1; ; 2024-01-01; unix\n";
    let conda = r#"{"name":"numpy","version":"1.26.4","build":"py312_0","subdir":"linux-64",
        "channel":"https://conda.example/conda-forge/linux-64","fn":"numpy-1.26.4-py312_0.conda","files":[]}"#;
    let python = "Metadata-Version: 2.1\r\nName: Zope.Interface\r\nVersion: 6.0\r\n\r\nName: other\r\n";
    let npm = "node_modules/@babel/core/package.json";
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "var/lib/dpkg/status",
            dpkg,
            &["pkg:deb/curl@1:7.88.1-10%2Bdeb12u5?arch=amd64", "pkg:deb/half@2?arch=all"],
        ),
        ("var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12\n", &["pkg:deb/base-files@12"]),
        (
            "lib/apk/db/installed",
            "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\n\n\nP:R\nV:4-r0\n",
            &["pkg:apk/musl@1.2.5-r0?arch=x86_64", "pkg:apk/R@4-r0"],
        ),
        ("x/a.dist-info/METADATA", python, &["pkg:pypi/zope-interface@6.0"]),
        (npm, r#"{"name":"@babel/core","version":"7.24.7"}"#, &["pkg:npm/%40babel/core@7.24.7"]),
        (npm, "\u{feff}{\"type\":\"module\"}", &["pkg:npm/%40babel/core"]),
        ("R/library/data.table/DESCRIPTION", r, &["pkg:cran/data.table@1.15.4"]),
        ("R/library/stats/DESCRIPTION", "Package: stats\nVersion: 4\nPriority: base\nBuilt: R 4\n", &[]),
        ("src/DESCRIPTION", "Package: source\nVersion: 1\n", &[]),
        (
            "opt/conda-meta/numpy.json",
            conda,
            &["pkg:conda/numpy@1.26.4?build=py312_0&channel=conda-forge&subdir=linux-64&type=conda"],
        ),
        ("etc/os-release", "NAME=\"x\"\nID=\"rhel\"\nID_LIKE=fedora\n", &["redhat"]),
        ("usr/lib/os-release", "NAME=x\nID=debian\n", &["debian"]),
    ];
    for (path, text, found) in cases {
        assert_eq!(said(path, text.as_bytes()).unwrap(), *found, "{path}");
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_nothing() {
    for (path, text) in [
        ("var/lib/dpkg/status", "Package: curl\nStatus: install ok installed\n"),
        ("lib/apk/db/installed", "P:musl\n"),
        ("x/a.dist-info/METADATA", "\n\nName: a\n"),
        ("node_modules/a/package.json", "{"),
        ("x/library/a/DESCRIPTION", "Package: a\nBuilt: R 4\n"),
        ("conda-meta/a.json", "{}"),
        ("var/lib/rpm/Packages", "\0"),
        ("var/lib/rpm/Packages.db", "RpmP"),
        ("var/lib/rpm/rpmdb.sqlite", "SQLite format 3\0"),
        ("var/lib/rpm/rpmdb.sqlite-wal", "x"),
    ] {
        assert!(matches!(said(path, text.as_bytes()), Err(RecordError::Malformed(_))), "{path}");
    }
    assert!(said("var/lib/rpm/rpmdb.sqlite-wal", b"").unwrap().is_empty());
}

/// A header of RPM's database with these tags.
fn header(name: &str, epoch: Option<u32>, files: usize) -> Vec<u8> {
    let mut data = Vec::new();
    let mut index = Vec::new();
    let mut add = |tag: u32, kind: u32, value: &[u8]| {
        while kind == 4 && data.len() % 4 != 0 {
            data.push(0);
        }
        index.extend([tag, kind, data.len() as u32, 1].into_iter().flat_map(u32::to_be_bytes));
        data.extend_from_slice(value);
    };
    let text = |text: &str| [text.as_bytes(), b"\0"].concat();
    add(1000, 6, &text(name));
    add(1001, 6, &text("5.1.8"));
    add(1002, 6, &text("9.el9"));
    if let Some(epoch) = epoch {
        add(1003, 4, &epoch.to_be_bytes());
    }
    add(1022, 6, &text("x86_64"));
    add(1117, 8, &vec![b'f'; files]);
    let sizes = [index.len() as u32 / 16, data.len() as u32].into_iter().flat_map(u32::to_be_bytes);
    sizes.chain(index).chain(data).collect()
}

#[test]
fn databases_of_rpm_are_read_in_both_forms() {
    let headers: Vec<Vec<u8>> = (0..60)
        .map(|number| header(&format!("package-{number}"), (number == 7).then_some(2), number * 700))
        .chain([header("gpg-pubkey", None, 0)])
        .collect();
    let mut wanted: Vec<String> = (0..60)
        .map(|number| format!("pkg:rpm/package-{number}@5.1.8-9.el9?arch=x86_64"))
        .map(|purl| if purl.contains("-7@") { format!("{purl}&epoch=2") } else { purl })
        .collect();
    wanted.sort();

    for page in [512, 4096, 65536] {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("rpmdb.sqlite");
        let database = rusqlite::Connection::open(&path).unwrap();
        database
            .execute_batch(&format!(
                "PRAGMA page_size={page}; CREATE TABLE Name(key TEXT, hnum INTEGER);
                 CREATE TABLE 'Packages'(hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"
            ))
            .unwrap();
        for header in &headers {
            database.execute("INSERT INTO Packages(blob) VALUES (?)", [header]).unwrap();
        }
        database.close().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let mut found = said("var/lib/rpm/rpmdb.sqlite", &bytes).unwrap();
        found.sort();
        assert_eq!(found, wanted, "pages of {page}");
    }

    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let mut slots: Vec<u32> = vec![word(b"RpmP"), 0, 1, 1, 0, 0, 0, 0];
    let mut blobs = Vec::new();
    for (number, header) in headers.iter().enumerate() {
        let number = number as u32 + 1;
        slots.extend([word(b"Slot"), number, (4096 + blobs.len() as u32) / 16, 1]);
        let head = [word(b"BlbS"), number, 1, header.len() as u32];
        blobs.extend(head.into_iter().flat_map(u32::to_le_bytes).chain(header.iter().copied()));
        blobs.resize(blobs.len().next_multiple_of(16), 0);
    }
    while slots.len() < 1024 {
        slots.extend([word(b"Slot"), 0, 0, 0]);
    }
    let bytes: Vec<u8> = slots.into_iter().flat_map(u32::to_le_bytes).chain(blobs).collect();
    let mut found = said("usr/lib/sysimage/rpm/Packages.db", &bytes).unwrap();
    found.sort();
    assert_eq!(found, wanted);
}

/// A program with one segment at 0x10000 that holds all of it, and these sections.
fn program(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut names = vec![0];
    let mut body = Vec::new();
    let mut table = vec![0; 64];
    let start = 64 + 56;
    let all = sections.iter().cloned().chain([(".shstrtab", Vec::new())]);
    for (name, content) in all {
        let at = names.len() as u32;
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        let content = if name == ".shstrtab" { names.clone() } else { content };
        body.resize(body.len().next_multiple_of(16), 0);
        let mut entry = [0; 64];
        entry[..4].copy_from_slice(&at.to_le_bytes());
        entry[4] = 1;
        entry[24..32].copy_from_slice(&((start + 8 + body.len()) as u64).to_le_bytes());
        entry[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        table.extend_from_slice(&entry);
        body.extend_from_slice(&content);
    }
    let whole = (start + 8 + body.len() + table.len()) as u64;
    let mut head = vec![0; start + 8];
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    head[32..40].copy_from_slice(&64_u64.to_le_bytes());
    head[40..48].copy_from_slice(&(whole - table.len() as u64).to_le_bytes());
    head[54..56].copy_from_slice(&56_u16.to_le_bytes());
    head[56] = 1;
    head[58] = 64;
    head[60] = (table.len() / 64) as u8;
    head[62] = (table.len() / 64 - 1) as u8;
    head[64] = 1;
    head[64 + 16..64 + 24].copy_from_slice(&0x10000_u64.to_le_bytes());
    head[64 + 32..64 + 40].copy_from_slice(&whole.to_le_bytes());
    [head, body, table].concat()
}

const MODULES: &str = "path\texample.org/Tool\nmod\texample.org/Tool\t(devel)\t\ndep\tgithub.com/a/B\tv1.2.3\th1:x=\n\
                       dep\tgolang.org/x/net\tv0.1.0\n=>\tgolang.org/x/net\tv0.2.0\th1:y=\n\
                       dep\texample.org/z\tv1.0.0\n=>\t./z\t(devel)\t\nbuild\t-compiler=gc\n";

fn modules() -> Vec<u8> {
    [&[1; 16], MODULES.as_bytes(), &[2; 16]].concat()
}

const OF_GO: [&str; 5] = [
    "pkg:golang/stdlib@1.22.1",
    "pkg:golang/example.org/tool",
    "pkg:golang/github.com/a/b@v1.2.3",
    "pkg:golang/golang.org/x/net@v0.2.0",
    "pkg:golang/example.org/z@v1.0.0",
];

#[test]
fn programs_of_go_and_rust_tell_their_parts() {
    let text = |text: &[u8]| {
        let mut length = text.len();
        let mut out = Vec::new();
        while length > 0x7f {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        [&out, text].concat()
    };
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    info.extend(text(b"go1.22.1").into_iter().chain(text(&modules())));
    let list = r#"{"packages":[{"name":"tokio","version":"1.38.0","source":"crates.io","dependencies":[1]},
        {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},
        {"name":"own","version":"0.1.0","source":"local","root":true}]}"#;
    let mut packed = vec![0; 1000];
    let length = libdeflater::Compressor::default().zlib_compress(list.as_bytes(), &mut packed).unwrap();
    packed.truncate(length);
    let of = |sections: &[(&str, Vec<u8>)]| said("usr/lib/x.so", &program(sections)).unwrap();
    assert_eq!(of(&[(".text", vec![7; 99]), (".go.buildinfo", info.clone())]), OF_GO);
    assert_eq!(of(&[(".dep-v0", packed.clone())]), ["pkg:cargo/tokio@1.38.0", "pkg:cargo/own@0.1.0"]);
    assert!(of(&[(".text", vec![7; 99])]).is_empty());
    assert!(said("usr/lib/x.so", b"\x7fELF").unwrap().is_empty(), "no machine starts it");

    packed.truncate(20);
    info.truncate(60);
    for broken in [(".dep-v0", packed), (".go.buildinfo", info)] {
        let found = said("usr/lib/x.so", &program(&[broken]));
        assert!(matches!(found, Err(RecordError::Malformed(_))), "{found:?}");
    }
}

/// Go before 1.18 kept addresses.
#[test]
fn programs_of_an_older_go_are_read_by_their_addresses() {
    let (version, list) = (b"go1.22.1".to_vec(), modules());
    // Where the sections come to lie, by the form that `program` gives a file.
    let address = |at: usize| (0x10000 + 64 + 56 + 8 + at) as u64;
    let strings: Vec<u8> = [address(32), version.len() as u64, address(48), list.len() as u64]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    let mut info = b"\xff Go buildinf:\x08\x00".to_vec();
    info.extend([address(0), address(16)].into_iter().flat_map(u64::to_le_bytes));
    let mut texts = version;
    texts.resize(16, 0);
    texts.extend(list);
    let sections = [(".strings", strings), (".texts", texts), (".go.buildinfo", info)];
    assert_eq!(said("x.so", &program(&sections)).unwrap(), OF_GO);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0..600_usize, at in 0..600_usize, byte in any::<u8>()) {
        let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
        info.extend_from_slice(&bytes);
        let mut changed = program(&[(".go.buildinfo", info), (".dep-v0", bytes.clone())]);
        let length = changed.len();
        changed[at % length] = byte;
        changed.truncate(length - cut % length);
        let mut database = b"SQLite format 3\0\x02\0\x01\x01\0\x40\x20\x20".to_vec();
        database.resize(100, 0);
        database.extend_from_slice(&bytes);
        database.resize(1024, byte);
        for (path, bytes) in [
            ("x.so", &changed),
            ("x.so", &bytes),
            ("var/lib/rpm/rpmdb.sqlite", &database),
            ("var/lib/rpm/Packages.db", &[b"RpmP\0\0\0\0\0\0\0\0\x01\0\0\0".as_slice(), &bytes].concat()),
            ("var/lib/dpkg/status", &bytes),
            ("a.dist-info/METADATA", &bytes),
            ("conda-meta/x.json", &bytes),
        ] {
            let _ = said(path, bytes);
        }
        let _ = rpm::read(&[bytes]);
    }
}
