//! Reads a configuration: file, then environment. The flags are laid over it by the commands.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;

/// Variables of halm that are no configuration keys.
const OTHER_VARIABLES: [&str; 2] = ["HALM_CACHE", "HALM_CONFIG"];
/// The variables that the `nats` command line and OpenTelemetry use, and the keys that they set.
const FOREIGN_VARIABLES: [(&str, &str, &str); 10] = [
    ("NATS_URL", "nats", "url"),
    ("NATS_CREDS", "nats", "creds"),
    ("NATS_USER", "nats", "user"),
    ("NATS_PASSWORD", "nats", "password"),
    ("NATS_NKEY", "nats", "nkey"),
    ("NATS_TOKEN", "nats", "token"),
    ("NATS_CA", "nats", "ca"),
    ("NATS_CERT", "nats", "cert"),
    ("NATS_KEY", "nats", "key"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry", "otlp_endpoint"),
];
/// More letters wrong than this, and it is another word.
const TYPO_LETTERS_MAX: usize = 3;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {cause}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML: {cause}", path.display())]
    NotToml {
        /// Which.
        path: PathBuf,
        /// Why, and where.
        cause: String,
    },
    /// A key that there is not.
    #[error("unknown key `{key}` in {place}{}", suggestion(.nearest))]
    UnknownKey {
        /// Its full name.
        key: String,
        /// File or environment.
        place: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong kind, or out of bounds.
    #[error("{place}: {cause}")]
    WrongValue {
        /// File or environment.
        place: String,
        /// What is wrong.
        cause: String,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

/// Loads the file (if there is one) and lays the environment over it.
///
/// # Errors
/// What is wrong, where, and what was probably meant.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let known = known();
    let mut table = Table::new();
    let mut place = "the environment".to_owned();
    if let Some(path) = file {
        place = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        table = text.parse().map_err(|cause: toml::de::Error| ConfigError::NotToml {
            path: path.to_owned(),
            cause: cause.to_string(),
        })?;
        check(&table, &known, "", &place)?;
    }
    if overlay(&mut table, &known, environment)? {
        place = format!("{place} and the environment");
    }
    let config: Config = Value::Table(table)
        .try_into()
        .map_err(|cause: toml::de::Error| ConfigError::WrongValue { place: place.clone(), cause: cause.to_string() })?;
    validate(&config).map_err(|cause| ConfigError::WrongValue { place, cause })?;
    Ok(config)
}

/// The variables of this process that are text. Others cannot be ours.
#[must_use]
pub fn variables() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Every key that there is, as the defaults show it.
fn known() -> Table {
    Table::try_from(Config::default()).expect("the defaults are representable")
}

fn check(table: &Table, known: &Table, prefix: &str, place: &str) -> Result<(), ConfigError> {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        let Some(expected) = known.get(key) else {
            let nearest = nearest(key, known.keys()).map(|near| format!("{prefix}{near}"));
            return Err(ConfigError::UnknownKey { key: full, place: place.to_owned(), nearest });
        };
        match (value, expected) {
            (Value::Table(inner), Value::Table(known)) => check(inner, known, &format!("{full}."), place)?,
            (Value::Array(items), Value::Array(known)) => {
                let Some(Value::Table(known)) = known.first() else { continue };
                for item in items {
                    if let Value::Table(item) = item {
                        check(item, known, &format!("{full}."), place)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let distance = |candidate: &&String| strsim::damerau_levenshtein(key, candidate);
    known.min_by_key(distance).filter(|near| distance(near) <= TYPO_LETTERS_MAX).cloned()
}

/// `HALM_<SECTION>_<KEY>` sets `key` in `[section]`.
fn overlay(
    table: &mut Table,
    known: &Table,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<bool, ConfigError> {
    let mut changed = false;
    // Ours win over the foreign ones: they are more specific.
    let (ours, foreign): (Vec<_>, Vec<_>) = environment.into_iter().partition(|(name, _)| name.starts_with("HALM_"));
    for (name, section, key) in FOREIGN_VARIABLES {
        if let Some((_, value)) = foreign.iter().find(|(set, value)| set == name && !value.is_empty()) {
            set(table, section, key, Value::String(value.clone()));
            changed = true;
        }
    }
    let names: Vec<(String, &String, &String)> = known
        .iter()
        .filter_map(|(section, keys)| keys.as_table().map(|keys| (section, keys)))
        .flat_map(|(section, keys)| keys.keys().map(move |key| (variable(section, key), section, key)))
        .collect();
    for (name, value) in ours {
        if OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let Some((_, section, key)) = names.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<String> = names.iter().map(|(known, ..)| known.clone()).collect();
            let nearest = nearest(&name, known.iter());
            if nearest.is_none() {
                // Orchestrators make variables of services' names: HALM_SERVICE_HOST is nobody's typo.
                continue;
            }
            return Err(ConfigError::UnknownKey { key: name, place: "the environment".to_owned(), nearest });
        };
        let expected = &known[section.as_str()][key.as_str()];
        let value = typed(&value, expected).ok_or_else(|| ConfigError::WrongValue {
            place: "the environment".to_owned(),
            cause: format!("{name}={value:?} must be {}", expected.type_str()),
        })?;
        set(table, section, key, value);
        changed = true;
    }
    Ok(changed)
}

fn variable(section: &str, key: &str) -> String {
    format!("HALM_{}_{}", section.to_uppercase(), key.to_uppercase())
}

fn typed(text: &str, expected: &Value) -> Option<Value> {
    match expected {
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::String(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Some(Value::String(text.to_owned()))
        }
    }
}

fn set(table: &mut Table, section: &str, key: &str, value: Value) {
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(key.to_owned(), value);
    }
}

fn validate(config: &Config) -> Result<(), String> {
    if config.models.is_empty() {
        return Err("`models` must name one model at least".to_owned());
    }
    for model in &config.models {
        if !(1..=64).contains(&model.workers) {
            return Err(format!("`models.workers` must be 1 to 64, not {}", model.workers));
        }
        if !(1..=256).contains(&model.slots) {
            return Err(format!("`models.slots` must be 1 to 256, not {}", model.slots));
        }
        if model.context_tokens == 1 {
            return Err("`models.context_tokens` must be 2 at least, or 0".to_owned());
        }
    }
    if !(1..=5).contains(&config.nats.copies) {
        return Err(format!("`nats.copies` must be 1 to 5, not {}", config.nats.copies));
    }
    if !config.broker.listen.ip().is_loopback() {
        return Err(format!("`broker.listen` must be a loopback address, not {}", config.broker.listen));
    }
    let limits = &config.limits;
    if !(1..=24 * 60 * 60).contains(&limits.deadline_s) {
        return Err(format!("`limits.deadline_s` must be 1 to 86400, not {}", limits.deadline_s));
    }
    if limits.queue_jobs < 1 {
        return Err("`limits.queue_jobs` must be 1 at least".to_owned());
    }
    if limits.log_bytes < 1 << 20 || limits.outcome_bytes < 1 << 20 {
        return Err("`limits.log_bytes` and `limits.outcome_bytes` must be 1048576 at least".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("a write to it");
        load(Some(file.path()), environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn no_file_and_no_variables_are_the_defaults() {
        let kubernetes = [("HALM_SERVICE_HOST", "10.0.0.1"), ("HALM_PORT_4222_TCP", "tcp://x")];
        assert_eq!(of_text("", &kubernetes).expect("nobody's typo"), Config::default());
        assert_eq!(load(None, []).expect("nothing is wrong"), Config::default());
        assert_eq!(of_text("", &[]).expect("nothing is wrong"), Config::default());
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = "[replica]\nname = \"a\"\n[nats]\nurl = \"nats://x:1\"\n[[models]]\nworkers = 3\n";
        let variables = [("HALM_REPLICA_NAME", "b"), ("NATS_URL", "nats://y:2"), ("HALM_LIMITS_DEADLINE_S", "7")];
        let config = of_text(text, &variables).expect("nothing is wrong");
        assert_eq!((config.replica.name.as_str(), config.nats.url.as_str()), ("b", "nats://y:2"));
        assert_eq!((config.models[0].workers, config.limits.deadline_s), (3, 7));
        assert_eq!(config.models[0].name, "smollm2:135m");
    }

    #[test]
    fn a_typo_is_refused_and_the_nearest_key_is_named() {
        let error = |text, variables: &[(&str, &str)]| of_text(text, variables).expect_err("a typo").to_string();
        assert!(error("[replca]\n", &[]).contains("unknown key `replca`"));
        assert!(error("[replca]\n", &[]).ends_with("did you mean `replica`?"));
        assert!(error("[[models]]\nwokers = 2\n", &[]).ends_with("did you mean `models.workers`?"));
        assert!(error("", &[("HALM_REPLICA_NAM", "x")]).ends_with("did you mean `HALM_REPLICA_NAME`?"));
        assert!(error("", &[("HALM_LIMITS_DEADLINE_S", "soon")]).contains("must be integer"));
        assert!(error("[[models]]\nworkers = 0\n", &[]).contains("must be 1 to 64"));
        assert!(error("[broker]\nlisten = \"0.0.0.0:4222\"\n", &[]).contains("loopback"));
        assert!(error("models = ", &[]).contains("is not TOML"));
    }
}
