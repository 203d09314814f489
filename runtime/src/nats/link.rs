//! The connection: made once, checked, shared by all adapters.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use halm_actors::ports::{Broker, ConnectionEvent, JobStream, PortFuture};
use halm_protocol::{ModelToken, subject};
use tokio::sync::watch;

use super::streams::{self, StreamLimits};
use super::wire;

/// The oldest server that can do what is needed: `Nats-Expected-Last-Subject-Sequence-Subject` and `Nats-TTL`.
pub const SERVER_VERSION_MIN: (u32, u32, u32) = (2, 11, 0);

/// A server that accepts and says nothing is given this long.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The longest pause between two tries to reconnect: it is part of the gap that a client sees.
const RECONNECT_AFTER_MAX: Duration = Duration::from_millis(250);
/// A longer user name would leave an inbox too little room for its own token.
const USER_TOKEN_BYTES_MAX: usize = 64;
/// Silence after which the client library asks whether the server still lives.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How to prove who we are. The names are those of the `nats` command line.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A credentials file (JWT and seed).
    pub creds: Option<PathBuf>,
    /// User name.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<String>,
    /// A file that holds it, read at each connect: a secret that a container is given.
    pub password_file: Option<PathBuf>,
    /// A file with an NKey seed.
    pub nkey: Option<PathBuf>,
    /// A token.
    pub token: Option<String>,
    /// A certificate authority to trust, beside the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct LinkSpec {
    /// `nats://host:port`, several separated by commas.
    pub url: String,
    /// How to prove who we are.
    pub credentials: Credentials,
    /// How the server's operator sees us.
    pub name: String,
    /// Bounds and copies of the streams.
    pub limits: StreamLimits,
    /// Whose consumers must be there.
    pub models: Vec<ModelToken>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// Nobody listens there.
    #[error("no server answers at {url}: {cause}; start one, or set NATS_URL or --nats to where it is")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system said.
        cause: String,
    },
    /// Somebody listens and does not speak.
    #[error("the server at {url} accepted the connection and did not answer within {} s; is it a NATS server?", CONNECT_WITHIN.as_secs())]
    Silent {
        /// Where.
        url: String,
    },
    /// We are not let in.
    #[error(
        "the server at {url} refused the credentials; check NATS_USER and NATS_PASSWORD, NATS_CREDS, NATS_NKEY or NATS_TOKEN"
    )]
    Unauthorized {
        /// Where.
        url: String,
    },
    /// A file of the credentials cannot be used.
    #[error("the file {} cannot be used: {cause}", path.display())]
    CredentialsFile {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// TLS does not come about.
    #[error("no TLS connection to {url}: {cause}; check NATS_CA, NATS_CERT and NATS_KEY")]
    Tls {
        /// Where.
        url: String,
        /// What the library said.
        cause: String,
    },
    /// Half of a pair was given.
    #[error("{given} is set and {missing} is not; set both or neither")]
    HalfAPair {
        /// What there is.
        given: &'static str,
        /// What there is not.
        missing: &'static str,
    },
    /// The server cannot say whether it keeps anything.
    #[error(
        "the server at {url} does not say whether it has JetStream: {cause}; a cluster that has no leader yet, or a user who may not ask, looks like this"
    )]
    JetStreamUnknown {
        /// Where.
        url: String,
        /// What it said.
        cause: String,
    },
    /// The server lacks what is needed.
    #[error("the server at {url} is nats-server {version}; halm needs {}.{}.{} or newer", SERVER_VERSION_MIN.0, SERVER_VERSION_MIN.1, SERVER_VERSION_MIN.2)]
    TooOld {
        /// Where.
        url: String,
        /// What it says it is.
        version: String,
    },
    /// The server keeps nothing.
    #[error("the server at {url} has no JetStream for this account; start it with `-js`, or enable it for the account")]
    NoJetStream {
        /// Where.
        url: String,
    },
    /// A stream or consumer cannot be made.
    #[error("{0}")]
    Streams(String),
}

type OnEvent = Box<dyn Fn(ConnectionEvent) + Send + Sync>;

struct Inner {
    spec: LinkSpec,
    client: OnceLock<Client>,
    /// Counts connections: whatever was asked over an earlier one gets no answer any more.
    generation: watch::Sender<u64>,
    lost: AtomicBool,
    /// Who hears of losses; a restarted connection actor replaces it.
    on_event: Mutex<Option<OnEvent>>,
}

/// A connection to the broker, shared. Clones are the same connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

