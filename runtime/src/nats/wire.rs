//! One request to JetStream, and what came of it, in the words of the ports.
//!
//! Publishes are made by hand rather than through the client library's JetStream context: the ports must tell a refusal
//! by its error code from an answer that never came, and set a header the library has no builder for.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, HeaderMap, Message};
use halm_actors::ports::{ReadFault, WriteFault};
use serde::Deserialize;

/// A write without an answer after this long has an unknown outcome. Long enough for a flush on a busy disk, short
/// enough that a stalled broker is noticed while the client still waits.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// A read without an answer after this long has failed.
pub(super) const READ_WITHIN: Duration = Duration::from_secs(2);

/// "wrong last sequence", with and without the sequence in its text.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
/// "JetStream not enabled", for the server and for the account.
const NOT_ENABLED: [u64; 2] = [10076, 10039];
/// "no message found".
const NO_MESSAGE_FOUND: u64 = 10037;
/// Stores are full: by messages per subject, by bytes, by the account's or server's limits.
pub(super) const FULL: [u64; 4] = [10077, 10047, 10023, 10122];

/// An error of the JetStream API.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Deserialize)]
struct PublishAnswer {
    error: Option<ApiError>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

/// A stored message.
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) duplicate: bool,
}

/// A publish that was not acknowledged.
pub(super) enum PublishFault {
    /// The server said no, with this error.
    Api(ApiError),
    /// There is no stream, so nothing was stored.
    NoStream,
    /// It is larger than the server takes, so it was not sent.
    TooLarge,
    /// No answer.
    Unknown(String),
}

impl From<PublishFault> for WriteFault {
    fn from(fault: PublishFault) -> Self {
        match fault {
            PublishFault::Api(error) if WRONG_LAST_SEQUENCE.contains(&error.err_code) => Self::Superseded,
            PublishFault::Api(error) => Self::Refused(format!("{} ({})", error.description, error.err_code)),
            PublishFault::NoStream => Self::Refused("no stream takes this subject".to_owned()),
            PublishFault::TooLarge => Self::Refused("larger than the server takes".to_owned()),
            PublishFault::Unknown(cause) => Self::Unknown(cause),
        }
    }
}

/// Publishes to a stream and waits for its acknowledgement.
pub(super) async fn publish(
    client: &Client,
    subject: String,
    headers: HeaderMap,
    payload: Vec<u8>,
) -> Result<Stored, PublishFault> {
    let request = async_nats::Request::new().headers(headers).payload(payload.into()).timeout(Some(WRITE_WITHIN));
    let answer = match client.send_request(subject, request).await {
        Ok(answer) => answer,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => return Err(PublishFault::NoStream),
        Err(error) if error.kind() == RequestErrorKind::MaxPayloadExceeded => return Err(PublishFault::TooLarge),
        Err(error) => return Err(PublishFault::Unknown(error.to_string())),
    };
    match serde_json::from_slice::<PublishAnswer>(&answer.payload) {
        Ok(PublishAnswer { error: Some(error), .. }) => Err(PublishFault::Api(error)),
        Ok(PublishAnswer { seq, duplicate, .. }) => Ok(Stored { sequence: seq, duplicate }),
        Err(error) => Err(PublishFault::Unknown(format!("an acknowledgement that is none: {error}"))),
    }
}

/// Asks the JetStream API.
pub(super) async fn ask(client: &Client, call: &str, body: serde_json::Value) -> Result<Message, ReadFault> {
    let request = async_nats::Request::new().payload(body.to_string().into()).timeout(Some(READ_WITHIN));
    client.send_request(format!("$JS.API.{call}"), request).await.map_err(|error| ReadFault(error.to_string()))
}

