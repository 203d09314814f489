//! One step: planned by the scheduler, performed by the engine, told to the generations.
//!
//! Owns the way between the three. It decides nothing: who computes what is the scheduler's, what a number means is the
//! generation's. Called by a worker's loop.

use std::time::Duration;

use super::Model;
use crate::engine::{Chunk, StepError, Wanted};
use crate::generation::{Generation, Progress};
use crate::scheduler::{Plan, SequenceId};

/// What comes next for some generations. To be performed; what is dropped was not computed.
#[derive(Debug)]
pub struct Step<'g> {
    turns: Vec<Turn<'g>>,
    plan: Plan,
}

#[derive(Debug)]
struct Turn<'g> {
    generation: &'g mut Generation,
    /// What is known to come of it.
    came: Option<Result<Progress, StepError>>,
}

impl Step<'_> {
    /// Tokens that will be computed.
    pub fn rows(&self) -> usize {
        self.plan.rows()
    }
}

impl Model {
    /// Does one unit of work: puts a replayed token in place, computes some of the prompt, or generates a token. No
    /// deadline passes meanwhile. Other open generations are not asked for, and lose their pages first: where not all
    /// of them fit into memory, [`Self::plan`] with all gets further than turns of this.
    ///
    /// # Errors
    /// A [`StepError`], after which the generation can only be closed.
    pub fn advance(&mut self, generation: &mut Generation) -> Result<Progress, StepError> {
        let step = self.plan([generation], Duration::ZERO);
        self.perform(step)?.pop().unwrap_or(Err(StepError::NotRunning))
    }

    /// Plans one unit of work for each of these generations; what is to be computed, in one step. `now` is on the clock
    /// that deadlines are given on.
    ///
    /// What a generation says does not depend on who is with it.
    pub fn plan<'g>(&mut self, generations: impl IntoIterator<Item = &'g mut Generation>, now: Duration) -> Step<'g> {
        let mut turns: Vec<Turn<'g>> = generations
            .into_iter()
            .map(|generation| Turn { came: generation.next(&self.tokenizer), generation })
            .collect();
        let waiting = turns.iter().filter(|turn| turn.came.is_none());
        let asked: Vec<SequenceId> = waiting.map(|turn| turn.generation.sequence()).collect();
        let plan = self.scheduler.plan(&asked, now);
        for turn in &mut turns {
            if plan.ended.contains(&turn.generation.sequence()) {
                turn.generation.fail();
                turn.came = Some(Err(StepError::DeadlinePassed));
            }
        }
        Step { turns, plan }
    }

    /// Performs a step and says what came of it for each of its generations, in their order. Whoever found no room in
    /// it is answered with [`Progress::Prefilling`] where it stands.
    ///
    /// # Errors
    /// A [`StepError`] of the step itself, after which this model must not be used; those of single generations are in
    /// the list.
    pub fn perform(&mut self, step: Step<'_>) -> Result<Vec<Result<Progress, StepError>>, StepError> {
        let Step { mut turns, plan } = step;
        let chunks: Vec<Chunk<'_>> = plan
            .shares
            .iter()
            .map(|share| Chunk {
                start: share.tokens.start,
                tokens: &self.scheduler.tokens(share.sequence)[share.tokens.clone()],
                pages: self.scheduler.pages(share.sequence),
                wanted: if share.wants_logits { Wanted::Logits(1) } else { Wanted::Nothing },
            })
            .collect();
        let mut chosen = Vec::new();
        if !chunks.is_empty() {
            self.engine.step(&chunks, &mut |computed| {
                let sequence = plan.shares[computed.chunk].sequence;
                let turn = turns.iter_mut().find(|turn| turn.generation.sequence() == sequence);
                let Some(turn) = turn else { return };
                let came = turn.generation.computed(computed.values, &self.tokenizer);
                if let Ok(Progress::Generated { token, .. }) = came {
                    chosen.push((sequence, token));
                }
                turn.came = Some(came);
            })?;
        }
        self.scheduler.computed(&plan);
        for (sequence, token) in chosen {
            self.scheduler.append(sequence, token);
        }
        Ok(turns.into_iter().map(|turn| self.outcome(turn)).collect())
    }

    fn outcome(&mut self, turn: Turn<'_>) -> Result<Progress, StepError> {
        let sequence = turn.generation.sequence();
        if turn.generation.is_over() {
            // Others may have its pages before it is closed.
            self.scheduler.remove(sequence);
        }
        turn.came.unwrap_or_else(|| {
            let (done, of) = (self.scheduler.computed_tokens(sequence), self.scheduler.tokens(sequence).len());
            Ok(Progress::Prefilling { done, of })
        })
    }
}

#[cfg(test)]
mod tests;
