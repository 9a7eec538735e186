//! Keys made by other programs are read, and what is signed with them is verified by other programs.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use attestations::keys::Algorithm;
use tempfile::TempDir;

use super::password::PasswordSource;
use super::*;

const MESSAGE: &[u8] = b"DSSEv1 28 application/vnd.in-toto+json 2 {}";

fn run(command: &str, dir: &TempDir) {
    let output = Command::new("sh").args(["-ec", command]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn none() -> Result<Zeroizing<String>, password::Error> {
    panic!("asked for a password without need")
}

fn secret() -> Result<Zeroizing<String>, password::Error> {
    Ok(Zeroizing::new("correct horse".to_owned()))
}

fn wrong() -> Result<Zeroizing<String>, password::Error> {
    Ok(Zeroizing::new("battery staple".to_owned()))
}

/// Has openssl, which shares no code with us, verify a signature of the key.
fn verified_by_openssl(dir: &TempDir, signer: &dyn Signer) {
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("signed.pub"), signer.public_key().to_pem()).unwrap();
    std::fs::write(at("message"), MESSAGE).unwrap();
    std::fs::write(at("signature"), signer.sign(MESSAGE).unwrap()).unwrap();
    let kind = String::from_utf8(
        Command::new("openssl")
            .args(["pkey", "-pubin", "-noout", "-text", "-in"])
            .arg(at("signed.pub"))
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let digest = if kind.contains("ED25519") { "" } else { "-digest sha256" };
    let verify = format!(
        "openssl pkeyutl -verify -rawin {digest} -pubin -inkey signed.pub -in message -sigfile signature"
    );
    run(&verify, dir);
    std::fs::write(at("message"), b"something else").unwrap();
    let output = Command::new("sh").args(["-ec", &verify]).current_dir(dir.path()).output().unwrap();
    assert!(!output.status.success(), "openssl verifies anything");
}

#[test]
fn keys_made_by_openssl() {
    let dir = TempDir::new().unwrap();
    for algorithm in ["-algorithm ed25519", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"] {
        run(&format!("openssl genpkey {algorithm} -out plain.pem"), &dir);
        let plain = load(&dir.path().join("plain.pem"), &mut none).unwrap();
        verified_by_openssl(&dir, &*plain);
        run("openssl pkey -in plain.pem -pubout -out plain.pub", &dir);
        let theirs = std::fs::read_to_string(dir.path().join("plain.pub")).unwrap();
        assert_eq!(plain.public_key().to_pem().trim(), theirs.trim());
        for encryption in ["-v2 aes-256-cbc", "-v2 aes-128-cbc -v2prf hmacWithSHA256 -iter 5000", "-scrypt"] {
            let command = "openssl pkcs8 -topk8 -in plain.pem -out sealed.pem -passout 'pass:correct horse'";
            run(&format!("{command} {encryption}"), &dir);
            let path = dir.path().join("sealed.pem");
            let sealed = load(&path, &mut secret).unwrap();
            assert_eq!(sealed.public_key(), plain.public_key());
            verified_by_openssl(&dir, &*sealed);
            assert!(matches!(load(&path, &mut wrong), Err(Error::WrongPassword(_))), "{encryption}");
        }
    }
}

#[test]
fn keys_made_by_ssh_keygen() {
    let dir = TempDir::new().unwrap();
    for kind in ["ed25519", "ecdsa -b 256"] {
        run(&format!("rm -f plain plain.pub sealed; ssh-keygen -q -t {kind} -N '' -C 'a b' -f plain"), &dir);
        let plain = load(&dir.path().join("plain"), &mut none).unwrap();
        verified_by_openssl(&dir, &*plain);
        let line = std::fs::read_to_string(dir.path().join("plain.pub")).unwrap();
        let theirs = attestations::keys::PublicKey::parse(&line).unwrap();
        assert_eq!(plain.public_key().to_pem(), theirs.to_pem());
        for cipher in ["aes256-ctr", "aes256-gcm@openssh.com", "aes256-cbc"] {
            let command = format!(
                "cp plain sealed && chmod 600 sealed && ssh-keygen -q -p -f sealed -N 'correct horse' -Z {cipher}"
            );
            run(&command, &dir);
            let path = dir.path().join("sealed");
            let sealed = load(&path, &mut secret).unwrap();
            assert_eq!(sealed.public_key(), plain.public_key());
            assert!(matches!(load(&path, &mut wrong), Err(Error::WrongPassword(_))), "{cipher}");
        }
    }
}

#[test]
fn keys_of_other_kinds_are_refused_by_name() {
    let dir = TempDir::new().unwrap();
    run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pem", &dir);
    run("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem", &dir);
    run("ssh-keygen -q -t rsa -b 2048 -N '' -f rsa.ssh", &dir);
    run("ssh-keygen -q -t ecdsa -b 384 -N '' -f p384.ssh", &dir);
    for name in ["p384.pem", "rsa.pem", "rsa.ssh", "p384.ssh"] {
        let error = load(&dir.path().join(name), &mut none).err().unwrap();
        assert!(matches!(error, Error::Unsupported { .. }), "{name}: {error}");
    }
    run("openssl ecparam -name prime256v1 -genkey -noout -out sec1.pem", &dir);
    run("openssl pkey -in p384.pem -pubout -out public.pem; head -c 100000 /dev/zero > zero", &dir);
    run(
        "printf 'no key' > text; head -c 300 /dev/urandom > noise; sed 's/[A-Z]/a/5' p384.pem > broken.pem",
        &dir,
    );
    run("printf -- '-----BEGIN PRIVATE KEY-----\\n' > cut.pem", &dir);
    for name in ["sec1.pem", "public.pem", "zero", "text", "noise", "cut.pem"] {
        let error = load(&dir.path().join(name), &mut none).err().unwrap();
        assert!(matches!(error, Error::Malformed { .. }), "{name}: {error}");
        assert_eq!(errors::Error::from(error).kind().exit_code(), 7);
    }
    let missing = load(&dir.path().join("missing"), &mut none).err().unwrap();
    assert_eq!(errors::Error::from(missing).kind().exit_code(), 4);
    std::fs::set_permissions(dir.path().join("p384.pem"), std::fs::Permissions::from_mode(0o602)).unwrap();
    let open = load(&dir.path().join("p384.pem"), &mut none).err().unwrap();
    let open = errors::Error::from(open);
    assert_eq!(open.kind(), Kind::Refused);
    assert!(open.to_string().contains("mode 0602") && open.hint_text().unwrap().contains("chmod go-w"));
}

#[test]
fn a_file_does_not_decide_how_much_we_work() {
    let dir = TempDir::new().unwrap();
    run("openssl genpkey -algorithm ed25519 -out plain.pem", &dir);
    let command = "openssl pkcs8 -topk8 -in plain.pem -out costly.pem -passout 'pass:correct horse' -iter";
    run(&format!("{command} 20000001"), &dir);
    let error = load(&dir.path().join("costly.pem"), &mut none).err().unwrap();
    assert!(error.to_string().contains("too much work"), "{error}");
}

#[test]
fn generated_keys_open_here_and_in_openssl() {
    let dir = TempDir::new().unwrap();
    for (name, algorithm) in [("a", Algorithm::Ed25519), ("b", Algorithm::EcdsaP256)] {
        let path = dir.path().join(name);
        let made = generate(&path, algorithm, &Protection::Password(secret().unwrap())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(exposure(&path).is_none());
        let signer = load(&path, &mut secret).unwrap();
        assert_eq!(signer.public_key(), &made.public_key);
        verified_by_openssl(&dir, &*signer);
        assert!(matches!(load(&path, &mut wrong), Err(Error::WrongPassword(_))));
        run(&format!("openssl pkey -in {name} -passin 'pass:correct horse' -pubout -out theirs"), &dir);
        let theirs = std::fs::read_to_string(dir.path().join("theirs")).unwrap();
        assert_eq!(std::fs::read_to_string(&made.public_path).unwrap().trim(), theirs.trim());
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_half_written_stays() {
    let dir = TempDir::new().unwrap();
    let (path, public) = (dir.path().join("k"), dir.path().join("k.pub"));
    generate(&path, Algorithm::Ed25519, &Protection::Unprotected).unwrap();
    let before = std::fs::read(&path).unwrap();
    let again = generate(&path, Algorithm::Ed25519, &Protection::Unprotected);
    assert!(matches!(again, Err(Error::Exists(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    std::fs::remove_file(&public).unwrap();
    assert!(matches!(generate(&path, Algorithm::Ed25519, &Protection::Unprotected), Err(Error::Exists(_))));
    assert!(!public.exists(), "a public key without its private one stayed");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_key_that_others_can_read_is_noticed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("k");
    generate(&path, Algorithm::Ed25519, &Protection::Unprotected).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(exposure(&path), Some(0o640));
}

#[test]
fn passwords_come_from_files_but_never_empty() {
    let dir = TempDir::new().unwrap();
    let (path, key) = (dir.path().join("p"), dir.path().join("key"));
    let from_file = |text: &str| {
        std::fs::write(&path, text).unwrap();
        PasswordSource::File(path.clone()).existing(&key)
    };
    assert_eq!(*from_file("correct horse\nmore").unwrap(), "correct horse");
    assert!(matches!(from_file(""), Err(password::Error::Empty)));
    assert!(matches!(from_file(&"x".repeat(5000)), Err(password::Error::Malformed)));
    let given = PasswordSource::Given(Zeroizing::default());
    assert!(matches!(given.existing(&key), Err(password::Error::Empty)));
}
