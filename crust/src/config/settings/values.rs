//! Values of a configuration file: as what they are wanted, or what they are instead.

use toml::{Spanned, de::DeValue};

use crate::config::parse_duration;

pub(super) fn string<'a>(value: &'a DeValue<'a>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("must be a text in quotes, not {}", kind(value)))
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind(value)))
}

pub(super) fn duration(value: &DeValue<'_>) -> Result<std::time::Duration, String> {
    parse_duration(string(value)?)
        .map_err(|_| "must be a duration such as \"10s\", \"250ms\" or \"2m\"".to_owned())
}

pub(super) fn list<T>(
    value: &DeValue<'_>,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let array = value.as_array().ok_or_else(|| format!("must be a list, not {}", kind(value)))?;
    array
        .iter()
        .map(|entry: &Spanned<DeValue<'_>>| {
            let entry = entry.get_ref();
            let text =
                entry.as_str().ok_or_else(|| format!("must be a list of texts, not of {}", kind(entry)))?;
            item(text).map_err(|wanted| format!("has an entry that is not {wanted}: {text:?}"))
        })
        .collect()
}

pub(super) fn integer(value: &DeValue<'_>, least: u64, most: u64) -> Result<u64, String> {
    let number = value.as_integer().ok_or_else(|| format!("must be a number, not {}", kind(value)))?;
    let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
    parsed
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be from {least} to {most}, not {}", number.as_str()))
}

pub(super) fn small(value: &DeValue<'_>) -> Result<u32, String> {
    integer(value, 1, u64::from(u32::MAX)).map(|number| u32::try_from(number).expect("just checked"))
}

pub(super) fn bytes(value: &DeValue<'_>) -> Result<u64, String> {
    integer(value, MIN_RECEIVE_BYTES, MAX_RECEIVE_BYTES)
}

pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn printed_list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// Below one packet's worth nothing would ever flow.
const MIN_RECEIVE_BYTES: u64 = 16 << 10;
/// What QUIC can express (RFC 9000 §16) is more; this is more than any memory.
const MAX_RECEIVE_BYTES: u64 = 1 << 40;
