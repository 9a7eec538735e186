//! `HEALTHCHECK`, with durations in Go's form, which the image's history uses.

use super::Problem;
use super::instruction::Health;
use super::words::{Flag, Json, first_word, json};

/// Each unit in nanoseconds, the larger first.
const UNITS: [(&str, i64); 7] = [
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];
/// Docker accepts no duration below a millisecond, except 0.
const SHORTEST: i64 = 1_000_000;

pub(super) fn parse(flags: &[Flag], rest: &str) -> Result<Health, Problem> {
    let mut health = Health::default();
    for (at, flag) in flags.iter().enumerate() {
        if flags[..at].iter().any(|other| other.name == flag.name) {
            return Err(Problem::syntax(format!("HEALTHCHECK --{} is given twice", flag.name)));
        }
        let value = flag.value.as_deref();
        let wrong = |what: &str| Problem::syntax(format!("HEALTHCHECK --{} {what}", flag.name));
        let time = || {
            let time = value.and_then(|value| if value.is_empty() { Some(0) } else { duration(value) });
            time.ok_or_else(|| wrong("needs a time of at least 1ms, such as 30s, or 0s for the engine's own"))
        };
        match flag.name.as_str() {
            "interval" => health.interval = time()?,
            "timeout" => health.timeout = time()?,
            "start-period" => health.start_period = time()?,
            "start-interval" => health.start_interval = time()?,
            "retries" => {
                let number = |value: &str| match value {
                    "" => Some(0),
                    value => value.parse().ok().filter(|count| (0..=i64::from(i32::MAX)).contains(count)),
                };
                health.retries = value.and_then(number).ok_or_else(|| wrong("needs a number"))?;
            }
            _ => return Err(wrong("is unknown: interval, timeout, start-period, start-interval, retries")),
        }
    }
    let (kind, command) = first_word(rest);
    let command = command.trim();
    health.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => {
            return Ok(Health { test: vec!["NONE".to_owned()], ..Health::default() });
        }
        "CMD" if !command.is_empty() => match json(command)? {
            Json::Strings(words) if words.is_empty() => {
                return Err(Problem::syntax("HEALTHCHECK CMD needs a command"));
            }
            Json::Strings(words) => [vec!["CMD".to_owned()], words].concat(),
            Json::No => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err(Problem::syntax("HEALTHCHECK is NONE, or CMD and a command")),
    };
    Ok(health)
}

/// Parses `1m30s`, `1.5h`, `250ms` to nanoseconds; 0 means the engine's default.
fn duration(text: &str) -> Option<i64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let (mut rest, mut sum) = (text, 0_i64);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(end);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut nanoseconds = whole.checked_mul(*factor)?;
        let mut weight = *factor;
        for digit in part.bytes() {
            weight /= 10;
            nanoseconds =
                nanoseconds.checked_add(weight.checked_mul(i64::from(digit.checked_sub(b'0')?))?)?;
        }
        sum = sum.checked_add(nanoseconds)?;
        rest = &after[unit.len()..];
    }
    (sum == 0 || sum >= SHORTEST).then_some(sum)
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `250ms`.
pub(crate) fn format_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if nanoseconds < 1_000_000_000 {
        let (unit, factor) = match nanoseconds {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("\u{b5}s", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanoseconds, factor));
    }
    let (minutes, rest) = (nanoseconds / 60_000_000_000, nanoseconds % 60_000_000_000);
    let seconds = decimal(rest, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: i64, unit: i64) -> String {
    let digits = unit.to_string().len() - 1;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    match digits {
        0 => (value / unit).to_string(),
        _ => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let table = [
            ("30s", 30_000_000_000, "30s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("250ms", 250_000_000, "250ms"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("1500us", 1_500_000, "1.5ms"),
            ("0", 0, "0s"),
            ("5m", 300_000_000_000, "5m0s"),
            ("0s", 0, "0s"),
            ("00h", 0, "0s"),
            ("+1s", 1_000_000_000, "1s"),
        ];
        for (text, nanoseconds, shown) in table {
            assert_eq!(duration(text), Some(nanoseconds), "{text}");
            assert_eq!(format_duration(nanoseconds), shown);
        }
        for text in ["", "5", "s", "1x", "-1s", "1us", ".s", "99999999999999999999h", "1s1"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
