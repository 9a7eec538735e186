//! What strangers send: never a panic, and what is accepted is written back as it came.
#![allow(missing_docs, clippy::unwrap_used)]

use proptest::prelude::*;
use tlog::note::Signature;
use tlog::witness::AddCheckpoint;
use tlog::{Note, Policy, Proof, SignedCheckpoint, VerifierKey};

const CHECKPOINT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
                          \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
const HASH: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

fn texts() -> Vec<String> {
    vec![
        CHECKPOINT.to_owned(),
        format!("c2sp.org/tlog-proof@v1\nextra QUJD\nindex 7\n{HASH}{HASH}\n{CHECKPOINT}"),
        format!("old 3\n{HASH}{HASH}\n{CHECKPOINT}"),
        format!("# all\nlog {KEY} https://log.example\nquorum none\n"),
        KEY.to_owned(),
    ]
}

/// Hands bytes to every parser. What is accepted comes back as it was.
fn parse(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
    }
    if let Ok(checkpoint) = SignedCheckpoint::parse(bytes) {
        assert_eq!(checkpoint.to_string().as_bytes(), bytes);
    }
    if let Ok(proof) = Proof::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
    }
    if let Ok(request) = AddCheckpoint::parse(bytes) {
        assert_eq!(request.to_string().as_bytes(), bytes);
    }
    let _ = Policy::parse(bytes);
    tlog::layout::entries(bytes).for_each(drop);
    tlog::layout::hashes(bytes).for_each(drop);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(key) = VerifierKey::parse(text) {
            assert_eq!(key.to_string(), text);
        }
        let _ = Signature::parse_all(text);
    }
}

#[test]
fn the_seeds_are_accepted() {
    let texts = texts();
    SignedCheckpoint::parse(texts[0].as_bytes()).unwrap();
    Proof::parse(texts[1].as_bytes()).unwrap();
    AddCheckpoint::parse(texts[2].as_bytes()).unwrap();
    Policy::parse(texts[3].as_bytes()).unwrap();
    VerifierKey::parse(&texts[4]).unwrap();
    texts.iter().for_each(|text| parse(text.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        parse(&bytes);
    }

    #[test]
    fn a_few_changes_in_what_is_right(which in 0..5_usize, changes in prop::collection::vec((any::<u16>(), any::<u8>(), 0..4_u8), 1..6)) {
        let mut bytes = texts()[which].clone().into_bytes();
        for (at, byte, what) in changes {
            let at = usize::from(at) % (bytes.len() + 1);
            match what {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        parse(&bytes);
    }
}
