//! Traces over OTLP, and the W3C `traceparent` header.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// The path at which a collector takes traces.
const TRACES_PATH: &str = "/v1/traces";

/// A collector that is away is not waited for longer.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);

/// The exporter's HTTP client. It blocks, on the exporter's own thread.
#[derive(Debug)]
struct Exporting(ureq::Agent);

impl Exporting {
    fn new() -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(EXPORT_WITHIN)).http_status_as_error(false).build();
        Self(config.new_agent())
    }
}

#[async_trait::async_trait]
impl HttpClient for Exporting {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = answer.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

pub(super) fn provider(endpoint: &str, service: &'static str) -> anyhow::Result<SdkTracerProvider> {
    let endpoint = format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(&endpoint)
        .with_http_client(Exporting::new())
        .build()
        .with_context(|| format!("telemetry.otlp_endpoint {endpoint:?} cannot be used"))?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
    provider: &SdkTracerProvider,
) -> OpenTelemetryLayer<S, Tracer> {
    OpenTelemetryLayer::new(provider.tracer("halm"))
}

/// `00-<trace id>-<span id>-<flags>`, as W3C Trace Context has it.
pub(super) fn parse(traceparent: &str) -> Option<Context> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    if version.len() != 2 || trace.len() != 32 || span.len() != 16 {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok()?;
    let span = SpanId::from_hex(span).ok()?;
    let parent = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::default());
    parent.is_valid().then(|| Context::new().with_remote_span_context(parent))
}

pub(super) fn format(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_reads_back_as_itself_and_nonsense_does_not() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parse(text).expect("the example of the specification");
        assert_eq!(format(context.span().span_context()), text);
        for nonsense in ["", "00", "00-0-0-0", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert!(parse(nonsense).is_none(), "{nonsense:?} was taken");
        }
    }
}
