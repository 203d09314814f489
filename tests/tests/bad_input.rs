//! Whatever a client sends, it gets one typed error that names what is wrong, and nobody else notices.

use halm_protocol::ErrorCode::{self, ContextExceeded, InvalidRequest, UnknownModel};
use halm_tests::{BrokerOptions, Cluster, PlainClient, question};
use serde_json::json;

/// Larger than the default, so that a request too long for halm reaches it.
const BROKER: BrokerOptions =
    BrokerOptions { program: None, jetstream: true, user: None, max_payload: "8MB", servers: 1 };

async fn assert_refused(client: &PlainClient, payload: impl Into<Vec<u8>>, code: ErrorCode, param: Option<&str>) {
    let payload = payload.into();
    let shown: String = String::from_utf8_lossy(&payload).chars().take(100).collect();
    let seen = client.ask("smollm2", payload).await;
    let refusal = seen.refusal();
    assert_eq!((refusal.code, refusal.param.as_deref()), (code, param), "{shown}: {refusal}");
    assert!(!refusal.message.is_empty(), "{shown}: an error without words");
}

async fn assert_answers(client: &PlainClient) {
    let seen = client.ask("smollm2", question().to_string()).await;
    assert!(seen.reply().text().contains("Paris"), "{seen:?}");
    assert_eq!(seen.reply().attempts, 1, "{seen:?}");
}

#[tokio::test]
async fn a_wrong_request_gets_an_error_that_names_the_field_and_disturbs_nobody() {
    let cluster = Cluster::with(BROKER, &["one"]).await;
    let client = cluster.plain().await;
    let before = cluster.client().replicas(std::time::Duration::from_millis(500)).await.expect("a status");
    let cases: [(&str, Option<&str>); 16] = [
        ("hello", None),
        ("", None),
        ("[1]", None),
        (r#"{"prompt": "a", "temperature": NaN}"#, None),
        (r#"{"prompt": "a", "max_tokenz": 3}"#, Some("max_tokenz")),
        (r#"{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}"#, Some("prompt")),
        (r#"{"max_tokens": 3}"#, Some("prompt")),
        (r#"{"prompt": ""}"#, Some("prompt")),
        (r#"{"prompt": 7}"#, Some("prompt")),
        (r#"{"messages": []}"#, Some("messages")),
        (r#"{"messages": [{"role": "robot", "content": "a"}]}"#, Some("messages[0].role")),
        (r#"{"prompt": "a", "max_tokens": 0}"#, Some("max_tokens")),
        (r#"{"prompt": "a", "max_tokens": -1}"#, Some("max_tokens")),
        (r#"{"prompt": "a", "temperature": "NaN"}"#, Some("temperature")),
        (r#"{"prompt": "a", "temperature": -0.5}"#, Some("temperature")),
        (r#"{"prompt": "a", "stream": "yes"}"#, Some("stream")),
    ];
    for (payload, param) in cases {
        assert_refused(&client, payload, InvalidRequest, param).await;
    }
    assert_refused(&client, b"{\"prompt\": \"\xff\xfe\"}", InvalidRequest, None).await;
    let two_mebibytes = json!({ "prompt": "a ".repeat(1024 * 1024) }).to_string();
    assert_refused(&client, two_mebibytes, InvalidRequest, None).await;
    assert_answers(&client).await;
    let after = cluster.client().replicas(std::time::Duration::from_millis(500)).await.expect("a status");
    let lives = |seen: &halm_client::Replicas| -> Vec<_> {
        let of_actor = |actor: &halm_protocol::ActorStatus| (actor.path.clone(), actor.restarts);
        seen.answered.iter().flat_map(|status| status.tree.iter().map(of_actor)).collect()
    };
    assert_eq!(lives(&before), lives(&after), "something was restarted");
}

#[tokio::test]
async fn a_request_that_does_not_fit_the_model_is_refused_by_the_model() {
    let cluster = Cluster::with(BROKER, &["one"]).await;
    let client = cluster.plain().await;
    let beyond = json!({ "prompt": "a", "max_tokens": 1_000_000 }).to_string();
    assert_refused(&client, beyond, ContextExceeded, Some("max_tokens")).await;
    let endless = json!({ "prompt": "lighthouse ".repeat(20_000) }).to_string();
    assert_refused(&client, endless, ContextExceeded, Some("prompt")).await;
    assert_answers(&client).await;
}

#[tokio::test]
async fn an_unknown_model_is_refused_by_its_name_and_told_what_there_is() {
    let cluster = Cluster::with(BROKER, &["one"]).await;
    let client = cluster.plain().await;
    let seen = client.ask("gpt5", question().to_string()).await;
    let refusal = seen.refusal();
    assert_eq!((refusal.code, refusal.param.as_deref()), (UnknownModel, Some("model")));
    assert!(refusal.message.contains("gpt5") && refusal.message.contains("smollm2"), "{refusal}");
    assert_answers(&client).await;
}

#[tokio::test]
async fn a_request_without_anywhere_to_answer_disturbs_nobody() {
    let cluster = Cluster::with(BROKER, &["one"]).await;
    let client = cluster.plain().await;
    let subject = "halm.v1.generate.smollm2";
    client.nats().publish(subject, question().to_string().into()).await.expect("a message is sent");
    for elsewhere in ["$JS.API.STREAM.DELETE.HALM_JOBS", "halm.v1.done.x", "elsewhere"] {
        let sent = client.nats().publish_with_reply(subject, elsewhere, question().to_string().into()).await;
        sent.expect("a message is sent");
    }
    assert_answers(&client).await;
}
