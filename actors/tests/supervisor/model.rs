//! OTP's supervisor written down naively: it blocks. One message of its mailbox after the other, and inside a start or
//! a stop it does nothing but wait, while the mailbox fills. No queue of operations, no effects; time is a number.
//! Written after the text of `supervisor(3)` and the rules of back-off, not after the core.

use std::collections::VecDeque;
use std::time::Duration;

use halm_actors::supervisor::core::KILL_WAIT_MAX;
use halm_actors::supervisor::{AutoShutdown, ChildId, ExitReason, Hook, Policy, Restart, Shutdown, Strategy};

use crate::script::{Arrival, Behaviour, OnStart, OnStop, Script};

#[derive(Clone, Debug, PartialEq)]
enum Pid {
    Undefined,
    Restarting,
    Starting,
    Cancelling { timed_out: bool },
    Alive { since: Duration },
    Dead { reason: ExitReason, lived: Duration },
    Asked,
    Killed { late: Option<bool> },
}

#[derive(Clone, Debug)]
struct MChild {
    key: usize,
    policy: Policy,
    pid: Pid,
    on: Option<(OnStart, OnStop)>,
    why_not_started: Option<ExitReason>,
    restarts: u64,
    failures: u32,
}

#[derive(Clone, Debug)]
enum Mail {
    Exit(usize),
    Retry(usize),
    Call(u64, Arrival),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Alarm {
    Start,
    Stop,
    Kill,
    Retry,
}

/// Unwinds whatever the supervisor is doing: it shall end.
struct End(String);
type Flow = Result<(), End>;

pub(crate) struct Model<'a> {
    script: &'a Script,
    now: Duration,
    pub(crate) log: Vec<String>,
    /// In start order.
    children: Vec<MChild>,
    mailbox: VecDeque<Mail>,
    arrivals: VecDeque<Arrival>,
    outstanding: VecDeque<usize>,
    /// Due, number, whose, what.
    alarms: Vec<(Duration, u64, usize, Alarm)>,
    alarms_total: u64,
    orders: usize,
    /// Entries of the table so far.
    rows: usize,
    /// Children asked for so far, which number the dynamic ones.
    keys: usize,
    calls: u64,
    current_call: Option<u64>,
    restarts_at: Vec<Duration>,
    /// From when to when somebody was waiting for a restart; open while the end is `None`.
    waits: Vec<(usize, Duration, Option<Duration>)>,
    restarts_total: u64,
    ending: bool,
    ended: bool,
}

impl<'a> Model<'a> {
    pub(crate) fn new(script: &'a Script) -> Self {
        let mut model = Self {
            script,
            now: Duration::ZERO,
            log: Vec::new(),
            children: Vec::new(),
            mailbox: VecDeque::new(),
            arrivals: VecDeque::new(),
            outstanding: VecDeque::new(),
            alarms: Vec::new(),
            alarms_total: 0,
            orders: 0,
            rows: script.children.len(),
            keys: script.children.len(),
            calls: 0,
            current_call: None,
            restarts_at: Vec::new(),
            waits: Vec::new(),
            restarts_total: 0,
            ending: false,
            ended: false,
        };
        if !model.is_dynamic() {
            for (key, policy) in script.children.iter().enumerate() {
                model.children.push(MChild::new(key, policy.clone()));
            }
        }
        model
    }

    pub(crate) fn boot(&mut self) {
        let flow = self.start_first_children();
        self.after(flow);
        self.work();
    }