impl Link {
    /// A link that is not connected yet.
    #[must_use]
    pub fn new(spec: LinkSpec) -> Self {
        let generation = watch::Sender::new(0);
        Self(Arc::new(Inner {
            spec,
            client: OnceLock::new(),
            generation,
            lost: AtomicBool::new(false),
            on_event: Mutex::new(None),
        }))
    }

    /// The client, once [`Link::connect`] has succeeded.
    ///
    /// # Errors
    /// A sentence for whoever asked too early.
    pub fn client(&self) -> Result<Client, String> {
        self.0.client.get().cloned().ok_or_else(|| "not connected yet".to_owned())
    }

    /// Changes whenever the connection is lost, and when it is back.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Which connection this is, up or not.
    #[must_use]
    pub fn connection(&self) -> u64 {
        *self.0.generation.borrow()
    }

    /// Which connection this is, if there is one in this moment.
    #[must_use]
    pub fn generation_if_up(&self) -> Option<u64> {
        let up = self.0.client.get().is_some_and(|client| client.connection_state() == State::Connected);
        up.then(|| *self.0.generation.borrow())
    }

    /// Connects and checks that the server has what a replica needs. A second call returns the connection that there is.
    ///
    /// # Errors
    /// Why there is no connection, and what to do.
    pub async fn connect(&self) -> Result<Client, ConnectFault> {
        let client = self.connect_as_client().await?;
        let url = || self.0.spec.url.clone();
        match wire::has_jetstream(&client).await {
            Ok(true) => Ok(client),
            Ok(false) => Err(ConnectFault::NoJetStream { url: url() }),
            Err(cause) => Err(ConnectFault::JetStreamUnknown { url: url(), cause }),
        }
    }

    /// Connects with a client's rights, which may be few.
    ///
    /// # Errors
    /// Why there is no connection, and what to do.
    pub async fn connect_as_client(&self) -> Result<Client, ConnectFault> {
        if let Some(client) = self.0.client.get() {
            return Ok(client.clone());
        }
        let url = self.0.spec.url.clone();
        let options = self.options().await?;
        // The library bounds the TCP connection; a server that accepts and says nothing is bounded here.
        let connecting = tokio::time::timeout(CONNECT_WITHIN, options.connect(addresses(&url)));
        let client = match connecting.await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(self.fault(&error)),
            Err(_) => return Err(ConnectFault::Silent { url }),
        };
        let version = client.server_info().version.clone();
        if parse_version(&version).is_none_or(|version| version < SERVER_VERSION_MIN) {
            return Err(ConnectFault::TooOld { url, version });
        }
        Ok(self.0.client.get_or_init(|| client).clone())
    }

    fn fault(&self, error: &async_nats::ConnectError) -> ConnectFault {
        let url = self.0.spec.url.clone();
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ConnectFault::Unauthorized { url }
            }
            ConnectErrorKind::TimedOut => ConnectFault::Silent { url },
            ConnectErrorKind::Tls => ConnectFault::Tls { url, cause: error.to_string() },
            ConnectErrorKind::ServerParse
            | ConnectErrorKind::Dns
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => ConnectFault::Unreachable { url, cause: error.to_string() },
        }
    }

    async fn options(&self) -> Result<ConnectOptions, ConnectFault> {
        let inner = Arc::downgrade(&self.0);
        let mut options = ConnectOptions::new()
            .name(&self.0.spec.name)
            .connection_timeout(CONNECT_WITHIN)
            .ping_interval(PING_EVERY)
            .max_reconnects(None)
            .reconnect_delay_callback(|tries| {
                let tries = u32::try_from(tries).unwrap_or(u32::MAX);
                Duration::from_millis(5).saturating_mul(1 << tries.min(8)).min(RECONNECT_AFTER_MAX)
            })
            .event_callback(move |event| {
                if let Some(inner) = inner.upgrade() {
                    inner.tell(&event);
                }
                async {}
            });
        let credentials = &self.0.spec.credentials;
        credentials.check_pairs()?;
        for path in [&credentials.ca, &credentials.cert, &credentials.key].into_iter().flatten() {
            read(path).await?;
        }
        if let Some(user) = &credentials.user {
            let password = credentials.secret().await?.unwrap_or_default();
            options = options.user_and_password(user.clone(), password);
            if let Some(prefix) = own_inboxes(user) {
                options = options.custom_inbox_prefix(prefix);
            }
        }
        if let Some(token) = &credentials.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &credentials.creds {
            options = options.credentials(&read(path).await?).map_err(|cause| unusable(path, cause))?;
        }
        if let Some(path) = &credentials.nkey {
            options = options.nkey(read(path).await?.trim().to_owned());
        }
        if let Some(path) = &credentials.ca {
            options = options.add_root_certificates(path.clone());
        }
        if let (Some(cert), Some(key)) = (&credentials.cert, &credentials.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options)
    }
}

