//! Every name of a span. Field names stand with them in OpenTelemetry's `gen_ai.*` where one exists.

/// Hearing a request.
pub const SPAN_REQUEST: &str = "halm.request";
/// One lease of a job, in its worker process.
pub const SPAN_GENERATE: &str = "halm.generate";
