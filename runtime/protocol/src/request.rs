//! What a client asks for. Field names are those of the OpenAI API where one exists.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fields::{Fields, wrong};
use crate::{Class, ErrorCode, Refusal};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// What the model reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Plain text, continued as it stands.
    Prompt(String),
    /// A conversation, put through the model's own chat template.
    Messages(Vec<ChatMessage>),
}

/// How the next token is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 takes the likeliest token always; from 0 to 2.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens whose probabilities add up to `top_p`; above 0, up to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Keep tokens at least `min_p` times as likely as the likeliest; from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Subtracted from a token's logit for each time it was generated; from -2 to 2.
    #[serde(default)]
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if it was generated at all; from -2 to 2.
    #[serde(default)]
    pub presence_penalty: f32,
}

impl Default for Sampling {
    /// Draws from the model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, min_p: None, frequency_penalty: 0.0, presence_penalty: 0.0 }
    }
}

/// A request as a client sends it, and as a job keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `prompt` or `messages`.
    pub input: Input,
    /// Most tokens to generate; `None` is [`Limits::MAX_TOKENS_DEFAULT`] or what the context leaves, if less.
    pub max_tokens: Option<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Gives the same text again; drawn at admission if absent.
    pub seed: Option<u64>,
    /// Strings that end the text, and are not part of it.
    pub stop: Vec<String>,
    /// Whether chunks are wanted as they come.
    pub stream: bool,
    /// How long the client is willing to wait, in milliseconds from admission.
    pub deadline_ms: Option<u64>,
    /// Who waits for it.
    pub class: Class,
}

/// [`Request`] as it stands on the wire: one flat object, defaults left out.
#[derive(Serialize)]
struct Wire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a [ChatMessage]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32>,
    frequency_penalty: f32,
    presence_penalty: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    class: Class,
}

fn is_default(class: &Class) -> bool {
    *class == Class::default()
}

/// Bounds of a request, each with its reason.
pub struct Limits;

impl Limits {
    /// Bytes of a whole request: NATS's own default for a payload, less room for what a job adds to it.
    pub const REQUEST_BYTES_MAX: usize = 1024 * 1024 - 16 * 1024;
    /// Stop strings: as many as the OpenAI API takes.
    pub const STOP_STRINGS_MAX: usize = 4;
    /// Bytes of one stop string: it bounds the text that is held back.
    pub const STOP_BYTES_MAX: usize = 256;
    /// Messages of a conversation: none that fits a small model's context has more.
    pub const MESSAGES_MAX: usize = 1024;
    /// Tokens when the request names no number.
    pub const MAX_TOKENS_DEFAULT: u32 = 256;
    /// The largest `max_tokens` that can mean anything; each model's context is smaller.
    pub const MAX_TOKENS_MAX: u64 = 1 << 20;
    /// Longest deadline: one day.
    pub const DEADLINE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
    /// Largest seed: JSON numbers beyond 2^53 change in many languages.
    pub const SEED_MAX: u64 = (1 << 53) - 1;
}

/// Fields of the OpenAI API that later versions will take; refused by name, not as typos.
const NOT_YET: [&str; 4] = ["logprobs", "response_format", "tools", "n"];

impl Request {
    /// A request for the continuation of `text`, everything else as by default.
    #[must_use]
    pub fn prompt(text: impl Into<String>) -> Self {
        Self::of(Input::Prompt(text.into()))
    }

    /// A request for the next message of a conversation, everything else as by default.
    #[must_use]
    pub fn messages(messages: Vec<ChatMessage>) -> Self {
        Self::of(Input::Messages(messages))
    }

    fn of(input: Input) -> Self {
        Self {
            input,
            max_tokens: None,
            sampling: Sampling::default(),
            seed: None,
            stop: Vec::new(),
            stream: false,
            deadline_ms: None,
            class: Class::default(),
        }
    }

