//! A run from beginning to end: texts are learnt, load begins, calm is measured, things are broken, and all is judged.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::{Either, join_all, pending, select, try_join};
use halm_client::Client;
use halm_protocol::{JobId, Request};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::event::{FaultNo, Happened, Tape};
use super::judge::{Answer, Judge};
use super::ladder::Rung;
use super::load::Load;
use super::schedule::{Schedule, Strike};
use super::target::Target;
use super::texts;
use super::verdict::{Setting, Verdict};
use super::witness::{Witness, has_dead_letter};

/// Before load counts: the first requests meet idle workers.
const WARM_UP: Duration = Duration::from_secs(3);
/// The rate that is taken when none is given, of what the host can bear, and its bounds.
const RATE_SHARE: f64 = 0.35;
const RATE_MIN: f64 = 0.5;
const RATE_MAX: f64 = 4.0;
/// After all is whole, streams that are silent still are waited for, so that one fault's gap is not another's.
const QUIET_WITHIN: Duration = Duration::from_secs(15);
/// How long a quarantined job may take to be where people can look into it.
const LETTER_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two lines where chaos breaks nothing itself.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) setting: Setting,
    /// Load before anything is broken; nothing where somebody else breaks things.
    pub(crate) calm: Duration,
    /// Load while things are broken.
    pub(crate) faults: Duration,
    pub(crate) schedule: Schedule,
}

/// What a blow needs to know of the run around it.
pub(crate) struct Scene {
    tape: Tape,
    load: Rc<Load>,
    observer: Option<Client>,
    rung: Cell<Rung>,
    blows: Cell<usize>,
}

impl Scene {
    /// The blow falls in this moment.
    pub(crate) fn struck(&self, what: String) {
        self.blows.set(self.blows.get() + 1);
        self.tape.say(Happened::Struck { rung: self.rung.get(), what });
    }

    /// Jobs whose streams have begun: whoever computes one of them is a victim that hurts.
    pub(crate) fn streams(&self) -> BTreeSet<JobId> {
        self.tape.look(|judge| judge.streams())
    }

    pub(crate) fn not_done(&self, rung: Rung, why: String) {
        self.tape.say(Happened::NotDone { rung, why });
    }

    pub(crate) fn unmet(&self, rung: Rung, why: String) {
        self.tape.say(Happened::Unmet { rung, why });
    }

