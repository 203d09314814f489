//! INV-7: a job that kills workers ends in quarantine, no other job notices more than a pause, and people can look into
//! what happened. Real processes that really die.

use halm_protocol::{DeadLetter, ErrorCode};
use halm_tests::{BrokerOptions, Cluster, Halm, POISON, story};
use serde_json::json;

const POISONED: [(&str, &str); 1] = [("TEST_FAULT", "poison")];

/// Bystanders of one poisonous job; it shares a worker with some of them.
const BYSTANDERS: usize = 5;

async fn dead(cluster: &Cluster, arguments: &[&str]) -> halm_tests::Finished {
    let url = cluster.url();
    Halm::new([&["jobs", "dead", "--nats", &url], arguments].concat()).run().await
}

async fn letters(cluster: &Cluster) -> Vec<DeadLetter> {
    serde_json::from_str(dead(cluster, &["--json"]).await.printed()).expect("the list as JSON")
}

#[tokio::test]
async fn a_job_that_kills_workers_is_quarantined_and_its_company_reads_what_it_would_have_read() {
    let mut cluster = Cluster::configured(BrokerOptions::default(), &["one"], &POISONED).await;
    let undisturbed = cluster.ask(&story()).await;
    let bystanders: Vec<_> = (0..BYSTANDERS).map(|_| cluster.asking(&story())).collect();
    let prompt = format!("A glass of {POISON} is");
    let request = json!({ "prompt": prompt, "max_tokens": 60, "temperature": 0, "stream": true });
    let poisoned = cluster.ask(&request).await;
    assert_eq!(poisoned.broken_off().code, ErrorCode::Poison);
    for bystander in bystanders {
        bystander.transcript().await.assert_same_stream(&undisturbed);
    }
    cluster.ready().await;

    let kept = letters(&cluster).await;
    let [letter] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(letter.deaths, 3, "only what is its own doing counts");
    assert!(letter.crash_reports.len() >= 3, "{letter:?}");
    let died = |reason: &str| reason.starts_with("process killed by SIGABRT");
    assert!(letter.crash_reports.iter().all(|report| died(&report.reason)), "{letter:?}");
    assert!(
        letter.crash_reports.last().is_some_and(|report| report.reason.contains("attributed to job ")),
        "{letter:?}"
    );
    let id = letter.job.as_str();
    let list = dead(&cluster, &[]).await;
    assert!(list.printed().contains(id) && list.printed().contains(POISON), "{list:?}");
    assert!(dead(&cluster, &["show", id]).await.printed().contains("SIGABRT"));

    dead(&cluster, &["retry", id]).await.assert_refused(&["the job failed again", "quarantined"]);
    cluster.ready().await;
    assert_eq!(letters(&cluster).await.len(), 2, "the second try is a job of its own");
    for letter in letters(&cluster).await {
        dead(&cluster, &["drop", letter.job.as_str()]).await.printed();
    }
    assert_eq!(dead(&cluster, &[]).await.printed(), "no job is quarantined\n");
    dead(&cluster, &["show", id]).await.assert_refused(&[id]);
}

#[tokio::test]
async fn a_retried_job_that_is_harmless_by_now_is_answered_and_forgotten() {
    let mut cluster = Cluster::configured(BrokerOptions::default(), &["one"], &POISONED).await;
    let request = json!({ "prompt": format!("{POISON} is"), "max_tokens": 12, "temperature": 0, "stream": true });
    assert_eq!(cluster.ask(&request).await.broken_off().code, ErrorCode::Poison);
    let [letter] = &letters(&cluster).await[..] else { panic!("one letter") };
    cluster.restart_with(&[]).await;
    let answer = dead(&cluster, &["retry", letter.job.as_str()]).await;
    assert_eq!(answer.printed().trim_end(), cluster.ask(&request).await.text().trim_end());
    assert_eq!(dead(&cluster, &[]).await.printed(), "no job is quarantined\n");
}