    /// Reads a request from JSON.
    ///
    /// # Errors
    /// A refusal that names the field which is wrong, missing, unknown or out of bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > Limits::REQUEST_BYTES_MAX {
            let message =
                format!("the request has {} bytes; at most {} are taken", bytes.len(), Limits::REQUEST_BYTES_MAX);
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        let mut fields = Fields::parse(bytes)?;
        for name in NOT_YET {
            if let Some(value) = fields.take(name)
                && !(name == "n" && value == 1)
            {
                return Err(Refusal::of_param(name, format!("`{name}` is not supported by this version")));
            }
        }
        let request = Self {
            input: input(&mut fields)?,
            max_tokens: narrow(fields.whole("max_tokens", 1, Limits::MAX_TOKENS_MAX)?),
            sampling: sampling(&mut fields)?,
            seed: fields.whole("seed", 0, Limits::SEED_MAX)?,
            stop: stop(&mut fields)?,
            stream: fields.boolean("stream")?.unwrap_or(false),
            deadline_ms: fields.whole("deadline_ms", 1, Limits::DEADLINE_MS_MAX)?,
            class: class(&mut fields)?,
        };
        fields.finish()?;
        Ok(request)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (prompt, messages) = match &self.input {
            Input::Prompt(text) => (Some(text.as_str()), None),
            Input::Messages(messages) => (None, Some(messages.as_slice())),
        };
        let wire = Wire {
            prompt,
            messages,
            max_tokens: self.max_tokens,
            temperature: self.sampling.temperature,
            top_k: self.sampling.top_k,
            top_p: self.sampling.top_p,
            min_p: self.sampling.min_p,
            frequency_penalty: self.sampling.frequency_penalty,
            presence_penalty: self.sampling.presence_penalty,
            seed: self.seed,
            stop: &self.stop,
            stream: self.stream,
            deadline_ms: self.deadline_ms,
            class: self.class,
        };
        serde_json::to_vec(&wire).expect("a request has only strings and numbers")
    }
}

fn narrow(number: Option<u64>) -> Option<u32> {
    number.map(|number| u32::try_from(number).expect("the bound was checked to be below 2^32"))
}

fn input(fields: &mut Fields) -> Result<Input, Refusal> {
    let prompt = fields.string("prompt")?;
    let messages = fields.take("messages");
    match (prompt, messages) {
        (Some(_), Some(_)) => Err(Refusal::of_param("prompt", "give either `prompt` or `messages`, not both")),
        (None, None) => Err(Refusal::of_param("prompt", "give `prompt` or `messages`")),
        (Some(text), None) if text.is_empty() => Err(Refusal::of_param("prompt", "`prompt` is empty")),
        (Some(text), None) => Ok(Input::Prompt(text)),
        (None, Some(value)) => conversation(value).map(Input::Messages),
    }
}

fn conversation(value: Value) -> Result<Vec<ChatMessage>, Refusal> {
    let Value::Array(items) = value else { return Err(wrong("messages", "an array", &value)) };
    if items.is_empty() || items.len() > Limits::MESSAGES_MAX {
        let message = format!("`messages` must hold 1 to {} messages, not {}", Limits::MESSAGES_MAX, items.len());
        return Err(Refusal::of_param("messages", message));
    }
    let read = |(index, item): (usize, Value)| {
        let name = format!("messages[{index}]");
        let message: ChatMessage = serde_json::from_value(item)
            .map_err(|error| Refusal::of_param(&name, format!("`{name}` must be {{role, content}}: {error}")))?;
        if matches!(message.role.as_str(), "system" | "user" | "assistant") {
            Ok(message)
        } else {
            let text = format!("`{name}.role` must be system, user or assistant, not {:?}", message.role);
            Err(Refusal::of_param(&format!("{name}.role"), text))
        }
    };
    items.into_iter().enumerate().map(read).collect()
}

fn sampling(fields: &mut Fields) -> Result<Sampling, Refusal> {
    let default = Sampling::default();
    let top_p = fields.number("top_p", 0.0, 1.0)?;
    if top_p == Some(0.0) {
        return Err(Refusal::of_param("top_p", "`top_p` must be above 0 and at most 1, not 0"));
    }
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(default.temperature),
        top_k: narrow(fields.whole("top_k", 1, u64::from(u32::MAX))?),
        top_p,
        min_p: fields.number("min_p", 0.0, 1.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(default.frequency_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(default.presence_penalty),
    })
}