    pub(crate) fn wait(&mut self, wait: Duration) {
        if self.ended {
            return;
        }
        let until = self.now + wait;
        while self.next_alarm().is_some_and(|at| self.alarms[at].0 <= until) {
            self.ring();
            self.work();
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival) {
        if self.ended {
            return;
        }
        self.arrivals.push_back(arrival);
        self.work();
    }

    pub(crate) fn table(&self) -> Vec<String> {
        let shown = |pid: &Pid| match pid {
            Pid::Undefined => "stopped",
            Pid::Restarting | Pid::Dead { .. } => "restarting",
            Pid::Starting => "starting",
            Pid::Alive { .. } => "running",
            Pid::Cancelling { .. } | Pid::Asked | Pid::Killed { .. } => "stopping",
        };
        let line = |child: &MChild| format!("{} {} {}", child.policy.id, shown(&child.pid), child.restarts);
        self.children.iter().map(line).collect()
    }

    fn is_dynamic(&self) -> bool {
        self.script.settings.strategy == Strategy::Dynamic
    }

    /// The receive loop.
    fn work(&mut self) {
        loop {
            let flow = self.take_arrivals();
            self.after(flow);
            if self.ended {
                self.arrivals.clear();
                return;
            }
            let Some(mail) = self.mailbox.pop_front() else {
                if self.arrivals.is_empty() {
                    return;
                }
                continue;
            };
            let flow = match mail {
                Mail::Exit(key) => self.child_died(key),
                Mail::Retry(key) => self.retry(key),
                Mail::Call(call, change) => self.call(call, change),
            };
            self.after(flow);
        }
    }

    /// If it shall end, it ends: all children, last first.
    fn after(&mut self, flow: Flow) {
        let Err(End(why)) = flow else { return };
        self.ending = true;
        if let Some(call) = self.current_call.take() {
            self.reply(call, "the supervisor is shutting down");
        }
        for mail in std::mem::take(&mut self.mailbox) {
            if let Mail::Call(call, _) = mail {
                self.reply(call, "the supervisor is shutting down");
            }
        }
        let keys: Vec<usize> = self.children.iter().rev().map(|child| child.key).collect();
        if self.is_dynamic() {
            for key in &keys {
                self.ask(*key);
            }
        }
        for key in keys {
            if !self.is_dynamic() {
                self.ask(key);
            }
            if self.is_moving(key) {
                let _ = self.take_arrivals();
            }
            self.wait_for(key);
        }
        self.ended = true;
        self.log.push(format!("end {why}"));
    }

    fn start_first_children(&mut self) -> Flow {
        for key in self.children.iter().map(|child| child.key).collect::<Vec<_>>() {
            if let Err(reason) = self.start(key)? {
                let id = self.child(key).policy.id.clone();
                self.report(key, "abort_start", &reason);
                return Err(End(format!("start {id} {reason}")));
            }
        }
        self.log.push("booted".to_owned());
        Ok(())
    }

    // What a child's death means.

    fn child_died(&mut self, key: usize) -> Flow {
        let Some(child) = self.find(key) else { return Ok(()) };
        let Pid::Dead { reason, lived } = child.pid.clone() else { return Ok(()) };
        let policy = child.policy.clone();
        let abnormal = !matches!(reason, ExitReason::Normal | ExitReason::Shutdown { .. });
        match policy.restart {
            Restart::Permanent => return self.restart(key, reason, Some(lived)),
            Restart::Transient if abnormal => return self.restart(key, reason, Some(lived)),
            Restart::Transient | Restart::Temporary => {}
        }
        if abnormal {
            self.report(key, "forget", &reason);
        }
        self.set_down(key);
        let enough = match self.script.settings.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => policy.significant,
            AutoShutdown::AllSignificant => {
                // A child that is down because its group waits for its restart has not ended by itself.
                let waiting = self.children.iter().filter(|child| child.pid == Pid::Restarting);
                let due: Vec<usize> = waiting.flat_map(|child| self.group(child.key)).collect();
                let left = |child: &MChild| {
                    child.policy.significant && (child.pid != Pid::Undefined || due.contains(&child.key))
                };
                policy.significant && !self.children.iter().any(left)
            }
        };
        if enough { Err(End(format!("auto {} {reason}", policy.id))) } else { Ok(()) }
    }