impl Credentials {
    fn check_pairs(&self) -> Result<(), ConnectFault> {
        let password = self.password.is_some() || self.password_file.is_some();
        let pairs = [
            (self.user.is_some(), "NATS_USER", password, "NATS_PASSWORD"),
            (self.cert.is_some(), "NATS_CERT", self.key.is_some(), "NATS_KEY"),
        ];
        for (first, first_name, second, second_name) in pairs {
            match (first, second) {
                (true, false) => return Err(ConnectFault::HalfAPair { given: first_name, missing: second_name }),
                (false, true) => return Err(ConnectFault::HalfAPair { given: second_name, missing: first_name }),
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    /// The password, wherever it stands. One that is given outright wins.
    async fn secret(&self) -> Result<Option<String>, ConnectFault> {
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(Some(password.clone())),
            (None, Some(path)) => Ok(Some(read(path).await?.trim_end().to_owned())),
            (None, None) => Ok(None),
        }
    }
}

impl Inner {
    fn tell(&self, event: &Event) {
        let told = match event {
            // The first connection is no restoration; its event may come late.
            Event::Connected if !self.lost.swap(false, Relaxed) => return,
            Event::Connected => ConnectionEvent::Restored,
            Event::Disconnected => {
                self.lost.store(true, Relaxed);
                ConnectionEvent::Lost
            }
            Event::LameDuckMode | Event::Draining | Event::Closed | Event::SlowConsumer(_) | Event::ServerError(_) => {
                tracing::warn!(%event, "broker connection event");
                return;
            }
            Event::ClientError(_) => {
                // One for each try to reconnect.
                tracing::debug!(%event, "broker connection event");
                return;
            }
        };
        self.generation.send_modify(|generation| *generation += 1);
        if let Ok(on_event) = self.on_event.lock()
            && let Some(on_event) = on_event.as_ref()
        {
            on_event(told);
        }
    }
}

impl Broker for Link {
    fn open(&self, event: OnEvent) -> PortFuture<Result<(), String>> {
        let link = self.clone();
        Box::pin(async move {
            link.connect().await.map_err(|fault| fault.to_string())?;
            if let Ok(mut on_event) = link.0.on_event.lock() {
                *on_event = Some(event);
            }
            link.prepare().await.map(drop)
        })
    }

    fn prepare(&self) -> PortFuture<Result<JobStream, String>> {
        let link = self.clone();
        Box::pin(async move {
            let client = link.client()?;
            streams::prepare(&client, &link.0.spec.limits, &link.0.spec.models).await
        })
    }
}

fn addresses(urls: &str) -> Vec<String> {
    urls.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
}

/// Below which a user's inboxes lie, so that a server can let each user read its own and nobody else's. `None` where the
/// name can be no token of a subject; then they lie where everybody's do.
fn own_inboxes(user: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let token = !user.is_empty() && user.len() <= USER_TOKEN_BYTES_MAX && user.bytes().all(plain);
    token.then(|| format!("{}{user}", subject::INBOX_PREFIX))
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let plain = text.split(['-', '+']).next()?;
    let mut numbers = plain.split('.').map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

async fn read(path: &PathBuf) -> Result<String, ConnectFault> {
    tokio::fs::read_to_string(path).await.map_err(|cause| unusable(path, cause))
}

fn unusable(path: &std::path::Path, cause: std::io::Error) -> ConnectFault {
    ConnectFault::CredentialsFile { path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_versions_compare_as_numbers() {
        assert_eq!(parse_version("2.15.1"), Some((2, 15, 1)));
        assert_eq!(parse_version("2.12.0-RC.1"), Some((2, 12, 0)));
        assert!(parse_version("2.9.25") < Some(SERVER_VERSION_MIN));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn a_users_inboxes_are_inboxes_and_a_name_that_is_no_token_has_none() {
        let prefix = own_inboxes("halm").expect("a plain name");
        assert!(subject::Inbox::try_from(format!("{prefix}.x1.7").as_str()).is_ok(), "{prefix}");
        for name in ["", "a.b", "*", "a b", ">", &"x".repeat(65)] {
            assert_eq!(own_inboxes(name), None, "{name:?}");
        }
    }
}