fn class(fields: &mut Fields) -> Result<Class, Refusal> {
    let Some(name) = fields.string("class")? else { return Ok(Class::default()) };
    Class::named(&name).ok_or_else(|| wrong("class", "\"interactive\" or \"batch\"", &Value::String(name)))
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let strings = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(items)) => {
            let text = |item: Value| match item {
                Value::String(text) => Ok(text),
                other => Err(wrong("stop", "a string or an array of strings", &other)),
            };
            items.into_iter().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong("stop", "a string or an array of strings", &other)),
    };
    if strings.len() > Limits::STOP_STRINGS_MAX {
        let message = format!("`stop` takes at most {} strings, not {}", Limits::STOP_STRINGS_MAX, strings.len());
        return Err(Refusal::of_param("stop", message));
    }
    if strings.iter().any(|text| text.is_empty() || text.len() > Limits::STOP_BYTES_MAX) {
        let message = format!("each `stop` string must have 1 to {} bytes", Limits::STOP_BYTES_MAX);
        return Err(Refusal::of_param("stop", message));
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> Refusal {
        Request::parse(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn a_request_reads_back_from_its_own_bytes() {
        let full = br#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"temperature":0.5,"top_k":4,"top_p":0.9,
            "min_p":0.1,"seed":7,"stop":"x","frequency_penalty":1,"presence_penalty":-1,"stream":true,"deadline_ms":9,"class":"batch"}"#;
        let request = Request::parse(full).expect("every field is right");
        assert_eq!(Request::parse(&request.to_bytes()).expect("its own bytes"), request);
        assert_eq!(Request::parse(br#"{"prompt":"a","n":1}"#).expect("one choice"), Request::prompt("a"));
    }

    #[test]
    fn each_wrong_field_is_refused_by_its_name() {
        let cases = [
            (r#"{}"#, "prompt"),
            (r#"{"prompt":""}"#, "prompt"),
            (r#"{"prompt":3}"#, "prompt"),
            (r#"{"prompt":"a","messages":[]}"#, "prompt"),
            (r#"{"messages":[]}"#, "messages"),
            (r#"{"messages":"hi"}"#, "messages"),
            (r#"{"messages":[{"role":"user"}]}"#, "messages[0]"),
            (r#"{"messages":[{"role":"robot","content":""}]}"#, "messages[0].role"),
            (r#"{"prompt":"a","max_tokens":0}"#, "max_tokens"),
            (r#"{"prompt":"a","max_tokens":-1}"#, "max_tokens"),
            (r#"{"prompt":"a","max_tokens":1.5}"#, "max_tokens"),
            (r#"{"prompt":"a","temperature":-0.1}"#, "temperature"),
            (r#"{"prompt":"a","temperature":"NaN"}"#, "temperature"),
            (r#"{"prompt":"a","top_p":0}"#, "top_p"),
            (r#"{"prompt":"a","stop":[1]}"#, "stop"),
            (r#"{"prompt":"a","stop":["","a"]}"#, "stop"),
            (r#"{"prompt":"a","stop":["1","2","3","4","5"]}"#, "stop"),
            (r#"{"prompt":"a","stream":"yes"}"#, "stream"),
            (r#"{"prompt":"a","tools":[]}"#, "tools"),
            (r#"{"prompt":"a","n":2}"#, "n"),
            (r#"{"prompt":"a","class":"urgent"}"#, "class"),
            (r#"{"prompt":"a","promt":"b"}"#, "promt"),
        ];
        for (json, param) in cases {
            let refusal = refused(json);
            assert_eq!(refusal.param.as_deref(), Some(param), "{json}: {refusal}");
            assert_eq!(refusal.code, ErrorCode::InvalidRequest);
        }
    }

    #[test]
    fn what_is_not_a_json_object_is_refused_and_says_so() {
        assert!(refused("hello").message.starts_with("the request is not JSON"));
        assert!(refused(r#"{"prompt":"a","temperature":NaN}"#).message.starts_with("the request is not JSON"));
        assert!(refused("[1]").message.contains("an array"));
        let refusal = Request::parse(b"{\"prompt\":\"\xff\"}").expect_err("not UTF-8");
        assert_eq!(refusal.message, "the request is not valid UTF-8 at byte 11");
        let long = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(2 * 1024 * 1024));
        assert!(refused(&long).message.contains("2097165 bytes"));
    }
}
