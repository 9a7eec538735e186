//! How long a yes holds, and when keys are believed.

use std::ops::Range;
use std::str::FromStr;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use serde::Deserialize;
use toml::Spanned;

use super::text::{At, PolicyError};

/// When a key's statements can say yes, by the time that they give themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(super) from: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Validity {
    /// Whether a statement of this time is within it.
    pub(crate) fn covers(self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.until.is_none_or(|until| time < until)
    }
}

/// The longest time since a statement was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxAge(SignedDuration);

impl MaxAge {
    /// Whether what was said at `time` is too old at `now`.
    pub(crate) fn is_over(self, time: Timestamp, now: Timestamp) -> bool {
        now.duration_since(time) > self.0
    }
}

/// `365d`, `12h`: days have 24 hours.
pub(super) fn max_age(at: At<'_>, text: Option<Spanned<String>>) -> Result<Option<MaxAge>, PolicyError> {
    let Some(text) = text else { return Ok(None) };
    let read = || -> Result<SignedDuration, jiff::Error> {
        text.get_ref().parse::<Span>()?.to_duration(SpanRelativeTo::days_are_24_hours())
    };
    match read() {
        Ok(length) if length > SignedDuration::ZERO => Ok(Some(MaxAge(length))),
        _ => Err(at.error(
            text.span(),
            "not a length of time",
            "write days or hours, as in \"365d\" or \"12h\"",
        )),
    }
}

/// A moment, as in `2027-01-31T00:00:00Z` or the date alone.
pub(super) fn moment(at: At<'_>, span: Range<usize>, text: &str) -> Result<Timestamp, PolicyError> {
    Moment::from_str(text).map(|moment| moment.0).map_err(|cause| at.error(span, "not a moment", &cause.0))
}

/// A moment as people write it: a time in UTC, or a date, which begins at midnight UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Timestamp);

/// What to write for a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAMoment(String);

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        // Exactly `YYYY-MM-DD`: what else can be read as a date would lose its time of day.
        let is_day = text.len() == "2027-01-31".len();
        let day = || {
            text.parse::<jiff::civil::Date>().ok().filter(|_| is_day)?.to_zoned(jiff::tz::TimeZone::UTC).ok()
        };
        let read = text.parse::<Timestamp>().ok().or_else(|| day().map(|it| it.timestamp()));
        let hint =
            "write a time in UTC, as in \"2027-01-31T00:00:00Z\", or a date, which begins at midnight UTC";
        read.map(Self).ok_or_else(|| NotAMoment(hint.to_owned()))
    }
}

/// A key: its text, or a table that says when it is believed.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a key is a text, or a table of `key`, `from` and `until`")]
pub(super) enum KeyText {
    Plain(String),
    Limited(LimitedKeyText),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitedKeyText {
    pub(super) key: String,
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
}

impl KeyText {
    /// The key's text, and when it is believed.
    pub(super) fn read(self, at: At<'_>, span: Range<usize>) -> Result<(String, Validity), PolicyError> {
        let LimitedKeyText { key, from, until } = match self {
            Self::Plain(key) => return Ok((key, Validity::default())),
            Self::Limited(limited) => limited,
        };
        let read = |text: Option<String>| text.map(|text| moment(at, span.clone(), &text)).transpose();
        let validity = Validity { from: read(from)?, until: read(until)? };
        if let (Some(begin), Some(end)) = (validity.from, validity.until)
            && end <= begin
        {
            return Err(at.error(span, "this key is never believed", "let `until` be later than `from`"));
        }
        Ok((key, validity))
    }
}