/// Removes every message on a subject, and says how many there were.
pub(super) async fn purge(client: &Client, stream: &str, subject: &str) -> Result<u64, ReadFault> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<ApiError>,
        #[serde(default)]
        purged: u64,
    }
    let body = serde_json::json!({ "filter": subject });
    let answer = ask(client, &format!("STREAM.PURGE.{stream}"), body).await?;
    let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| ReadFault(error.to_string()))?;
    answer.error.map_or(Ok(answer.purged), |error| Err(ReadFault(error.description)))
}

/// Whether this account has JetStream; the cause if the server does not say.
pub(super) async fn has_jetstream(client: &Client) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<ApiError>,
    }
    let request = async_nats::Request::new().timeout(Some(READ_WITHIN));
    match client.send_request("$JS.API.INFO", request).await {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(false),
        Err(error) => Err(error.to_string()),
        Ok(message) => match serde_json::from_slice::<Answer>(&message.payload) {
            Ok(Answer { error: None }) => Ok(true),
            Ok(Answer { error: Some(error) }) if NOT_ENABLED.contains(&error.err_code) => Ok(false),
            Ok(Answer { error: Some(error) }) => Err(error.description),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The last message on a subject, from the stream's leader, undecoded.
pub(super) struct LastMessage {
    pub(super) sequence: u64,
    pub(super) payload: Vec<u8>,
}

/// The last message on a subject. Asked of the leader, not by Direct Get: a follower may be behind.
pub(super) async fn last(client: &Client, stream: &str, subject: &str) -> Result<Option<LastMessage>, ReadFault> {
    #[derive(Deserialize)]
    struct Raw {
        seq: u64,
        #[serde(default)]
        data: String,
    }
    #[derive(Deserialize)]
    struct Answer {
        error: Option<ApiError>,
        message: Option<Raw>,
    }
    let body = serde_json::json!({ "last_by_subj": subject });
    let answer = ask(client, &format!("STREAM.MSG.GET.{stream}"), body).await?;
    let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| ReadFault(error.to_string()))?;
    match answer {
        Answer { error: Some(error), .. } if error.err_code == NO_MESSAGE_FOUND => Ok(None),
        Answer { error: Some(error), .. } => Err(ReadFault(error.description)),
        Answer { message: None, .. } => Err(ReadFault("an answer without a message".to_owned())),
        Answer { message: Some(raw), .. } => {
            let payload = base64(&raw.data).ok_or_else(|| ReadFault("a payload that is not base64".to_owned()))?;
            Ok(Some(LastMessage { sequence: raw.seq, payload }))
        }
    }
}

/// A header of a stored message; `None` if the message is gone, or has none of that name.
pub(super) async fn header_of(
    client: &Client,
    stream: &str,
    sequence: u64,
    name: &str,
) -> Result<Option<String>, ReadFault> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default)]
        hdrs: String,
    }
    #[derive(Deserialize)]
    struct Answer {
        message: Option<Raw>,
    }
    let answer = ask(client, &format!("STREAM.MSG.GET.{stream}"), serde_json::json!({ "seq": sequence })).await?;
    let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| ReadFault(error.to_string()))?;
    let Some(raw) = answer.message else { return Ok(None) };
    let headers = base64(&raw.hdrs).ok_or_else(|| ReadFault("headers that are not base64".to_owned()))?;
    let headers = String::from_utf8_lossy(&headers);
    let value = headers.lines().find_map(|line| line.split_once(':').filter(|(of, _)| of.eq_ignore_ascii_case(name)));
    Ok(value.map(|(_, value)| value.trim().to_owned()))
}

/// Standard base64 with padding, as the JetStream API uses it.
fn base64(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let bits = group.iter().try_fold(0_u32, |bits, byte| Some((bits << 6) | value(*byte)?))?;
        let bits = bits << (6 * (4 - group.len()));
        let [_, a, b, c] = bits.to_be_bytes();
        out.extend_from_slice(&[a, b, c][..group.len() * 3 / 4]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length_is_read() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")] {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(base64("/+8="), Some(vec![0xff, 0xef]));
        assert_eq!(base64("a b="), None);
    }
}
