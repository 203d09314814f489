//! What the deaths of workers say against a job, and what follows for its company.
//!
//! A worker that dies takes all its jobs along, and one of them may have killed it. A death with several jobs makes
//! each of them a *suspect*. A suspect is put *on trial*: it goes on under watch, at most one in a worker, until it is
//! past the place where the worker died. A death during a trial, or of a worker that had one job only, is *attributed*
//! to that job, and its company is not suspected at all. A job with an attributed death runs alone until it is past
//! that place. Answers are the same whenever they are computed again, so a job that kills kills at the same place
//! again: three times in a row there, and it is poison.

use halm_protocol::Claim;

/// Tokens beyond the place of a death after which a suspect is cleared. The worker may have been some steps ahead of
/// what it had reported.
const TRIAL_TOKENS: u32 = 8;
/// Attributed deaths after which a job runs alone to its end, however far it comes each time.
const ALONE_FROM_DEATHS: u32 = 2;
/// Attributed deaths after which a job is poison though it came further each time: a leak that grows with the text.
const DEATHS_MAX: u32 = 10;

/// Whom a job may share a worker with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Company {
    /// Nobody.
    Alone,
    /// Anybody who is not on trial too.
    OnTrial,
    /// Anybody.
    Any,
}

/// What is known against a job, on any replica: it travels in its claims.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// Attributed deaths in all. Invariant: `strikes <= deaths`.
    deaths: u32,
    /// Attributed deaths in a row, without a trial passed in between.
    strikes: u32,
    /// The number of tokens at which its trial is passed, if it is on trial.
    trial_until: Option<u32>,
}

impl Suspicion {
    /// What a claim tells.
    pub(super) fn told(claim: &Claim) -> Self {
        Self { deaths: claim.deaths, strikes: claim.strikes.min(claim.deaths), trial_until: claim.trial_until }
    }

    /// Writes it into a claim.
    pub(super) fn tell(self, claim: &mut Claim) {
        (claim.deaths, claim.strikes, claim.trial_until) = (self.deaths, self.strikes, self.trial_until);
    }

    /// Whether a claim that told `told` hides something.
    pub(super) fn is_news(self, told: Self) -> bool {
        self.deaths > told.deaths || (self.trial_until.is_some() && self.trial_until != told.trial_until)
    }

    /// A worker died with this job and others, when the job had `tokens` tokens.
    pub(super) fn suspect(&mut self, tokens: u32) {
        self.trial_until = self.trial_until.max(Some(tokens.saturating_add(TRIAL_TOKENS)));
    }

    /// A worker died by this job, when the job had `tokens` tokens.
    pub(super) fn attribute(&mut self, tokens: u32) {
        self.deaths += 1;
        self.strikes += 1;
        self.suspect(tokens);
    }

    /// The job has come to `tokens` tokens.
    pub(super) fn reached(&mut self, tokens: u32) {
        if self.trial_until.is_some_and(|until| tokens >= until) {
            self.trial_until = None;
            self.strikes = 0;
        }
    }

    /// Deaths attributed to the job, in all.
    pub(super) fn deaths(self) -> u32 {
        self.deaths
    }

    pub(super) fn company(self) -> Company {
        if self.strikes > 0 || self.deaths >= ALONE_FROM_DEATHS {
            Company::Alone
        } else if self.trial_until.is_some() {
            Company::OnTrial
        } else {
            Company::Any
        }
    }

    /// Whether the job has killed enough. `strikes_max` bounds attributed deaths in a row.
    pub(super) fn is_poison(self, strikes_max: u32) -> bool {
        self.strikes >= strikes_max || self.deaths >= DEATHS_MAX.max(strikes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_in_company_is_a_suspicion_that_ends_past_its_place() {
        let mut job = Suspicion::default();
        assert_eq!(job.company(), Company::Any);
        job.suspect(5);
        assert_eq!((job.company(), job.deaths()), (Company::OnTrial, 0));
        job.reached(5 + TRIAL_TOKENS - 1);
        assert_eq!(job.company(), Company::OnTrial);
        job.reached(5 + TRIAL_TOKENS);
        assert_eq!(job, Suspicion::default());
    }

    #[test]
    fn an_attributed_death_isolates_until_its_place_is_passed_and_the_second_for_good() {
        let mut job = Suspicion::default();
        job.attribute(0);
        assert_eq!(job.company(), Company::Alone);
        job.reached(TRIAL_TOKENS);
        assert_eq!(job.company(), Company::Any);
        job.attribute(20);
        job.reached(20 + TRIAL_TOKENS);
        assert_eq!(job.company(), Company::Alone);
        assert!(!job.is_poison(3), "it came further each time");
    }

    #[test]
    fn deaths_in_a_row_at_one_place_are_poison_and_so_are_many_further_on() {
        let mut job = Suspicion::default();
        for strikes in 1..=3 {
            assert!(!job.is_poison(3), "after {} deaths", strikes - 1);
            job.attribute(4);
        }
        assert!(job.is_poison(3));
        let mut job = Suspicion::default();
        for deaths in 1..=DEATHS_MAX {
            assert!(!job.is_poison(3), "after {} deaths", deaths - 1);
            job.attribute(deaths * 10);
            job.reached(deaths * 10 + TRIAL_TOKENS);
        }
        assert!(job.is_poison(3) || job.deaths() == DEATHS_MAX);
        assert!(job.is_poison(3));
    }

    #[test]
    fn a_suspect_killed_earlier_again_is_not_cleared_before_the_later_place() {
        let mut job = Suspicion::default();
        job.suspect(40);
        job.attribute(3);
        job.reached(3 + TRIAL_TOKENS);
        assert_eq!(job.company(), Company::Alone);
        job.reached(40 + TRIAL_TOKENS);
        assert_eq!(job.company(), Company::Any);
    }

    #[test]
    fn only_what_is_worse_than_what_was_told_is_news() {
        let clear = Suspicion::default();
        let mut suspect = clear;
        suspect.suspect(1);
        let mut guilty = suspect;
        guilty.attribute(1);
        assert!(suspect.is_news(clear) && guilty.is_news(suspect) && guilty.is_news(clear));
        assert!(!clear.is_news(suspect) && !suspect.is_news(suspect) && !clear.is_news(guilty));
    }
}