    fn restart(&mut self, key: usize, reason: ExitReason, lived: Option<Duration>) -> Flow {
        if !self.add_restart() {
            let id = self.child(key).policy.id.clone();
            self.report(key, "escalate", &reason);
            self.set_down(key);
            return Err(End(format!("intensity {id} {reason}")));
        }
        let backoff = self.script.settings.backoff;
        let (seed, number, now) = (self.script.seed, self.restarts_total, self.now);
        self.restarts_total += 1;
        let child = self.child(key);
        if lived.is_some_and(|lived| lived >= backoff.reset_after) {
            child.failures = 0;
        }
        child.failures += 1;
        let delay = backoff.delay(child.failures, seed, number);
        let id = child.policy.id.clone();
        self.report(key, "restart", &reason);
        self.log.push(format!("delay {id} {delay:?}"));
        let child = self.child(key);
        child.restarts += 1;
        child.pid = Pid::Restarting;
        self.waits.push((key, now, None));
        self.stop_the_others(key)?;
        if !delay.is_zero() {
            self.set_alarm(key, Alarm::Retry, delay);
        } else if lived.is_none() {
            self.mailbox.push_back(Mail::Retry(key));
        } else {
            return self.retry(key);
        }
        Ok(())
    }

    fn retry(&mut self, key: usize) -> Flow {
        let waits_anew = self.alarms.iter().any(|(_, _, whose, alarm)| *whose == key && *alarm == Alarm::Retry);
        if waits_anew || self.find(key).is_none_or(|child| child.pid != Pid::Restarting) {
            return Ok(());
        }
        let members = self.group(key);
        self.stop_the_others(key)?;
        for member in members {
            let down = |child: &MChild| matches!(child.pid, Pid::Undefined | Pid::Restarting);
            if self.find(member).is_some_and(down)
                && let Err(reason) = self.start(member)?
            {
                return self.restart(member, reason, None);
            }
        }
        Ok(())
    }

    fn group(&self, key: usize) -> Vec<usize> {
        let keys: Vec<usize> = self.children.iter().map(|child| child.key).collect();
        match self.script.settings.strategy {
            Strategy::OneForOne | Strategy::Dynamic => vec![key],
            Strategy::OneForAll => keys,
            Strategy::RestForOne => keys.into_iter().skip_while(|other| *other != key).collect(),
        }
    }

    fn stop_the_others(&mut self, key: usize) -> Flow {
        for other in self.group(key).into_iter().rev().filter(|other| *other != key) {
            self.stop(other)?;
        }
        Ok(())
    }

    /// Restarts in the period, time in which somebody waited for a restart left out.
    fn add_restart(&mut self) -> bool {
        self.restarts_at.push(self.now);
        let recent = self.restarts_at.iter().filter(|at| self.counted(**at) <= self.script.settings.intensity.period);
        recent.count() <= usize::try_from(self.script.settings.intensity.restarts_max).expect("few")
    }

    /// The time since `from` in which nobody waited for a restart, by the millionth of a second that ends a wait.
    fn counted(&self, from: Duration) -> Duration {
        let mut waits: Vec<(Duration, Duration)> = self
            .waits
            .iter()
            .map(|(_, start, end)| ((*start).max(from), end.unwrap_or(self.now)))
            .filter(|(start, end)| start < end)
            .collect();
        waits.sort();
        let (mut waited, mut covered) = (Duration::ZERO, from);
        for (start, end) in waits {
            waited += end.saturating_sub(start.max(covered));
            covered = covered.max(end);
        }
        self.now - from - waited
    }

    // Calls.

