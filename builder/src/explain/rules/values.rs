//! Values that differ from build to build: times, randomness, keys, the machine.

use super::super::hazards::*;
use super::Judge;
use super::calls::Call;

/// Whether it is about one of these programs.
pub(super) fn judge(judge: &mut Judge<'_>, call: &Call<'_>) -> bool {
    let any = |words: &[&str]| call.args.iter().any(|arg| words.contains(&arg.as_str()));
    match call.program.as_str() {
        "date" => {
            // Of another moment than now.
            let is_fixed = |arg: &String| {
                ["-d", "--date", "-r", "--reference", "-f", "--file"]
                    .iter()
                    .any(|option| arg.starts_with(option))
            };
            if !call.args.iter().any(is_fixed) {
                judge.add(&CLOCK, call);
            }
        }
        "uuidgen" | "pwgen" | "apg" | "shuf" | "mcookie" => judge.add(&CHANCE, call),
        // Each hash has a salt of its own.
        "chpasswd" | "passwd" | "mkpasswd" | "htpasswd" => judge.add(&CHANCE, call),
        "ssh-keygen" | "make-ssl-cert" | "mkcert" | "certtool" | "dropbearkey"
            if !any(&["-A", "-l", "-y", "-R"]) || any(&["-A"]) =>
        {
            judge.add(&KEY_MATERIAL, call);
        }
        "openssl" => match call.verb() {
            "rand" | "passwd" => judge.add(&CHANCE, call),
            "genrsa" | "genpkey" | "gendsa" | "dhparam" => judge.add(&KEY_MATERIAL, call),
            "req" if any(&["-x509", "-new", "-newkey"]) => judge.add(&KEY_MATERIAL, call),
            "ecparam" if any(&["-genkey"]) => judge.add(&KEY_MATERIAL, call),
            _ => {}
        },
        "gpg" | "gpg2"
            if call.args.iter().any(|arg| {
                arg.contains("gen-key") || arg.contains("generate-key") || arg.contains("generate-key")
            }) =>
        {
            judge.add(&KEY_MATERIAL, call);
        }
        "keytool" if call.args.iter().any(|arg| arg.starts_with("-gen")) => judge.add(&KEY_MATERIAL, call),
        "hostname" if call.args.iter().all(|arg| arg.starts_with('-')) => judge.add(&THIS_MACHINE, call),
        "uname" if any(&["-n", "-a", "-r", "-v"]) => judge.add(&THIS_MACHINE, call),
        "lscpu" | "lshw" | "dmidecode" => judge.add(&THIS_MACHINE, call),
        _ => return false,
    }
    true
}

/// What any program may be given.
pub(super) fn judge_words(judge: &mut Judge<'_>, call: &Call<'_>, words: &[String]) {
    let prints = matches!(call.program.as_str(), "echo" | "printf");
    let has = |text: &str| words.iter().any(|word| word.contains(text));
    let is_random = has("$RANDOM") || has("${RANDOM") || has("$SRANDOM");
    let reads_random = ["/dev/urandom", "/dev/random", "/proc/sys/kernel/random"].iter().any(|it| has(it));
    if is_random || reads_random && !prints {
        judge.add(&CHANCE, call);
    }
    if has("$EPOCHSECONDS") || has("$EPOCHREALTIME") {
        judge.add(&CLOCK, call);
    }
    let natives = ["-march=native", "-mtune=native", "-mcpu=native", "target-cpu=native"];
    if natives.iter().any(|it| has(it)) || has("/proc/cpuinfo") && !prints {
        judge.add(&THIS_MACHINE, call);
    }
}

/// A script of Python.
pub(super) fn judge_python(judge: &mut Judge<'_>, call: &Call<'_>, script: &str) {
    let has = |calls: &[&str]| calls.iter().any(|it| script.contains(it));
    if has(&[
        "datetime.now(",
        "datetime.utcnow(",
        "datetime.today(",
        "date.today(",
        "time.time(",
        "time.strftime(",
    ]) {
        judge.add(&CLOCK, call);
    }
    if has(&["uuid.uuid4(", "uuid.uuid1(", "secrets.token_", "os.urandom("]) {
        judge.add(&CHANCE, call);
    }
    if has(&["urlretrieve(", "urlopen(", "requests.get(", "nltk.download(", "torch.hub.", "download_url("])
        && !has(&["sha256", "sha512"])
    {
        judge.add(&UNCHECKED_DOWNLOAD, call);
    }
    if has(&["from_pretrained(", "snapshot_download(", "hf_hub_download("]) && !script.contains("revision=") {
        judge.add(&MOVING_GIT, call);
    }
}
