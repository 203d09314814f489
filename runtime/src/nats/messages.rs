//! Every message on a subject of a stream, in order.

use async_nats::{Client, Message, StatusCode};
use futures_util::StreamExt;
use halm_actors::ports::ReadFault;

use super::wire;

/// Messages asked for in one batch: an answer of 4,096 tokens in single records.
const READ_BATCH: usize = 4096;

/// All messages on a subject, which may have wildcards. They come by Direct Get, perhaps from a follower, so the leader
/// says first where the last one is, and what does not reach that far is a fault.
pub(crate) async fn all(client: &Client, stream: &str, subject: &str) -> Result<Vec<Message>, ReadFault> {
    let Some(last) = wire::last(client, stream, subject).await? else { return Ok(Vec::new()) };
    let mut messages: Vec<Message> = Vec::new();
    let mut next = 1;
    loop {
        let batch = batch(client, stream, subject, next).await?;
        let Some(newest) = batch.last().map(sequence).transpose()? else {
            return Err(ReadFault(format!("{subject} of {stream} ends before its last message")));
        };
        messages.extend(batch);
        if newest >= last.sequence {
            return Ok(messages);
        }
        next = newest + 1;
    }
}

/// Where a message that was read is stored.
pub(super) fn sequence(message: &Message) -> Result<u64, ReadFault> {
    let headers = message.headers.as_ref();
    let stored = headers.and_then(|headers| headers.get("Nats-Sequence")).and_then(|value| value.as_str().parse().ok());
    stored.ok_or_else(|| ReadFault("a stored message without a sequence".to_owned()))
}

async fn batch(client: &Client, stream: &str, subject: &str, from: u64) -> Result<Vec<Message>, ReadFault> {
    let fault = |error: &dyn std::fmt::Display| ReadFault(error.to_string());
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| fault(&error))?;
    let body = serde_json::json!({ "seq": from, "next_by_subj": subject, "batch": READ_BATCH });
    let call = format!("$JS.API.DIRECT.GET.{stream}");
    client.publish_with_reply(call, inbox, body.to_string().into()).await.map_err(|error| fault(&error))?;
    let mut messages = Vec::new();
    loop {
        let answer = tokio::time::timeout(wire::READ_WITHIN, answers.next()).await;
        let Ok(Some(message)) = answer else { return Err(ReadFault(format!("{stream} did not answer in time"))) };
        match message.status {
            None => messages.push(message),
            // End of batch, or nothing from here on.
            Some(StatusCode::NOT_FOUND) => return Ok(messages),
            Some(status) if status.as_u16() == 204 => return Ok(messages),
            Some(status) => return Err(ReadFault(format!("{stream} answered with status {status}"))),
        }
    }
}