    fn call(&mut self, call: u64, change: Arrival) -> Flow {
        self.current_call = Some(call);
        let answer = match change {
            Arrival::Start(policy) => self.start_child(policy)?,
            Arrival::Terminate(id) => match self.find_id(&id) {
                None => format!("child {id} is not in the table"),
                Some(key) => {
                    self.stop(key)?;
                    "Terminated".to_owned()
                }
            },
            Arrival::Restart(_) | Arrival::Delete(_) if self.is_dynamic() => {
                "a dynamic supervisor does not keep the specifications of its children".to_owned()
            }
            Arrival::Restart(id) => match self.stopped_child(&id) {
                Err(refusal) => refusal,
                Ok(key) => match self.start(key)? {
                    Ok(()) => "Started".to_owned(),
                    Err(reason) => {
                        self.report(key, "refuse", &reason);
                        format!("child {id} failed to start: {reason}")
                    }
                },
            },
            Arrival::Delete(id) => match self.stopped_child(&id) {
                Err(refusal) => refusal,
                Ok(key) => {
                    self.children.retain(|child| child.key != key);
                    "Deleted".to_owned()
                }
            },
            Arrival::Nothing | Arrival::Exit(..) | Arrival::Stop | Arrival::In(..) => unreachable!("not calls"),
        };
        self.current_call = None;
        self.reply(call, &answer);
        Ok(())
    }

    fn start_child(&mut self, policy: Policy) -> Result<String, End> {
        let id = policy.id.clone();
        if let Some(old) = self.find_id(&id) {
            return Ok(match self.child(old).pid {
                Pid::Undefined | Pid::Restarting => format!("child {id} is present already: restart it or delete it"),
                _ => format!("child {id} is started already"),
            });
        }
        let key = self.rows;
        self.rows += 1;
        self.children.push(MChild::new(key, policy));
        Ok(match self.start(key)? {
            Ok(()) => "Started".to_owned(),
            Err(reason) => {
                self.report(key, "refuse", &reason);
                self.children.retain(|child| child.key != key);
                format!("child {id} failed to start: {reason}")
            }
        })
    }

    fn stopped_child(&mut self, id: &ChildId) -> Result<usize, String> {
        let key = self.find_id(id).ok_or_else(|| format!("child {id} is not in the table"))?;
        match self.child(key).pid {
            Pid::Undefined => Ok(key),
            Pid::Restarting => Err(format!("child {id} is about to be restarted: terminate it first")),
            _ => Err(format!("child {id} is running: terminate it first")),
        }
    }

    // Starting and stopping one child, blocking.

    fn start(&mut self, key: usize) -> Result<Result<(), ExitReason>, End> {
        self.end_wait(key);
        self.alarms.retain(|(_, _, whose, alarm)| *whose != key || *alarm != Alarm::Retry);
        self.flush(key);
        let id = self.child(key).policy.id.clone();
        let behaviour = self.order(key, format!("start {id}"));
        let child = self.child(key);
        child.pid = Pid::Starting;
        child.on = Some((behaviour.start, behaviour.stop));
        if let Some(limit) = child.policy.start_timeout {
            self.set_alarm(key, Alarm::Start, limit);
        }
        self.take_arrivals()?;
        self.wait_for(key);
        let child = self.child(key);
        Ok(match child.pid {
            Pid::Undefined => Err(child.why_not_started.take().expect("a failed start has a reason")),
            _ => Ok(()),
        })
    }

    fn stop(&mut self, key: usize) -> Flow {
        self.ask(key);
        if self.is_moving(key) {
            self.take_arrivals()?;
        }
        self.wait_for(key);
        Ok(())
    }

