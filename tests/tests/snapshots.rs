//! What others read: help pages and wire formats. A change here is a change for somebody else.

use std::collections::BTreeMap;

use halm_protocol::{
    Beat, CancelState, Cancellation, CancelledBy, ChatMessage, Chunk, Claim, Digest, ErrorCode, FinishReason, Held,
    Incarnation, JobId, ModelToken, Nonce, Notice, Pace, Refusal, ReplicaName, Reply, Request, RunsModel, Usage,
    Verdict,
};
use halm_tests::Halm;
use serde_json::Value;

fn job() -> JobId {
    JobId::try_from("9f86d081884c7d659a2feaa0c55ad015").expect("a job id")
}

fn digest() -> Digest {
    Digest::try_from("b1".repeat(32)).expect("a digest")
}

fn reply() -> Reply {
    Reply {
        job: job(),
        model: "smollm2:135m".to_owned(),
        digest: digest(),
        text: Some(" Paris.".to_owned()),
        message: None,
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 5, completion_tokens: 3 },
        seed: 7,
        attempts: 2,
        resumed_at: vec![1],
        is_final: true,
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn every_help_page() {
    for (name, page) in halm::cli::help_pages() {
        insta::assert_snapshot!(format!("help_{name}"), page);
    }
}

#[tokio::test]
async fn the_ladder_of_chaos() {
    let here = Halm::new(["chaos", "--list"]).run().await;
    insta::assert_snapshot!("chaos_list", here.printed());
    let outside = Halm::new(["chaos", "--list", "--url", "nats://127.0.0.1:1"]).run().await;
    let refused = outside.printed().matches("not here: chaos breaks nothing").count();
    assert_eq!(refused, here.printed().matches("must: ").count(), "every rung: {outside:?}");
}

#[test]
fn a_request() {
    let mut request = Request::prompt("The capital of France is");
    request.max_tokens = Some(8);
    request.seed = Some(7);
    request.stop = vec!["\n".to_owned()];
    request.stream = true;
    request.deadline_ms = Some(60_000);
    insta::assert_json_snapshot!(json(&request.to_bytes()));
}

#[test]
fn a_chunk() {
    let chunk = Chunk { job: job(), offset: 1, tokens: vec![7042, 30], text: " Paris.".to_owned() };
    insta::assert_json_snapshot!(chunk);
}

#[test]
fn a_reply_to_a_prompt_and_one_to_messages() {
    insta::assert_json_snapshot!("reply_to_a_prompt", reply());
    let message = ChatMessage { role: "assistant".to_owned(), content: "Paris.".to_owned() };
    let to_messages = Reply { text: None, message: Some(message), is_final: false, ..reply() };
    insta::assert_json_snapshot!("reply_to_messages", to_messages);
}

#[test]
fn a_refusal() {
    let refusal = Refusal::of_param("max_tokens", "`max_tokens` must be a whole number from 1 to 1048576, not 0");
    insta::assert_json_snapshot!("refusal_of_a_field", json(&refusal.to_bytes()));
    let overloaded = Refusal::new(ErrorCode::Overloaded, "the queue of this model is full");
    let overloaded = overloaded.retry_after_ms(1000).for_job(job());
    insta::assert_json_snapshot!("refusal_of_a_job", json(&overloaded.to_bytes()));
}

#[test]
fn a_beat() {
    let token = || ModelToken::of_name("smollm2:135m").expect("a catalogue name");
    let alias = ModelToken::of_name("smollm2").expect("an alias");
    let beat = Beat {
        replica: ReplicaName::try_from("one").expect("a name"),
        incarnation: Incarnation::try_from("643f-2a").expect("a name"),
        models: vec![RunsModel { token: token(), alias, name: "smollm2:135m".to_owned(), digest: digest() }],
        held: vec![Held { job: job(), ack: "$JS.ACK.HALM_JOBS.smollm2-135m.1.2.3.4.0".to_owned() }],
        draining: false,
        deaf: false,
        paces: BTreeMap::from([(token(), Pace { slots: 4, job_ms: 900 })]),
    };
    insta::assert_json_snapshot!(beat);
}

fn life() -> Incarnation {
    Incarnation::try_from("6437a0b1c2d3e-1f2").expect("an incarnation")
}

#[test]
fn a_notice() {
    let replica = ReplicaName::try_from("one").expect("a name");
    let says = |verdict| Notice { job: job(), replica: replica.clone(), incarnation: life(), verdict };
    insta::assert_json_snapshot!("notice_pending", says(Verdict::Pending));
    let refusal = Refusal::new(ErrorCode::Overloaded, "the queue of this model is full").retry_after_ms(1000);
    insta::assert_json_snapshot!("notice_refused", says(Verdict::Refused { refusal }));
}

#[test]
fn a_cancellation_and_its_mark() {
    insta::assert_json_snapshot!("cancellation", Cancellation { job: job(), state: CancelState::Cancelled });
    let mark = Claim {
        replica: ReplicaName::try_from("one").expect("a name"),
        incarnation: life(),
        nonce: Nonce::of_cancel(&life(), 7),
        attempts: 1,
        deaths: 0,
        strikes: 0,
        trial_until: None,
        cancelled: Some(CancelledBy::Bystander),
    };
    insta::assert_json_snapshot!("claim_that_cancels", mark);
    let older = r#"{"replica":"one","incarnation":"a-1","nonce":"a-1-1","attempts":1,"deaths":0}"#;
    let read = Claim::from_bytes(older.as_bytes()).expect("a claim of an older version is read");
    assert_eq!((read.cancelled, read.strikes), (None, 0));
}
