//! A request's trace goes through the replica to the worker process, leaves by OTLP, and comes back with the reply.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use async_nats::HeaderMap;
use futures_util::StreamExt;
use halm_tests::{BrokerOptions, Cluster, greedy, until};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_ID: [u8; 16] = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();

/// A collector: takes what is posted to it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Vec<u8>>>>);

impl Collector {
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let collector = Self::default();
        let keep = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keep = keep.clone();
                std::thread::spawn(move || keep.serve(stream));
            }
        });
        (collector, url)
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            seen.extend_from_slice(&chunk[..read]);
            let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            if seen.len() >= end + 4 + length {
                self.0.lock().expect("nobody panics with it").push(seen.split_off(end + 4));
                seen.clear();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        }
    }

    fn has(&self, span: &str) -> bool {
        let contains = |body: &Vec<u8>, part: &[u8]| body.windows(part.len()).any(|window| window == part);
        let bodies = self.0.lock().expect("nobody panics with it");
        bodies.iter().any(|body| contains(body, span.as_bytes()) && contains(body, &TRACE_ID))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_trace_reaches_the_worker_and_comes_back_with_the_reply() {
    let (collector, url) = Collector::start();
    let url: &'static str = Box::leak(url.into_boxed_str());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", url)];
    let cluster = Cluster::configured(BrokerOptions::default(), &["traced"], &variables).await;

    let plain = cluster.plain().await;
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", TRACEPARENT);
    let inbox = plain.nats().new_inbox();
    let mut records = plain.nats().subscribe(inbox.clone()).await.expect("a subscription");
    let request = greedy().to_string();
    let subject = "halm.v1.generate.smollm2";
    plain.nats().publish_with_reply_and_headers(subject, inbox, headers, request.into()).await.expect("a request");
    let answered = until("the final record came", async || {
        let record = records.next().await.ok_or("the subscription ended")?;
        let headers = record.headers.unwrap_or_default();
        headers.get("traceparent").map(ToString::to_string).ok_or("a chunk")
    });
    let trace = answered.await;
    assert_eq!(trace[..35], TRACEPARENT[..35], "another trace came back");

    until("the spans of the replica and of its worker were exported", async || {
        let spans = ["halm.request", "halm.generate"].map(|span| (span, collector.has(span)));
        if spans.iter().all(|(_, exported)| *exported) { Ok(()) } else { Err(spans) }
    })
    .await;
}
