//! The jobs of one worker process, computed in turns.

use std::collections::VecDeque;
use std::sync::Arc;

use halm_models::{
    ChatMessage, Disposition, FinishReason, Generation, GenerationSpec, Input, Model, OpenError, Progress,
    SamplingSpec, StepError, TokenId,
};
use halm_protocol::worker::{Event, Lease, Piece, Work};
use halm_protocol::{ErrorCode, Limits};

use tracing::Span;

use super::output::Output;
use super::pulse::Pulse;
use crate::telemetry::{self, SPAN_GENERATE};

/// Tokens that a resumed job replays in one turn. Its client sees a gap until the replay is done, while the others' only
/// grow a little slower.
const REPLAYS_PER_TURN: usize = 4;

struct Running {
    lease: Lease,
    generation: Generation,
    /// Whether the prompt is still to be computed: the next pass has that many rows.
    prompt_rows: u32,
    /// Ends when the lease does.
    span: Span,
}

/// The jobs, and the model that computes them.
pub(super) struct Jobs {
    model: Model,
    output: Arc<Output>,
    pulse: Arc<Pulse>,
    turns: VecDeque<Running>,
}

impl Jobs {
    pub(super) fn new(model: Model, output: Arc<Output>, pulse: Arc<Pulse>) -> Self {
        Self { model, output, pulse, turns: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Takes a job; what is wrong with it is told to the other end.
    pub(super) fn start(&mut self, work: Work) -> anyhow::Result<()> {
        let generated: Vec<TokenId> = work.generated.iter().copied().map(TokenId::from).collect();
        match self.open(&work, &generated) {
            Ok(generation) => {
                let prompt_rows = u32::try_from(generation.prompt_tokens()).unwrap_or(u32::MAX);
                // The newest goes first: its client waits for a first token.
                let span = tracing::info_span!(
                    SPAN_GENERATE,
                    job = %work.job,
                    gen_ai.usage.input_tokens = prompt_rows,
                    halm.resumed_at = generated.len(),
                );
                telemetry::set_parent(&span, work.traceparent.as_deref());
                self.turns.push_front(Running { lease: work.lease, generation, prompt_rows, span });
            }
            Err(error) => self.output.send(&refused(work.lease, &error))?,
        }
        Ok(())
    }

    fn open(&mut self, work: &Work, generated: &[TokenId]) -> Result<Generation, OpenError> {
        let mut spec = spec(work);
        match self.model.open(&spec, generated) {
            // Nobody asked for that many: the default is cut to what the context leaves.
            Err(OpenError::MaxTokensBeyondContext { .. }) if work.max_tokens.is_none() => {
                spec.max_tokens = None;
                self.model.open(&spec, generated)
            }
            opened => opened,
        }
    }

    /// Forgets a job.
    pub(super) fn cancel(&mut self, lease: Lease) {
        if let Some(at) = self.turns.iter().position(|running| running.lease == lease)
            && let Some(running) = self.turns.remove(at)
        {
            self.model.close(running.generation);
        }
    }

    fn step(&mut self, running: &mut Running) -> Result<Progress, StepError> {
        self.pulse.step_began(running.prompt_rows.max(1));
        let progress = running.span.in_scope(|| self.model.advance(&mut running.generation));
        self.pulse.step_ended();
        running.prompt_rows = 0;
        progress
    }

    /// Does one unit of work for the job whose turn it is.
    ///
    /// # Errors
    /// When the other end is gone, or the engine must not be trusted any more.
    pub(super) fn advance(&mut self) -> anyhow::Result<()> {
        let Some(mut running) = self.turns.pop_front() else { return Ok(()) };
        let mut progress = self.step(&mut running);
        for _ in 1..REPLAYS_PER_TURN {
            if !matches!(progress, Ok(Progress::Replayed { .. })) {
                break;
            }
            progress = self.step(&mut running);
        }
        let lease = running.lease;
        match progress {
            Ok(Progress::Prefilled { .. } | Progress::Replayed { .. }) => self.turns.push_back(running),
            Ok(Progress::Generated { token, text, .. }) => {
                let offset = u32::try_from(running.generation.completion_tokens() - 1).unwrap_or(u32::MAX);
                self.turns.push_back(running);
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
        _ => ErrorCode::Internal,
    };
    let retry = error.disposition() != Disposition::Poison;
    Event::Failed { lease, code, message: error.to_string(), param: None, retry }
}