    /// Orders a child to stop, in whatever state it is.
    fn ask(&mut self, key: usize) {
        let Some(child) = self.find(key) else { return };
        let (id, shutdown) = (child.policy.id.clone(), child.policy.shutdown);
        match child.pid.clone() {
            Pid::Undefined => {}
            Pid::Restarting => {
                self.end_wait(key);
                self.alarms.retain(|(_, _, whose, _)| *whose != key);
                self.flush(key);
                self.set_down(key);
            }
            Pid::Starting => self.cancel(key, false),
            Pid::Cancelling { .. } => self.child(key).pid = Pid::Cancelling { timed_out: false },
            Pid::Killed { late: Some(_) } => self.child(key).pid = Pid::Killed { late: Some(false) },
            Pid::Asked | Pid::Killed { late: None } => {}
            Pid::Dead { reason, .. } => {
                self.flush(key);
                self.down(key, reason);
            }
            Pid::Alive { .. } => {
                let (pid, word, alarm, after) = match shutdown {
                    Shutdown::Brutal => (Pid::Killed { late: None }, "kill", Alarm::Kill, Some(KILL_WAIT_MAX)),
                    Shutdown::Timeout(limit) => (Pid::Asked, "ask", Alarm::Stop, Some(limit)),
                    Shutdown::Infinity => (Pid::Asked, "ask", Alarm::Stop, None),
                };
                let behaviour = self.order(key, format!("{word} {id}"));
                let child = self.child(key);
                child.pid = pid;
                child.on = child.on.map(|(start, _)| (start, behaviour.stop));
                if let Some(after) = after {
                    self.set_alarm(key, alarm, after);
                }
            }
        }
    }

    /// What the mailbox still holds about a child's last incarnation is not about the next.
    fn flush(&mut self, key: usize) {
        self.mailbox.retain(|mail| !matches!(mail, Mail::Exit(other) | Mail::Retry(other) if *other == key));
    }

    fn wait_for(&mut self, key: usize) {
        while self.is_moving(key) {
            self.step();
        }
        self.forget_settled_orders();
    }

    fn is_moving(&self, key: usize) -> bool {
        self.find(key).is_some_and(|child| {
            matches!(child.pid, Pid::Starting | Pid::Cancelling { .. } | Pid::Asked | Pid::Killed { .. })
        })
    }

    /// Orders that need no answer any more are not waited for.
    fn forget_settled_orders(&mut self) {
        while let Some(front) = self.outstanding.front().copied() {
            let settled = self.find(front).is_none_or(|child| {
                matches!(child.pid, Pid::Undefined | Pid::Restarting | Pid::Alive { .. } | Pid::Dead { .. })
            });
            if !settled {
                return;
            }
            self.outstanding.pop_front();
        }
    }

    /// The child with the oldest order makes one step.
    fn step(&mut self) {
        self.forget_settled_orders();
        let key = *self.outstanding.front().expect("somebody is waited for");
        let child = self.child(key);
        let (on_start, on_stop) = child.on.expect("an order came with a behaviour");
        let (id, shutdown, limited) =
            (child.policy.id.clone(), child.policy.shutdown, child.policy.start_timeout.is_some());
        match child.pid.clone() {
            Pid::Starting => match on_start {
                OnStart::Fails => {
                    self.log.push(format!("fail {id}"));
                    let reason = ExitReason::Failed { hook: Hook::PreStart, message: "no luck".to_owned() };
                    self.not_started(key, Some(reason));
                }
                OnStart::Succeeds | OnStart::DiesAtOnce => self.up(key),
                OnStart::Hangs | OnStart::SucceedsLate | OnStart::HangsForGood if limited => self.ring(),
                OnStart::Hangs | OnStart::SucceedsLate | OnStart::HangsForGood => self.up(key),
            },
            Pid::Cancelling { timed_out } => match on_start {
                OnStart::HangsForGood => self.ring(),
                OnStart::SucceedsLate => {
                    self.log.push(format!("up {id}"));
                    self.log.push(format!("kill {id}"));
                    self.child(key).pid = Pid::Killed { late: Some(timed_out) };
                }
                OnStart::Succeeds | OnStart::Fails | OnStart::DiesAtOnce | OnStart::Hangs => {
                    self.log.push(format!("fail {id}"));
                    self.cancelled(key, timed_out);
                }
            },
            Pid::Asked => match on_stop {
                OnStop::Panics => {
                    self.log.push(format!("down {id}"));
                    self.down(key, ExitReason::Panicked { hook: Hook::PostStop, message: "bang".to_owned() });
                }
                OnStop::Ignores | OnStop::Unkillable if shutdown != Shutdown::Infinity => self.ring(),
                OnStop::Obeys | OnStop::Ignores | OnStop::Unkillable => {
                    self.log.push(format!("down {id}"));
                    self.down(key, ExitReason::Shutdown { detail: None });
                }
            },
            Pid::Killed { late } => match (on_stop, late) {
                (OnStop::Unkillable, _) => self.ring(),
                (_, Some(timed_out)) => {
                    self.log.push(format!("down {id}"));
                    self.cancelled(key, timed_out);
                }
                (_, None) => {
                    self.log.push(format!("down {id}"));
                    self.down(key, ExitReason::Killed);
                }
            },
            Pid::Undefined | Pid::Restarting | Pid::Alive { .. } | Pid::Dead { .. } => unreachable!("settled"),
        }
    }