    /// Asks for the job that is to be quarantined, and waits until it has begun.
    pub(crate) async fn poisoned_job(&self, within: Duration) -> Option<JobId> {
        self.load.send_poison();
        let begun = async {
            loop {
                if let Some(job) = self.tape.look(|judge| judge.poisoned_job()) {
                    return job;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(within, begun).await.ok()
    }

    pub(crate) fn poisoned_is_over(&self) -> bool {
        self.tape.look(|judge| judge.poisoned_is_over())
    }

    /// Whether a job that cost so many workers was given up as it had to be.
    pub(crate) async fn judge_poison(&self, job: &JobId, kills: usize) {
        if self.tape.look(|judge| judge.quarantined()) == 0 {
            return self.not_done(Rung::Poison, format!("the job {job} was done before {kills} kills could stop it"));
        }
        let Some(observer) = &self.observer else { return };
        let kept = async {
            // The client is told first, and the letter written when the crash reports are in.
            while !has_dead_letter(observer, job).await.unwrap_or(false) {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(LETTER_WITHIN, kept).await.is_err() {
            let within = LETTER_WITHIN.as_secs();
            self.unmet(Rung::Poison, format!("the quarantined job {job} was not kept for people within {within} s"));
        }
    }
}

/// Performs a plan. `say` is told a line for each fault.
///
/// # Errors
/// If something that chaos itself needs fails: what is wrong with halm is in the verdict.
pub(crate) async fn perform(target: &mut Target, plan: Plan, say: &dyn Fn(&str)) -> anyhow::Result<Verdict> {
    let links = target.links();
    let carrying = async {
        match &links {
            Some(links) => links.run().await,
            None => pending().await,
        }
    };
    // Links carry bytes for as long as anything else goes on.
    match select(Box::pin(carrying), Box::pin(play(target, plan, say))).await {
        Either::Left(((), _)) => anyhow::bail!("the links ended"),
        Either::Right((verdict, _)) => verdict,
    }
}

async fn play(target: &mut Target, mut plan: Plan, say: &dyn Fn(&str)) -> anyhow::Result<Verdict> {
    target.whole(&BTreeSet::new()).await.map_err(anyhow::Error::msg)?;
    let clients = target.clients(plan.setting.clients).await?;
    let (model, seed) = (plan.setting.model.clone(), plan.setting.seed);
    let requests = texts::requests(seed);
    say(&format!("everything is ready; learning the right answers to {} requests, undisturbed", requests.len()));
    let began = Instant::now();
    let mut answers = learn(&clients, &model, &requests).await?;
    if plan.setting.rate == 0.0 {
        plan.setting.rate = bearable(&answers, began.elapsed());
    }
    say(&format!("asking {} times a second from {} clients", plan.setting.rate, clients.len()));
    if plan.schedule.strikes.iter().any(|strike| strike.rung == Rung::Poison) {
        answers.extend(learn(&clients, &model, &[texts::poisoned(seed)]).await?);
    }
    let tape = Tape::new(Judge::new(plan.setting.clone(), answers));
    let load = Load::new(clients, &model, requests, texts::poisoned(seed), plan.setting.rate, seed, &tape);
    let load = Rc::new(load);
    let observer = target.observer();
    let witness = observer.as_ref().map(|observer| Witness::new(observer, &tape));
    let scene = Scene {
        tape: tape.clone(),
        load: Rc::clone(&load),
        observer,
        rung: Cell::new(Rung::WorkerKill),
        blows: Cell::new(0),
    };
    let watching = async {
        match &witness {
            Some(witness) => witness.run().await,
            None => pending().await,
        }
    };
    let asking = async {
        load.run().await;
        anyhow::Ok(())
    };
    let playing = try_join(asking, conduct(target, &plan, &scene, say));
    match select(Box::pin(watching), Box::pin(playing)).await {
        Either::Left(((), _)) => anyhow::bail!("the witness ended"),
        Either::Right((played, _)) => drop(played?),
    }
    if let Some(witness) = &witness {
        say("no more is asked or broken; looking up what the brokers keep");
        witness.audit().await?;
    }
    let (now, setting) = (tape.now(), plan.setting.clone());
    let judge = tape.look(|judge| std::mem::replace(judge, Judge::new(setting, Vec::new())));
    Ok(judge.finish(now))
}

async fn learn(clients: &[Client], model: &str, requests: &[Request]) -> anyhow::Result<Vec<Answer>> {
    let each = requests.iter().zip(clients.iter().cycle());
    let learning = each.map(|(request, client)| texts::learn(client, model, request.clone()));
    join_all(learning).await.into_iter().collect::<anyhow::Result<_>>().context("learn the right answers")
}

/// A rate that leaves room for what has to be computed again: a share of what the answers were learnt at, each twice.
fn bearable(answers: &[Answer], took: Duration) -> f64 {
    let tokens: usize = answers.iter().map(|answer| answer.tokens.len()).sum();
    let answers_a_second = 2.0 * answers.len() as f64 / took.as_secs_f64().max(0.1);
    let rate = if tokens > 0 { RATE_SHARE * answers_a_second } else { RATE_MIN };
    (rate * 10.0).round().clamp(10.0 * RATE_MIN, 10.0 * RATE_MAX) / 10.0
}

/// Calm, then one blow after the other, each when what was broken before is whole again.
async fn conduct(target: &mut Target, plan: &Plan, scene: &Scene, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let tape = &scene.tape;
    sleep(WARM_UP).await;
    if !plan.calm.is_zero() {
        say(&format!("{} s of load that nothing disturbs", plan.calm.as_secs()));
        tape.say(Happened::CalmBegan);
        sleep(plan.calm).await;
    }
    say(&format!("{} faults within {} s", plan.schedule.strikes.len(), plan.faults.as_secs()));
    tape.say(Happened::FaultsBegan);
    let began = Instant::now();
    for strike in &plan.schedule.strikes {
        sleep_until(began + strike.at).await;
        if began.elapsed() > plan.faults {
            scene.not_done(
                strike.rung,
                "there was no time left: what was broken before took longer than its room".to_owned(),
            );
            continue;
        }
        blow(target, strike, scene, say).await?;
    }
    while began.elapsed() < plan.faults {
        sleep_until((Instant::now() + LINE_EVERY).min(began + plan.faults)).await;
        if plan.schedule.strikes.is_empty() {
            say(&progress(tape));
        }
    }
    tape.say(Happened::FaultsEnded);
    scene.load.stop();
    Ok(())
}

async fn blow(target: &mut Target, strike: &Strike, scene: &Scene, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let (tape, fault) = (&scene.tape, FaultNo(scene.blows.get()));
    scene.rung.set(strike.rung);
    let gone = target.strike(strike.rung, strike.pick, scene).await?;
    if scene.blows.get() == fault.0 {
        say(&format!("{:<16} not done", strike.rung.name()));
        return Ok(());
    }
    let whole = target.whole(&gone).await;
    for what in target.restarted() {
        say(&what);
        tape.say(Happened::Restarted(what));
    }
    tape.say(Happened::Whole { fault, whole: whole.is_ok() });
    let whole_at = Instant::now();
    // Whoever has said nothing since then was hit, and has not gone on yet.
    while tape.look(|judge| judge.silence_now(tape.now())) > whole_at.elapsed() && whole_at.elapsed() < QUIET_WITHIN {
        sleep(LOOK_EVERY).await;
    }
    say(&tape.look(|judge| judge.tell(fault, tape.now())));
    if let Err(why) = whole {
        say(&format!("{:<16} not whole again: {why}", strike.rung.name()));
    }
    Ok(())
}

fn progress(tape: &Tape) -> String {
    let now = tape.now();
    let (asked, ended) = tape.look(|judge| judge.asked_and_ended());
    let silence = tape.look(|judge| judge.silence_now(now));
    format!(
        "{:>6.1} s  {asked} requests, {ended} ended; the longest silence now {} ms",
        now.as_secs_f64(),
        silence.as_millis()
    )
}
