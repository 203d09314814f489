//! What chaos is let loose on. A new kind of deployment is a new variant here, and nothing else knows of kinds.

use std::collections::BTreeSet;
use std::rc::Rc;

use halm_client::Client;

use super::host::{Host, Links};
use super::ladder::Rung;
use super::run::Scene;

/// A kind of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Brokers and replicas that chaos starts on this host.
    Host,
    /// A deployment that somebody else runs, and breaks.
    Outside,
}

impl Place {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Host => {
                "this host: three brokers in a cluster, three replicas with two workers each, clients over links"
            }
            Self::Outside => "outside: a deployment that somebody else runs; watched and judged, not broken",
        }
    }

    /// Why a rung cannot be done there.
    pub(crate) fn cannot(self, _rung: Rung) -> Option<&'static str> {
        match self {
            Self::Host => None,
            Self::Outside => Some("chaos breaks nothing that it has not started"),
        }
    }
}

/// A target that is there.
pub(crate) enum Target {
    Host(Box<Host>),
    /// With a client of each connection.
    Outside(Vec<Client>),
}

impl Target {
    /// The clients that are to ask, each over a connection of its own.
    pub(crate) async fn clients(&self, count: usize) -> anyhow::Result<Vec<Client>> {
        match self {
            Self::Host(host) => host.clients(count).await,
            Self::Outside(clients) => Ok(clients.clone()),
        }
    }

    /// What carries its bytes meanwhile, if chaos does.
    pub(crate) fn links(&self) -> Option<Rc<Links>> {
        match self {
            Self::Host(host) => Some(host.links()),
            Self::Outside(_) => None,
        }
    }

    /// A connection with every right, if chaos has one: the log, the outcomes and the queue can be read.
    pub(crate) fn observer(&self) -> Option<Client> {
        match self {
            Self::Host(host) => Some(host.observer().clone()),
            Self::Outside(_) => None,
        }
    }

    /// Does a rung; the processes that must be gone when all is whole again.
    ///
    /// # Errors
    /// If something that chaos itself does fails, which says nothing of halm.
    pub(crate) async fn strike(&mut self, rung: Rung, pick: u64, scene: &Scene) -> anyhow::Result<BTreeSet<u32>> {
        match self {
            Self::Host(host) => host.strike(rung, pick, scene).await,
            Self::Outside(_) => Ok(BTreeSet::new()),
        }
    }

    /// Waits until everything is as it was before; why it is not, if it does not become so.
    pub(crate) async fn whole(&mut self, gone: &BTreeSet<u32>) -> Result<(), String> {
        match self {
            Self::Host(host) => host.whole(gone).await.map_err(|error| format!("{error:#}")),
            Self::Outside(_) => Ok(()),
        }
    }

    /// What ended by itself and had to be started again, since this was asked last.
    pub(crate) fn restarted(&mut self) -> Vec<String> {
        match self {
            Self::Host(host) => host.restarted(),
            Self::Outside(_) => Vec::new(),
        }
    }

    /// Ends what was started.
    pub(crate) async fn clear(self) {
        match self {
            Self::Host(host) => host.clear().await,
            Self::Outside(_) => {}
        }
    }
}
