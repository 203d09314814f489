//! Chat templates, as the model's file carries them.
//!
//! Owns rendering messages to the text that the model was trained on, in Jinja through minijinja. It keeps
//! users out of the control tokens: a special token's text inside a role or a content is marked, so that the
//! tokenizer takes it as letters. It offers no clock and no randomness to the template, because a resumed
//! request must render to the same text. Called by [`crate::Model`].

mod json;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

use crate::tokenizer::Tokenizer;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A template could not be read or rendered.
#[derive(Debug, thiserror::Error)]
#[error("render the model's chat template: {0:#}")]
pub struct TemplateError(#[from] minijinja::Error);

/// The name of the only template in its environment.
const NAME: &str = "chat";

/// Noncharacters, which Unicode keeps out of interchange: one that no message contains is the mark.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// Deepest nesting of template calls; published templates need two or three.
const RECURSION_MAX: usize = 32;

/// What a template made of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// The character to drop from the text, if any was put in.
    pub(crate) mark: Option<char>,
}

/// A compiled chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles `source` with the settings under which published templates are written: block tags take
    /// their line with them, and Python's string methods work.
    pub(crate) fn compile(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", |message: String| {
            Err::<(), _>(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self { environment })
    }

    /// Renders `messages` and the start of the assistant's answer.
    pub(crate) fn render(&self, messages: &[ChatMessage], tokenizer: &Tokenizer) -> Result<Rendered, TemplateError> {
        let (messages, mark) = shield(messages, tokenizer)?;
        let messages: Vec<_> = messages
            .into_iter()
            .map(|ChatMessage { role, content }| Value::from_pairs([("role", role), ("content", content)]))
            .collect();
        let text = self.environment.get_template(NAME)?.render(context! {
            messages,
            add_generation_prompt => true,
            bos_token => text_or_undefined(tokenizer.bos_text()),
            eos_token => text_or_undefined(tokenizer.eos_text()),
        })?;
        Ok(Rendered { text, mark })
    }
}

/// A token that the model lacks is undefined, which renders as nothing, and not `none`, which renders as that word.
fn text_or_undefined(text: Option<&str>) -> Value {
    text.map_or(Value::UNDEFINED, Value::from)
}

/// Puts a mark behind the first character of each control token's text in what users wrote.
fn shield(messages: &[ChatMessage], tokenizer: &Tokenizer) -> Result<(Vec<ChatMessage>, Option<char>), TemplateError> {
    let mentions = |text: &str| tokenizer.control().occur_in(text);
    if !messages.iter().any(|message| mentions(&message.role) || mentions(&message.content)) {
        return Ok((messages.to_vec(), None));
    }
    let taken = |mark: char| {
        let mut texts = messages.iter().flat_map(|message| [&message.role, &message.content]);
        texts.any(|text| text.contains(mark))
    };
    let mark = MARKS.clone().find(|mark| !taken(*mark)).ok_or_else(|| {
        minijinja::Error::new(
            ErrorKind::InvalidOperation,
            "the messages hold control tokens' text and every noncharacter from U+FDD0 to U+FDEF; leave some out",
        )
    })?;
    let shielded = messages
        .iter()
        .map(|message| ChatMessage {
            role: shield_text(&message.role, mark, tokenizer),
            content: shield_text(&message.content, mark, tokenizer),
        })
        .collect();
    Ok((shielded, Some(mark)))
}

fn shield_text(text: &str, mark: char, tokenizer: &Tokenizer) -> String {
    let starts = tokenizer.control().starts(text);
    let mut out = String::with_capacity(text.len() + starts.len() * mark.len_utf8());
    let mut starts = starts.into_iter().peekable();
    for (index, character) in text.char_indices() {
        out.push(character);
        if starts.next_if_eq(&index).is_some() {
            out.push(mark);
        }
    }
    out
}

#[cfg(test)]
mod tests;
