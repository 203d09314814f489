//! How each rung is done here: the blow, and what an orchestrator would do after it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use halm_protocol::stream;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{Host, LOOK_EVERY};
use crate::chaos::ladder::Rung;
use crate::chaos::link::Path;
use crate::chaos::run::Scene;
use crate::stage::kill;

/// An orchestrator needs a moment to see that something died.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How long a stop may take: the drain, and what comes after it.
const DRAINED_WITHIN: Duration = Duration::from_secs(40);
/// How long peers may take to give up a replica that is frozen.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(8);
/// How long links are slow, stalled, cut.
const SLOW_FOR: Duration = Duration::from_secs(3);
const STALL_FOR: Duration = Duration::from_secs(2);
const CUT_FOR: Duration = Duration::from_secs(6);
/// Of a slow link, each way.
const SLOW_BY: Duration = Duration::from_millis(100);
/// How long a job may take until it is quarantined, and how many workers it may cost.
const QUARANTINED_WITHIN: Duration = Duration::from_secs(30);
const POISON_KILLS_MAX: usize = 20;

/// Processes that must be gone.
type Gone = BTreeSet<u32>;

impl Host {
    /// Does a rung.
    ///
    /// # Errors
    /// If chaos itself cannot do what it means to.
    pub(crate) async fn strike(&mut self, rung: Rung, pick: u64, scene: &Scene) -> anyhow::Result<Gone> {
        self.wait_for_a_stream(scene).await;
        match rung {
            Rung::WorkerKill => self.hit_worker(pick, Signal::KILL, scene).await,
            Rung::WorkerHang => self.hit_worker(pick, Signal::STOP, scene).await,
            Rung::WorkerAbort => self.hit_worker(pick, Signal::ABORT, scene).await,
            Rung::ReplicaKill => self.kill_replica(pick, scene).await,
            Rung::ReplicaFreeze => self.freeze_replica(pick, scene).await,
            Rung::ReplicaDrain => {
                let (at, jobs) = self.replica(pick, scene).await;
                scene.struck(format!("SIGTERM to {} ({jobs})", self.replicas[at].name()));
                self.drain(at, rung, scene).await
            }
            Rung::RollingRestart => self.roll(scene).await,
            Rung::BrokerStop | Rung::BrokerKill | Rung::LeaderKill => self.hit_broker(rung, pick, scene).await,
            Rung::LinkReset | Rung::LinkDelay | Rung::LinkStall => self.hit_link(rung, pick, scene).await,
            Rung::PartitionOut | Rung::PartitionIn | Rung::Partition => self.hit_link(rung, pick, scene).await,
            Rung::ClientReset => {
                scene.struck("RST to every connection of the clients".to_owned());
                self.links.clients.reset();
                Ok(Gone::new())
            }
            Rung::SeveralAtOnce => self.several(pick, scene).await,
            Rung::Poison => self.poison(scene).await,
            Rung::ConsumerDelete => self.delete_consumer(scene).await,
        }
    }

    async fn hit_worker(&self, pick: u64, signal: Signal, scene: &Scene) -> anyhow::Result<Gone> {
        let worker = self.worker(pick, scene, |_| true).await.context("no worker could be found to be hit")?;
        scene.struck(format!("{} to {}", name(signal), worker.what));
        kill(worker.pid, signal)?;
        Ok(Gone::from([worker.pid]))
    }

    async fn kill_replica(&mut self, pick: u64, scene: &Scene) -> anyhow::Result<Gone> {
        let (at, jobs) = self.replica(pick, scene).await;
        let replica = &mut self.replicas[at];
        let pid = replica.pid();
        scene.struck(format!("SIGKILL to {} ({jobs})", replica.name()));
        replica.kill().await;
        sleep(RESTART_AFTER).await;
        replica.start_again()?;
        Ok(pid.into_iter().collect())
    }

