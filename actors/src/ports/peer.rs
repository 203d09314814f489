//! How replicas hear of each other.

use halm_protocol::{Beat, ReplicaName};

use super::PortFuture;

/// Core NATS among replicas: at most once, nothing kept.
pub trait PeerBus: Send + Sync + 'static {
    /// Sends a beat.
    fn beat(&self, beat: &Beat) -> PortFuture<()>;

    /// Hands out each beat that is heard, and answers pings, until listening ends, which is a fault.
    fn listen(&self, heard: Box<dyn Fn(Beat) + Send + Sync>) -> PortFuture<String>;

    /// Asks whether a replica is connected. `false` only if the broker itself says that nobody listens; silence within
    /// the port's own short time-out is `true`, for a frozen process is still connected.
    fn is_connected(&self, replica: &ReplicaName) -> PortFuture<bool>;
}
