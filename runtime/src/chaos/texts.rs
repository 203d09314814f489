//! What is asked for: prompts of many kinds, and the right answer to each, learnt while nothing is broken.

use std::time::Duration;

use anyhow::{Context, bail};
use halm_client::{Client, Event};
use halm_protocol::{ChatMessage, Request};

use super::judge::Answer;

/// What no request of the load takes undisturbed, and every one must be done in: the election of a broker's leader (4
/// to 8 s), a few times over.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);
/// The last text is long: whoever is to be quarantined must not be done before.
const POISONED_TOKENS: u32 = 400;

/// Plain texts and conversations, short and long, with chance and without, with a stop and with penalties.
pub(crate) fn requests(seed: u64) -> Vec<Request> {
    let plain = |text: &str, max_tokens, temperature| of(Request::prompt(text), max_tokens, temperature, seed);
    let chat = |text: &str, max_tokens, temperature| {
        let message = ChatMessage { role: "user".to_owned(), content: text.to_owned() };
        of(Request::messages(vec![message]), max_tokens, temperature, seed)
    };
    let mut stopped = plain("A list of seven fruits:\n1. apple\n2.", 60, 0.0);
    stopped.stop = vec!["\n5.".to_owned()];
    let mut penalised = plain("Rain fell on the harbour all night, and", 80, 0.9);
    penalised.sampling.presence_penalty = 0.6;
    penalised.sampling.top_p = Some(0.95);
    vec![
        plain("The lighthouse keeper opened his logbook and wrote:", 120, 0.8),
        plain("Once upon a time, in a village by the sea,", 90, 0.0),
        plain("The capital of France is", 16, 0.0),
        chat("What is the opposite of hot?", 24, 0.0),
        chat("Tell me about the tides in four sentences.", 100, 0.7),
        stopped,
        penalised,
        plain("Grüße aus Köln! Das Wetter ist", 40, 1.0),
        plain("fn main() {\n    let numbers = vec![", 32, 0.3),
        chat("Why is the sea salty?", 70, 1.0),
    ]
}

/// What is to be quarantined.
pub(crate) fn poisoned(seed: u64) -> Request {
    of(Request::prompt("The captain counted the days at sea, one by one, and noted each:"), POISONED_TOKENS, 0.8, seed)
}

fn of(mut request: Request, max_tokens: u32, temperature: f32, seed: u64) -> Request {
    request.max_tokens = Some(max_tokens);
    request.sampling.temperature = temperature;
    request.seed = Some(seed % (1 << 53));
    request.deadline_ms = u64::try_from(DEADLINE.as_millis()).ok();
    request
}

/// Asks once with a stream and once without, and has the answer if both are the same.
///
/// # Errors
/// If there is no answer, or there are two.
pub(crate) async fn learn(client: &Client, model: &str, request: Request) -> anyhow::Result<Answer> {
    let request = Request { stream: true, ..request };
    let mut stream = client.generate(model, &request).await?;
    let (mut tokens, mut text) = (Vec::new(), String::new());
    while let Some(event) = stream.next().await {
        match event.context("an undisturbed stream")? {
            Event::Chunk(chunk) => {
                tokens.extend(chunk.tokens);
                text.push_str(&chunk.text);
            }
            Event::Reply(reply) if reply.text() == text && reply.usage.completion_tokens as usize == tokens.len() => {}
            Event::Reply(reply) => bail!("an undisturbed stream does not add up to its reply: {text:?}, {reply:?}"),
        }
    }
    let whole =
        client.ask(model, &Request { stream: false, ..request.clone() }).await.context("an undisturbed request")?;
    if whole.text() != text {
        bail!("the same seed gave two texts while nothing was disturbed: {text:?} and {:?}", whole.text());
    }
    Ok(Answer { tokens, text })
}
