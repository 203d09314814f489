//! The jobs of one worker process, computed together.
//!
//! Owns the translation between the protocol and the model: a lease is a generation, what comes of a step is an event.
//! It never decides who computes what: the model's scheduler does.

use std::sync::Arc;
use std::time::Instant;

use halm_models::{
    ChatMessage, Disposition, FinishReason, Generation, GenerationSpec, Input, Model, OpenError, Priority, Progress,
    Refusal, SamplingSpec, StepError, Terms, TokenId,
};
use halm_protocol::worker::{Event, Lease, Piece, Work};
use halm_protocol::{Class, ErrorCode, Limits};

use tracing::Span;

use super::output::Output;
use super::pulse::Pulse;
use crate::telemetry::{self, SPAN_GENERATE};

struct Running {
    lease: Lease,
    generation: Generation,
    /// Ends when the lease does.
    _span: Span,
}

/// The jobs, and the model that computes them.
pub(super) struct Jobs {
    model: Model,
    output: Arc<Output>,
    pulse: Arc<Pulse>,
    /// In the order in which they came.
    running: Vec<Running>,
    /// The clock that steps are planned by.
    began: Instant,
}

impl Jobs {
    pub(super) fn new(model: Model, output: Arc<Output>, pulse: Arc<Pulse>) -> Self {
        Self { model, output, pulse, running: Vec::new(), began: Instant::now() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Takes a job; what is wrong with it is told to the other end.
    pub(super) fn start(&mut self, work: Work) -> anyhow::Result<()> {
        let generated: Vec<TokenId> = work.generated.iter().copied().map(TokenId::from).collect();
        match self.open(&work, &generated) {
            Ok(mut generation) => {
                // Putting recorded tokens in place computes nothing; what they said was said.
                for _ in &generated {
                    self.model.advance(&mut generation)?;
                }
                let span = tracing::info_span!(
                    SPAN_GENERATE,
                    job = %work.job,
                    gen_ai.usage.input_tokens = generation.prompt_tokens(),
                    halm.resumed_at = generated.len(),
                );
                telemetry::set_parent(&span, work.traceparent.as_deref());
                self.running.push(Running { lease: work.lease, generation, _span: span });
            }
            Err(error) => self.output.send(&refused(work.lease, &error))?,
        }
        Ok(())
    }

    fn open(&mut self, work: &Work, generated: &[TokenId]) -> Result<Generation, OpenError> {
        let mut spec = spec(work);
        let priority = match work.class {
            Class::Interactive => Priority::Interactive,
            Class::Batch => Priority::Batch,
        };
        let terms = Terms { priority, ..Terms::default() };
        match self.model.open_on(terms, &spec, generated) {
            // Nobody asked for that many: the default is cut to what the context leaves, which is the same on all workers.
            Err(OpenError::MaxTokensBeyondContext { .. }) if work.max_tokens.is_none() => {
                spec.max_tokens = None;
                self.model.open_on(terms, &spec, generated)
            }
            opened => opened,
        }
    }

    /// Forgets a job.
    pub(super) fn cancel(&mut self, lease: Lease) {
        if let Some(at) = self.running.iter().position(|running| running.lease == lease) {
            self.model.close(self.running.remove(at).generation);
        }
    }

    /// Does one step for all jobs.
    ///
    /// # Errors
    /// When the other end is gone, or the engine must not be trusted any more.
    pub(super) fn advance(&mut self) -> anyhow::Result<()> {
        let generations = self.running.iter_mut().map(|running| &mut running.generation);
        let step = self.model.plan(generations, self.began.elapsed());
        let rows = u32::try_from(step.rows()).unwrap_or(u32::MAX);
        // Without rows there is no pass: somebody is finished, and that takes no time to speak of.
        if rows > 0 {
            self.pulse.step_began(rows);
        }
        let progress = self.model.perform(step);
        if rows > 0 {
            self.pulse.step_ended();
        }
        for (running, progress) in std::mem::take(&mut self.running).into_iter().zip(progress?) {
            self.tell(running, progress)?;
        }
        Ok(())
    }

    fn tell(&mut self, running: Running, progress: Result<Progress, StepError>) -> anyhow::Result<()> {
        let lease = running.lease;
        match progress {
            Ok(Progress::Prefilling { .. } | Progress::Replayed { .. }) => self.running.push(running),
            Ok(Progress::Generated { token, text, .. }) => {
                let offset = u32::try_from(running.generation.completion_tokens() - 1).unwrap_or(u32::MAX);
                self.running.push(running);
                let pieces = vec![Piece { token: token.get(), text }];
                self.output.send(&Event::Tokens { lease, offset, pieces })?;
            }
            Ok(Progress::Finished { text, reason }) => {
                let prompt_tokens = u32::try_from(running.generation.prompt_tokens()).unwrap_or(u32::MAX);
                self.model.close(running.generation);
                let reason = match reason {
                    FinishReason::Stop => halm_protocol::FinishReason::Stop,
                    FinishReason::Length => halm_protocol::FinishReason::Length,
                };
                self.output.send(&Event::Done { lease, text, reason, prompt_tokens })?;
            }
            Err(error) => {
                self.model.close(running.generation);
                self.output.send(&failed(lease, &error))?;
                if error.disposition() == Disposition::Fatal {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

fn spec(work: &Work) -> GenerationSpec {
    let message = |message: &halm_protocol::ChatMessage| ChatMessage {
        role: message.role.clone(),
        content: message.content.clone(),
    };
    GenerationSpec {
        input: match &work.input {
            halm_protocol::Input::Prompt(text) => Input::Prompt(text.clone()),
            halm_protocol::Input::Messages(messages) => Input::Messages(messages.iter().map(message).collect()),
        },
        max_tokens: Some(work.max_tokens.unwrap_or(Limits::MAX_TOKENS_DEFAULT)),
        sampling: SamplingSpec {
            temperature: work.sampling.temperature,
            top_k: work.sampling.top_k,
            top_p: work.sampling.top_p,
            min_p: work.sampling.min_p,
            frequency_penalty: work.sampling.frequency_penalty,
            presence_penalty: work.sampling.presence_penalty,
            seed: work.seed,
            choice: 0,
        },
        stop: work.stop.clone(),
    }
}

fn refused(lease: Lease, error: &OpenError) -> Event {
    let (code, param) = match error {
        OpenError::ContextExceeded { .. } => (ErrorCode::ContextExceeded, Some("prompt")),
        OpenError::MaxTokensBeyondContext { .. } => (ErrorCode::ContextExceeded, Some("max_tokens")),
        OpenError::Refused(Refusal::NeverFits { .. }) => (ErrorCode::ContextExceeded, Some("prompt")),
        OpenError::Refused(Refusal::TooManySequences { .. }) => (ErrorCode::Overloaded, None),
        OpenError::EmptyPrompt => (ErrorCode::InvalidRequest, Some("prompt")),
        OpenError::ZeroMaxTokens => (ErrorCode::InvalidRequest, Some("max_tokens")),
        OpenError::NoChatTemplate | OpenError::Template(_) => (ErrorCode::InvalidRequest, Some("messages")),
        OpenError::Sampling(invalid) => (ErrorCode::InvalidRequest, Some(invalid.parameter)),
        OpenError::InvalidStop { .. } => (ErrorCode::InvalidRequest, Some("stop")),
        _ => (ErrorCode::Internal, None),
    };
    let retry = error.disposition() != Disposition::Poison;
    Event::Failed { lease, code, message: error.to_string(), param: param.map(str::to_owned), retry }
}

fn failed(lease: Lease, error: &StepError) -> Event {
    let code = match error {
        StepError::ContextExceeded { .. } => ErrorCode::ContextExceeded,
        StepError::DeadlinePassed => ErrorCode::DeadlineExceeded,
        _ => ErrorCode::Internal,
    };
    let retry = error.disposition() != Disposition::Poison;
    Event::Failed { lease, code, message: error.to_string(), param: None, retry }
}
