//! What one replica costs when nobody asks, and how long it takes from its start to the first token.
//!
//! Prints figures, judges nothing: `cargo bench -p halm-tests --bench footprint`.

use std::time::{Duration, Instant};

use halm_protocol::Request;
use halm_tests::{Cluster, Halm, Replica, greedy};

/// Starts that are timed.
const STARTS: usize = 3;
/// How long the replica is left alone.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// Clock ticks a second, as Linux reports processor time to user space on every architecture.
const TICKS_PER_S: f64 = 100.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let mut cluster = Cluster::start(&["idle"]).await;
    // What was fetched or read for the first time is there now.
    cluster.ask(&greedy()).await;
    cluster.replica("idle").kill9().await;
    for _ in 0..STARTS {
        let began = Instant::now();
        let mut replica = Replica::of(Halm::new(["serve", "--nats", &cluster.url(), "--name", "started"]), "started");
        let mut request = Request::prompt("The sea");
        request.stream = true;
        let mut stream = cluster.client().generate("smollm2", &request).await.expect("somebody hears");
        let first = stream.next().await.expect("an event").expect("no error");
        println!("replica started → first token: {:.2} s", began.elapsed().as_secs_f64());
        drop((first, stream));
        replica.kill9().await;
    }
    drop(cluster);

    let mut cluster = Cluster::start(&["idle"]).await;
    cluster.ask(&greedy()).await;

    let kind = |line: &str| if line.contains("--digest") { "worker" } else { "replica" };
    let processes: Vec<(&str, u32)> =
        cluster.replica("idle").process().descendants().iter().map(|(pid, line)| (kind(line), *pid)).collect();
    let before: Vec<f64> = processes.iter().map(|(_, pid)| processor_s(*pid)).collect();
    tokio::time::sleep(IDLE_FOR).await;
    let mut total = 0.0;
    for ((what, pid), before) in processes.iter().zip(before) {
        let share = 100.0 * (processor_s(*pid) - before) / IDLE_FOR.as_secs_f64();
        total += share;
        println!(
            "{what} {pid}: idle {share:.2} % of a core, RSS {} MB, of it {} MB its own",
            rss_mb(*pid),
            own_mb(*pid)
        );
    }
    println!("all processes of the replica: idle {total:.2} % of a core over {} s", IDLE_FOR.as_secs());
}

/// User and system time of a process so far, in seconds.
fn processor_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The name in parentheses may hold spaces; what follows it does not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) / TICKS_PER_S
}

fn rss_mb(pid: u32) -> u64 {
    kb_of(&format!("/proc/{pid}/status"), "VmRSS:") / 1000
}

fn own_mb(pid: u32) -> u64 {
    let file = format!("/proc/{pid}/smaps_rollup");
    (kb_of(&file, "Private_Clean:") + kb_of(&file, "Private_Dirty:")) / 1000
}

fn kb_of(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).expect("the process lives");
    let line = text.lines().find(|line| line.starts_with(name)).expect("the kernel reports it");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number of kB")
}