    fn up(&mut self, key: usize) {
        self.quiet(key);
        let since = self.now;
        let child = self.child(key);
        child.pid = Pid::Alive { since };
        let line = format!("up {}", child.policy.id);
        self.log.push(line);
    }

    fn cancel(&mut self, key: usize, timed_out: bool) {
        self.quiet(key);
        let child = self.child(key);
        child.pid = Pid::Cancelling { timed_out };
        let line = format!("cancel {}", child.policy.id);
        self.log.push(line);
        self.set_alarm(key, Alarm::Kill, KILL_WAIT_MAX);
    }

    fn cancelled(&mut self, key: usize, timed_out: bool) {
        let after = self.child(key).policy.start_timeout.unwrap_or_default();
        self.not_started(key, timed_out.then_some(ExitReason::StartTimedOut { after }));
    }

    fn not_started(&mut self, key: usize, reason: Option<ExitReason>) {
        self.quiet(key);
        match reason {
            Some(reason) if !self.ending => {
                let child = self.child(key);
                child.pid = Pid::Undefined;
                child.why_not_started = Some(reason);
            }
            _ => self.set_down(key),
        }
    }

    /// A child that was stopped is down; an end that is none of the wanted ones is reported.
    fn down(&mut self, key: usize, reason: ExitReason) {
        self.quiet(key);
        let policy = &self.child(key).policy;
        let fine = match &reason {
            ExitReason::Shutdown { detail: None } if policy.shutdown != Shutdown::Brutal => true,
            ExitReason::Shutdown { .. } | ExitReason::Normal => policy.restart != Restart::Permanent,
            ExitReason::Killed => policy.shutdown == Shutdown::Brutal,
            _ => false,
        };
        if !fine {
            self.report(key, "was_stopping", &reason);
        }
        self.set_down(key);
    }

    fn set_down(&mut self, key: usize) {
        self.child(key).pid = Pid::Undefined;
        if self.is_dynamic() || self.child(key).policy.restart == Restart::Temporary {
            self.children.retain(|child| child.key != key);
        }
    }

    // The world around it.

