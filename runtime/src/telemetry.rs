//! Logs and traces, and the names of what is in them.
//!
//! Logs go to standard error: text on a terminal, JSON elsewhere. Traces leave by OTLP only if an endpoint is
//! configured. Prompts and answers are in neither.

mod names;
mod otlp;

use std::io::IsTerminal;

use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use names::{SPAN_GENERATE, SPAN_REQUEST};

use crate::config::{LogFormat, TelemetryConfig};

/// Keeps telemetry going; dropping it sends what is still to be sent.
#[must_use]
pub struct Telemetry {
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider {
            // A collector that is away must not keep a replica from ending.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}

/// Starts telemetry for this process.
///
/// # Errors
/// If the filter or the endpoint is not one.
pub fn start(config: &TelemetryConfig, service: &'static str) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| anyhow::anyhow!("telemetry.log {:?} is no filter: {error}", config.log))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let base = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let log = if json {
        base.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        base.with_ansi(terminal).boxed()
    };
    let provider = match config.otlp_endpoint.as_str() {
        "" => None,
        endpoint => Some(otlp::provider(endpoint, service)?),
    };
    // Our own spans only: libraries have some for each step.
    let ours = Targets::new().with_target("halm", tracing::Level::INFO);
    let traces = provider.as_ref().map(|provider| otlp::layer(provider).with_filter(ours));
    tracing_subscriber::registry().with(log.with_filter(filter)).with(traces).try_init()?;
    Ok(Telemetry { provider })
}

/// Makes a span the child of the context in a `traceparent` header.
pub fn set_parent(span: &Span, traceparent: Option<&str>) {
    if let Some(context) = traceparent.and_then(otlp::parse) {
        // Without an exporter there is nothing to be the child of.
        let _ = span.set_parent(context);
    }
}

/// The `traceparent` of a span, if traces are exported.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    span.span_context().is_valid().then(|| otlp::format(span.span_context()))
}
