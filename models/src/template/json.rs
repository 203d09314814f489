//! `tojson` as chat templates expect it.
//!
//! Owns writing a value as Hugging Face's `tojson` does, which is Python's `json.dumps(x, ensure_ascii=False)`: a
//! space behind each comma and colon, and no escapes for HTML, which Jinja's own filter has. Called by templates.

use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Spaces that a template may ask for on each level, at most.
const INDENT_MAX: usize = 16;

/// The filter; `indent` puts each entry on a line of its own.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let text = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(INDENT_MAX));
            write(value, PrettyFormatter::with_indent(spaces.as_bytes()))
        }
        None => write(value, Spaced),
    };
    text.map(Value::from_safe_string)
}

fn write(value: &Value, formatter: impl Formatter) -> Result<String, Error> {
    let unwritable = |problem: String| Error::new(ErrorKind::BadSerialization, problem);
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut out, formatter))
        .map_err(|error| unwritable(error.to_string()))?;
    String::from_utf8(out).map_err(|error| unwritable(error.to_string()))
}

/// One line, with Python's spaces.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