    async fn freeze_replica(&mut self, pick: u64, scene: &Scene) -> anyhow::Result<Gone> {
        let (at, jobs) = self.replica(pick, scene).await;
        let name = self.replicas[at].name();
        scene.struck(format!("SIGSTOP to {name} ({jobs})"));
        self.replicas[at].signal(Signal::STOP)?;
        let until = Instant::now() + GIVEN_UP_WITHIN;
        let others = self.replicas.len() - 1;
        loop {
            let seen = self.statuses().await;
            let given_up = seen.iter().all(|status| status.peers.iter().all(|peer| peer.as_str() != name));
            if seen.len() == others && given_up || Instant::now() > until {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        self.replicas[at].signal(Signal::CONT)?;
        Ok(Gone::new())
    }

    /// Ends a replica in order, and starts it again.
    async fn drain(&mut self, at: usize, rung: Rung, scene: &Scene) -> anyhow::Result<Gone> {
        let replica = &mut self.replicas[at];
        let pid = replica.pid();
        replica.signal(Signal::TERM)?;
        match replica.exit(DRAINED_WITHIN).await? {
            Some(status) if status.success() => {}
            Some(status) => scene.unmet(rung, format!("{} ended with {status} after a SIGTERM", replica.name())),
            None => {
                let within = DRAINED_WITHIN.as_secs();
                scene.unmet(rung, format!("{} did not end within {within} s of a SIGTERM", replica.name()));
                replica.kill().await;
            }
        }
        replica.start_again()?;
        Ok(pid.into_iter().collect())
    }

    async fn roll(&mut self, scene: &Scene) -> anyhow::Result<Gone> {
        scene.struck("SIGTERM to every replica in turn".to_owned());
        for at in 0..self.replicas.len() {
            let gone = self.drain(at, Rung::RollingRestart, scene).await?;
            // A roll-out goes on when this one is ready again; if it never is, that is told of the whole rung.
            let _ = self.whole(&gone).await;
        }
        Ok(Gone::new())
    }

    async fn hit_broker(&mut self, rung: Rung, pick: u64, scene: &Scene) -> anyhow::Result<Gone> {
        let at = if rung == Rung::LeaderKill {
            let leader = self.stream(stream::LOG).await.context("ask for the leader")?;
            let leader = leader["cluster"]["leader"].as_str().context("the log has no leader")?;
            self.ground.brokers.named(leader).context("the leader is none of ours")?
        } else {
            usize::try_from(pick % self.ground.brokers.len() as u64)?
        };
        let broker = self.ground.brokers.name(at).to_owned();
        if rung == Rung::BrokerStop {
            scene.struck(format!("SIGTERM to {broker}"));
            self.ground.brokers.stop(at).await?;
        } else {
            let leads = if rung == Rung::LeaderKill { ", which leads the token log" } else { "" };
            scene.struck(format!("SIGKILL to {broker}{leads}"));
            self.ground.brokers.kill(at).await;
        }
        sleep(RESTART_AFTER).await;
        self.ground.brokers.start_again(at).await?;
        Ok(Gone::new())
    }

    async fn hit_link(&self, rung: Rung, pick: u64, scene: &Scene) -> anyhow::Result<Gone> {
        let (at, jobs) = self.replica(pick, scene).await;
        let who = format!("{} ({jobs})", self.replicas[at].name());
        let link = &self.links.replicas[at];
        let slow = Path::Slow(SLOW_BY);
        let (what, out, back, time) = match rung {
            Rung::LinkDelay => (format!("100 ms each way for {who}"), slow, slow, SLOW_FOR),
            Rung::LinkStall => (format!("no byte to or from {who}"), Path::Shut, Path::Shut, STALL_FOR),
            Rung::PartitionOut => (format!("no byte from {who}"), Path::Shut, Path::Open, CUT_FOR),
            Rung::PartitionIn => (format!("no byte to {who}"), Path::Open, Path::Shut, CUT_FOR),
            Rung::Partition => (format!("{who} is cut off"), Path::Shut, Path::Shut, CUT_FOR),
            _ => {
                scene.struck(format!("RST to every connection of {who}"));
                link.reset();
                return Ok(Gone::new());
            }
        };
        scene.struck(what);
        link.set(out, back);
        sleep(time).await;
        link.set(Path::Open, Path::Open);
        Ok(Gone::new())
    }

    async fn several(&mut self, pick: u64, scene: &Scene) -> anyhow::Result<Gone> {
        let (at, jobs) = self.replica(pick, scene).await;
        let worker =
            self.worker(pick, scene, |replica| replica != at).await.context("no worker could be found to be hit")?;
        let broker = usize::try_from((pick >> 8) % self.ground.brokers.len() as u64)?;
        let replica = &mut self.replicas[at];
        let mut gone = Gone::from([worker.pid]);
        gone.extend(replica.pid());
        scene.struck(format!(
            "SIGKILL to {} ({jobs}), {} and {}",
            replica.name(),
            worker.what,
            self.ground.brokers.name(broker)
        ));
        kill(worker.pid, Signal::KILL)?;
        replica.signal(Signal::KILL)?;
        self.ground.brokers.kill(broker).await;
        replica.kill().await;
        sleep(RESTART_AFTER).await;
        self.ground.brokers.start_again(broker).await?;
        self.replicas[at].start_again()?;
        Ok(gone)
    }

    async fn delete_consumer(&self, scene: &Scene) -> anyhow::Result<Gone> {
        let nats = self.observer.nats();
        let seen = self.statuses().await;
        let model = seen.iter().find_map(|status| status.models.first()).context("no replica says what it runs")?;
        let call = format!("$JS.API.CONSUMER.DELETE.{}.{}", stream::JOBS, model.token);
        scene.struck(format!("the consumer {} of {} is deleted", model.token, stream::JOBS));
        let told: serde_json::Value = serde_json::from_slice(&nats.request(call, "".into()).await?.payload)?;
        if told["success"] != true {
            bail!("the consumer could not be deleted: {told}");
        }
        Ok(Gone::new())
    }

    /// Kills whoever computes one job until it is given up.
    async fn poison(&self, scene: &Scene) -> anyhow::Result<Gone> {
        let Some(job) = scene.poisoned_job(QUARANTINED_WITHIN).await else {
            scene.not_done(Rung::Poison, "the job that was to be quarantined did not begin".to_owned());
            return Ok(Gone::new());
        };
        scene.struck(format!("SIGKILL to whichever worker computes the job {job}"));
        let until = Instant::now() + QUARANTINED_WITHIN;
        let mut gone = Gone::new();
        while !scene.poisoned_is_over() {
            if let Some(pid) = self.worker_of(&job).await.filter(|pid| !gone.contains(pid)) {
                if gone.len() == POISON_KILLS_MAX {
                    bail!("the job {job} cost {POISON_KILLS_MAX} workers and was not quarantined");
                }
                // One that has died of something else meanwhile is gone all the same.
                let _ = kill(pid, Signal::KILL);
                gone.insert(pid);
            }
            if Instant::now() > until {
                scene.unmet(Rung::Poison, format!("the job {job} cost {} workers and has no end", gone.len()));
                break;
            }
            sleep(LOOK_EVERY / 10).await;
        }
        scene.judge_poison(&job, gone.len()).await;
        Ok(gone)
    }
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::KILL => "SIGKILL",
        Signal::STOP => "SIGSTOP",
        Signal::ABORT => "SIGABRT",
        _ => "a signal",
    }
}
