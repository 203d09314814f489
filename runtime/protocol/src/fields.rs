//! Takes the fields of a JSON object one by one and says, of a wrong one, which and why.
//!
//! serde's own errors name a line and a column; a person who wrote a request wants the field's name.

use serde_json::{Map, Value};

use crate::Refusal;

/// The fields not taken yet, and the names of those that were.
pub(crate) struct Fields {
    rest: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    /// # Errors
    /// If `bytes` are not a JSON object in UTF-8.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let invalid = |message: String| Refusal::new(crate::ErrorCode::InvalidRequest, message);
        let text = std::str::from_utf8(bytes)
            .map_err(|error| invalid(format!("the request is not valid UTF-8 at byte {}", error.valid_up_to())))?;
        match serde_json::from_str(text) {
            Ok(Value::Object(rest)) => Ok(Self { rest, known: Vec::new() }),
            Ok(other) => Err(invalid(format!("the request must be a JSON object, not {}", kind(&other)))),
            Err(error) => Err(invalid(format!("the request is not JSON: {error}"))),
        }
    }

    /// A field's value; `null` counts as absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a string", &other)),
        }
    }

    pub(crate) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(name, "true or false", &other)),
        }
    }

    /// A number from `min` to `max`, both included.
    pub(crate) fn number(&mut self, name: &'static str, min: f64, max: f64) -> Result<Option<f32>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "sampling parameters need no more precision")]
            Some(number) if (min..=max).contains(&number) => Ok(Some(number as f32)),
            _ => Err(wrong(name, &format!("a number from {min} to {max}"), &value)),
        }
    }

    /// A whole number from `min` to `max`, both included.
    pub(crate) fn whole(&mut self, name: &'static str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(wrong(name, &format!("a whole number from {min} to {max}"), &value)),
        }
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(name) => {
                let known = self.known.join(", ");
                Err(Refusal::of_param(name, format!("unknown field `{name}`; known are {known}")))
            }
        }
    }
}

/// A refusal that says what was expected and what was there.
pub(crate) fn wrong(name: &str, expected: &str, got: &Value) -> Refusal {
    Refusal::of_param(name, format!("`{name}` must be {expected}, not {}", brief(got)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Short values as they are; of longer ones, only the kind.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 40 { text } else { kind(value).to_owned() }
}