    fn order(&mut self, key: usize, line: String) -> &'a Behaviour {
        let behaviour = self.script.behaviour(self.orders);
        self.orders += 1;
        self.log.push(line);
        self.outstanding.push_back(key);
        self.arrivals.extend(behaviour.meanwhile.iter().cloned());
        behaviour
    }

    fn take_arrivals(&mut self) -> Flow {
        while let Some(arrival) = self.arrivals.pop_front() {
            match arrival {
                Arrival::Nothing => {}
                Arrival::Stop => {
                    self.log.push("stop requested".to_owned());
                    if !self.ending {
                        return Err(End("stopped".to_owned()));
                    }
                }
                Arrival::Exit(place, reason) => {
                    let now = self.now;
                    let Some(child) = self.children.get_mut(place) else { continue };
                    let Pid::Alive { since } = child.pid else { continue };
                    child.pid = Pid::Dead { reason, lived: now - since };
                    let (line, key) = (format!("down {}", child.policy.id), child.key);
                    self.log.push(line);
                    self.mailbox.push_back(Mail::Exit(key));
                }
                call => self.take_call(call),
            }
        }
        Ok(())
    }

    fn take_call(&mut self, call: Arrival) {
        let number = self.calls;
        self.calls += 1;
        let by_place = |id: ChildId| {
            let place = usize::from(id.as_str().as_bytes()[0] - b'a');
            match self.children.get(place) {
                Some(child) if self.is_dynamic() => child.policy.id.clone(),
                _ => id,
            }
        };
        let call = match call {
            Arrival::Start(_) if self.is_dynamic() => {
                let mut policy = self.script.children[0].clone();
                policy.id = ChildId::try_from(self.keys.to_string().as_str()).expect("a valid id");
                self.keys += 1;
                Arrival::Start(policy)
            }
            Arrival::Terminate(id) => Arrival::Terminate(by_place(id)),
            Arrival::Restart(id) => Arrival::Restart(by_place(id)),
            Arrival::Delete(id) => Arrival::Delete(by_place(id)),
            other => other,
        };
        if self.ending {
            self.reply(number, "the supervisor is shutting down");
        } else {
            self.mailbox.push_back(Mail::Call(number, call));
        }
    }

    fn set_alarm(&mut self, key: usize, alarm: Alarm, after: Duration) {
        self.alarms.push((self.now + after, self.alarms_total, key, alarm));
        self.alarms_total += 1;
    }

    fn quiet(&mut self, key: usize) {
        self.alarms.retain(|(_, _, whose, alarm)| *whose != key || *alarm == Alarm::Retry);
    }

    fn next_alarm(&self) -> Option<usize> {
        (0..self.alarms.len()).min_by_key(|at| (self.alarms[*at].0, self.alarms[*at].1))
    }

    /// Time passes until the next alarm.
    fn ring(&mut self) {
        let at = self.next_alarm().expect("what does not end by itself has an alarm");
        let (due, _, key, alarm) = self.alarms.remove(at);
        self.now = self.now.max(due);
        let Some(child) = self.find(key) else { return };
        let id = child.policy.id.clone();
        match (alarm, child.pid.clone()) {
            (Alarm::Retry, _) => self.mailbox.push_back(Mail::Retry(key)),
            (Alarm::Start, _) => self.cancel(key, true),
            (Alarm::Stop, _) => {
                self.log.push(format!("kill {id}"));
                self.child(key).pid = Pid::Killed { late: None };
                self.set_alarm(key, Alarm::Kill, KILL_WAIT_MAX);
            }
            (Alarm::Kill, Pid::Cancelling { timed_out } | Pid::Killed { late: Some(timed_out) }) => {
                self.report(key, "abandon", &ExitReason::Unkillable);
                self.cancelled(key, timed_out);
            }
            (Alarm::Kill, _) => {
                self.report(key, "abandon", &ExitReason::Unkillable);
                self.set_down(key);
            }
        }
    }

    fn end_wait(&mut self, key: usize) {
        let now = self.now;
        for wait in self.waits.iter_mut().filter(|wait| wait.0 == key && wait.2.is_none()) {
            wait.2 = Some(now);
        }
    }

    fn find(&self, key: usize) -> Option<&MChild> {
        self.children.iter().find(|child| child.key == key)
    }

    fn find_id(&self, id: &ChildId) -> Option<usize> {
        self.children.iter().find(|child| child.policy.id == *id).map(|child| child.key)
    }

    fn child(&mut self, key: usize) -> &mut MChild {
        self.children.iter_mut().find(|child| child.key == key).expect("in the table")
    }

    fn report(&mut self, key: usize, action: &str, reason: &ExitReason) {
        let line = format!("report {} {action} {reason}", self.child(key).policy.id);
        self.log.push(line);
    }

    fn reply(&mut self, call: u64, answer: &str) {
        self.log.push(format!("reply {call} {answer}"));
    }
}

impl MChild {
    fn new(key: usize, policy: Policy) -> Self {
        Self { key, policy, pid: Pid::Undefined, on: None, why_not_started: None, restarts: 0, failures: 0 }
    }
}
