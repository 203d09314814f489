//! A link: every connection of one party to the brokers, through us, so that it can be delayed, stalled, cut or reset.
//!
//! Owns a listener for each broker and carries bytes between the two sides. It never changes a byte and never loses
//! one: what TCP would repeat after a stall, it holds. Who connects while it is cut waits, as for a SYN that gets no
//! answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::future::{LocalBoxFuture, join};
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// Read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Reads that wait for their time in one direction; more are left in the socket.
const HELD_MAX: usize = 256;

/// How bytes pass in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// At once.
    Open,
    /// Later by this much.
    Slow(Duration),
    /// Not at all, until it is open again.
    Shut,
}

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// To the brokers.
    pub(crate) out: Path,
    /// From the brokers.
    pub(crate) back: Path,
    /// Connections of an earlier number are reset.
    resets: u64,
}

/// All connections of one party.
pub(crate) struct Link {
    listeners: Vec<(TcpListener, SocketAddr)>,
    weather: watch::Sender<Weather>,
}

impl Link {
    /// Listens for each broker on a port of its own.
    pub(crate) async fn open(brokers: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut listeners = Vec::new();
        for broker in brokers {
            listeners.push((TcpListener::bind(("127.0.0.1", 0)).await.context("listen for a link")?, *broker));
        }
        let weather = watch::Sender::new(Weather { out: Path::Open, back: Path::Open, resets: 0 });
        Ok(Self { listeners, weather })
    }

    /// What the party connects to, separated by commas.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        let url = |(listener, _): &(TcpListener, SocketAddr)| Ok(format!("nats://{}", listener.local_addr()?));
        Ok(self.listeners.iter().map(url).collect::<anyhow::Result<Vec<_>>>()?.join(","))
    }

    /// From now on.
    pub(crate) fn set(&self, out: Path, back: Path) {
        self.weather.send_modify(|weather| (weather.out, weather.back) = (out, back));
    }

    /// Resets every connection that there is.
    pub(crate) fn reset(&self) {
        self.weather.send_modify(|weather| weather.resets += 1);
    }

    /// Carries bytes. Never ends by itself.
    pub(crate) async fn run(&self) {
        let mut connections: FuturesUnordered<LocalBoxFuture<'_, ()>> = FuturesUnordered::new();
        loop {
            let accepts = self.listeners.iter().map(|(listener, broker)| {
                Box::pin(async move { listener.accept().await.map(|(stream, _)| (stream, *broker)) })
            });
            tokio::select! {
                (accepted, ..) = futures_util::future::select_all(accepts) => {
                    if let Ok((stream, broker)) = accepted {
                        connections.push(Box::pin(carry(stream, broker, self.weather.subscribe())));
                    }
                }
                Some(()) = connections.next() => {}
            }
        }
    }
}

/// One connection, until either side closes it or the weather resets it.
async fn carry(mut ours: TcpStream, broker: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let resets = weather.borrow().resets;
    let open = |weather: &Weather| weather.resets != resets || weather.out != Path::Shut && weather.back != Path::Shut;
    let _ = weather.wait_for(open).await;
    let _ = ours.set_nodelay(true);
    // A broker that is down refuses, and whoever wanted it must be refused too.
    let Ok(mut theirs) = TcpStream::connect(broker).await else {
        let _ = ours.set_zero_linger();
        return;
    };
    let _ = theirs.set_nodelay(true);
    let mut reset = weather.clone();
    let hit = {
        let (our_read, our_write) = ours.split();
        let (their_read, their_write) = theirs.split();
        let out = pump(our_read, their_write, weather.clone(), |weather| weather.out);
        let back = pump(their_read, our_write, weather, |weather| weather.back);
        tokio::select! {
            _ = join(out, back) => false,
            _ = reset.wait_for(|weather| weather.resets != resets) => true,
        }
    };
    if hit {
        let _ = ours.set_zero_linger();
        let _ = theirs.set_zero_linger();
    }
}

/// One direction, until its source ends and all of it is through.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    path: impl Fn(&Weather) -> Path,
) {
    let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut ended = false;
    while !(ended && held.is_empty()) {
        let now = path(&weather.borrow_and_update());
        let due = held.front().map(|(due, _)| *due);
        tokio::select! {
            biased;
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && now != Path::Shut => {
                if let Some((_, bytes)) = held.pop_front()
                    && to.write_all(&bytes).await.is_err()
                {
                    return;
                }
            }
            read = from.read(&mut buffer), if !ended && held.len() < HELD_MAX && now != Path::Shut => {
                let Ok(count) = read else { return };
                ended = count == 0;
                let later = if let Path::Slow(by) = now { by } else { Duration::ZERO };
                if count > 0 {
                    held.push_back((Instant::now() + later, buffer[..count].to_vec()));
                }
            }
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a byte through and has it back, if it comes in time.
    async fn echo(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        stream.write_all(&[byte]).await.ok()?;
        let mut back = [0];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut back)).await;
        read.ok()?.ok().map(|_| back[0])
    }

    async fn serve_echo(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() {
                if stream.write_all(&byte).await.is_err() {
                    break;
                }
            }
        }
    }

    async fn with_link(test: impl AsyncFnOnce(&Link, String)) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let link = Link::open(&[listener.local_addr().expect("an address")]).await.expect("a link");
        let address = link.url().expect("an address").replace("nats://", "");
        tokio::select! {
            () = link.run() => {}
            () = serve_echo(listener) => {}
            () = test(&link, address) => {}
        }
    }

    #[tokio::test]
    async fn a_shut_link_holds_bytes_and_an_open_one_brings_them_all() {
        with_link(async |link, address| {
            let mut stream = TcpStream::connect(address).await.expect("a link");
            assert_eq!(echo(&mut stream, 1).await, Some(1));
            link.set(Path::Shut, Path::Open);
            assert_eq!(echo(&mut stream, 2).await, None);
            link.set(Path::Open, Path::Shut);
            assert_eq!(echo(&mut stream, 3).await, None);
            link.set(Path::Open, Path::Open);
            let mut both = [0; 2];
            stream.read_exact(&mut both).await.expect("what was held");
            assert_eq!(both, [2, 3]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_slow_link_takes_its_time_both_ways_and_a_reset_one_is_gone() {
        with_link(async |link, address| {
            let mut stream = TcpStream::connect(&address).await.expect("a link");
            link.set(Path::Slow(Duration::from_millis(40)), Path::Slow(Duration::from_millis(40)));
            assert_eq!(echo(&mut stream, 1).await, Some(1));
            let began = Instant::now();
            assert_eq!(echo(&mut stream, 2).await, Some(2));
            assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
            link.reset();
            let mut byte = [0];
            let lost = stream.read_exact(&mut byte).await.expect_err("a reset");
            assert_eq!(lost.kind(), std::io::ErrorKind::ConnectionReset);
            let mut again = TcpStream::connect(&address).await.expect("a link");
            assert_eq!(echo(&mut again, 3).await, Some(3));
        })
        .await;
    }
}
