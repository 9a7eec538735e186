#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

fn parsed(text: &str) -> Result<RunMount, Problem> {
    RunMount::parse(&Flag { name: "mount".to_owned(), value: Some(text.to_owned()) })
}

fn any(text: &str) -> Result<Mount, Problem> {
    let word = |text: &str| Ok(text.replace("$NONE", "").replace("$N", "7").replace("$KIND", "Cache"));
    parsed(text)?.expanded(&word)
}

#[test]
fn secrets_are_named_by_id_or_target() {
    let secret = |text: &str| match any(text) {
        Ok(Mount::Secret(it)) => {
            (it.id, it.target.unwrap_or_default(), it.env.unwrap_or_default(), it.required, it.mode)
        }
        other => panic!("{text}: {other:?}"),
    };
    let of = |id: &str, target: &str, env: &str, required, mode| {
        (id.to_owned(), target.to_owned(), env.to_owned(), required, mode)
    };
    assert_eq!(secret("type=secret,id=a/b"), of("a/b", "/run/secrets/b", "", false, 0o400));
    assert_eq!(
        secret("type=secret,dst=/etc/x.conf,mode=0440"),
        of("x.conf", "/etc/x.conf", "", false, 0o440)
    );
    assert_eq!(secret("type=secret,id=a,env=A,required"), of("a", "", "A", true, 0o400));
    assert_eq!(secret("type=secret,id=a,env=A,target=/a,required=true"), of("a", "/a", "A", true, 0o400));
    assert_eq!(secret("type=Secret,src=a,ro,required=0"), of("a", "/run/secrets/a", "", false, 0o400));
    for text in [
        "type=secret",
        "type=secret,id=",
        "type=secret,id=a,from=b",
        "type=secret,id=a,source=b",
        "type=secret,id=a,size=1",
        "type=secret,id=a,sharing=shared",
        "type=secret,id",
        "type=secret,id=a,required=perhaps",
    ] {
        assert!(any(text).is_err(), "{text}");
    }
    assert!(parsed("id=x,type=Secret").unwrap().is_secret() && !parsed("target=/x").unwrap().is_secret());
}

#[test]
fn kinds_of_mounts() {
    let named =
        |id: &str, mode, owner, writable| MountKind::Cache { id: id.to_owned(), mode, owner, writable };
    let cache = |mode, owner, writable| named("", mode, owner, writable);
    let bind = |from: Option<&str>, source: &str, writable| MountKind::Bind {
        from: from.map(str::to_owned),
        source: source.to_owned(),
        writable,
    };
    let temporary = |size, writable| MountKind::Temporary { size, writable };
    let table = [
        ("type=cache,target=/c,id=x,sharing=Locked", "/c", named("x", 0o755, (0, 0), true)),
        ("type=cache,dst=c,uid=1,gid=2,mode=0700,ro", "c", cache(0o700, (1, 2), false)),
        ("type=$KIND,dst=c,uid=$N,gid=1$N,mode=1$N", "c", cache(0o17, (7, 17), true)),
        ("type=cache,target=/c,mode=17777", "/c", cache(0o777, (0, 0), true)),
        ("type=cache,target=/c,from=one", "/c", bind(Some("one"), "/", true)),
        ("type=cache,target=/c,from=one,source=/d,uid=1", "/c", bind(Some("one"), "/d", true)),
        ("type=cache,target=/c,from=one,uid=1", "/c", cache(0o755, (1, 0), true)),
        ("type=cache", "", cache(0o755, (0, 0), true)),
        ("type=tmpfs,target=/t", "/t", temporary(None, true)),
        ("type=tmpfs,target=/t,size=64m,readonly", "/t", temporary(Some(64 << 20), false)),
        ("type=tmpfs,target=/t,size=$Nk", "/t", temporary(Some(7 << 10), true)),
        ("target=/b", "/b", bind(None, "/", false)),
        ("type=bind", "", bind(None, "/", false)),
        ("from=one", "", bind(Some("one"), "/", false)),
        ("type=bind,source=a,destination=/b,rw", "/b", bind(None, "a", true)),
        ("type=bind,src=a,target=/b,from=one,ro", "/b", bind(Some("one"), "a", false)),
        ("target=/b,ro=f,rw=False", "/b", bind(None, "/", false)),
        ("target=/b,ro,rw", "/b", bind(None, "/", true)),
        ("target=/b,readonly=0", "/b", bind(None, "/", true)),
        ("\"target=/b,\"\"1\",type=bind", "/b,\"1", bind(None, "/", false)),
        ("target=/b$NONE,from=", "/b", bind(None, "/", false)),
    ];
    for (text, target, kind) in table {
        let expected = Mount::Seen { target: target.to_owned(), kind };
        assert_eq!(any(text).unwrap(), expected, "{text}");
    }
    assert_eq!(parsed("target=/x,from=one,from=two").unwrap().from(), Some("two"));
}

#[test]
fn what_cannot_be_mounted() {
    for text in [
        "",
        "type=cache,target=/x,source=/y",
        "type=cache,target=/x,env=X",
        "type=cache,target=/x,sharing=else",
        "type=bind,target=/x,sharing=shared",
        "type=bind,target=/x,required",
        "type=bind,target",
        "type=bind,target=/x,rw=maybe",
        "type=bind,\"target=/x",
        "type=bind,tar\"get=/x",
        "type=bind,\"target=/x\"y",
        "type=ssh",
        "type=ssh,id=x",
        "type=else,target=/x",
        "type=tmpfs,target=/x,size=much",
        "type=tmpfs,target=/x,mode=0700",
        "type=bind,target=/x,size=1m",
        "type=cache,target=/x,mode=9",
        "type=cache,target=/x,uid=$NONE",
        "type=cache,target=/x,colour=red",
        "target=/x,from=$N",
    ] {
        assert!(any(text).is_err(), "{text}");
    }
}

#[test]
fn sizes() {
    let table = [
        ("1048576", Some(1 << 20)),
        ("64m", Some(64 << 20)),
        ("1.5gb", Some(3 << 29)),
        ("1 GiB", Some(1 << 30)),
        ("2t", Some(2 << 40)),
        ("7b", Some(7)),
        ("0", None),
        ("-1", None),
        ("m", None),
        ("1bb", None),
        ("1 x", None),
        ("9999999p", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(bytes(text), expected, "{text}");
    }
}
