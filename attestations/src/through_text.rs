//! Types that are read and written as one text, with the checks of their `FromStr` and the form of their `Display`.

/// The conversions that serde goes through, by `#[serde(try_from = "String", into = "String")]`.
macro_rules! through_text {
    ($($name:ident: $error:ty),* $(,)?) => {$(
        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
pub(crate) use through_text;
