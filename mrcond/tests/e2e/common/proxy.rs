//! A TCP proxy whose network can be made to fail while it runs: cuts, silence, delay, a narrow line.

use super::daemon::free_address;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

const CHUNK: usize = 16 << 10;
/// Chunks on the way: with more of them a delayed line would also be a wide buffer.
const CHUNKS_ON_THE_WAY: usize = 64;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

use Way::{ToClient, ToServer};

/// What happens to bytes that go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Line {
    #[default]
    Open,
    /// Bytes wait, as they do while packets are lost; they arrive when the line is open again.
    Silent,
    /// Bytes are thrown away. A connection that has lost some stays deaf for good, since what comes
    /// after a hole would be no protocol any more.
    Deaf,
}

/// The state of the network.
#[derive(Debug, Clone, Copy, Default)]
struct Network {
    to_server: Line,
    to_client: Line,
    /// One way.
    latency: Duration,
    /// Bytes a second each way; 0: no limit.
    rate: u64,
    /// New connections are reset at once.
    refuses: bool,
    /// Grows with every cut: connections that are older are reset.
    cuts: u64,
}

impl Network {
    fn line(&self, way: Way) -> Line {
        match way {
            ToServer => self.to_server,
            ToClient => self.to_client,
        }
    }
}

/// A proxy before one server. It has a thread of its own, so that neither a busy test nor the end of its
/// runtime shows in the network.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    network: watch::Sender<Network>,
    shared: Arc<Shared>,
    /// The thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicU64,
    /// How many more bytes may go to a client before its connection is cut; 0: any number.
    fuse: AtomicU64,
}

impl Proxy {
    pub(crate) fn before(server: SocketAddr) -> Proxy {
        let address = free_address();
        let (network, seen) = watch::channel(Network::default());
        let (alive, ended) = oneshot::channel();
        let shared = Arc::new(Shared::default());
        let listener = std::net::TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("listen at {address}: {error}"));
        let its = Arc::clone(&shared);
        thread::spawn(move || run(listener, server, seen, its, ended));
        Proxy {
            address,
            network,
            shared,
            _alive: alive,
        }
    }

    /// What an URI becomes when it leads here instead of to the server.
    pub(crate) fn uri(&self, uri: &str, server_port: u16) -> String {
        let port = format!(":{server_port}");
        assert!(uri.contains(&port), "no port {server_port} in the URI");
        uri.replace(&port, &format!(":{}", self.address.port()))
    }

    /// Everything is as it should be again.
    pub(crate) fn heal(&self) {
        self.shared.fuse.store(0, Ordering::SeqCst);
        self.network.send_modify(|network| {
            *network = Network {
                cuts: network.cuts,
                ..Network::default()
            }
        });
    }

    /// Resets every connection (RST); new ones are served.
    pub(crate) fn cut(&self) {
        self.network.send_modify(|network| network.cuts += 1);
    }

    /// Resets every connection and all new ones.
    pub(crate) fn refuse(&self) {
        self.network.send_modify(|network| {
            network.refuses = true;
            network.cuts += 1;
        });
    }

    /// Resets the connection over which the byte number `bytes` from now on goes to a client, behind that byte.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.shared.fuse.store(bytes, Ordering::SeqCst);
    }

    /// Whether the last `cut_after` has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.shared.fuse.load(Ordering::SeqCst) == 0
    }

    /// What happens to bytes that go this way.
    pub(crate) fn set(&self, way: Way, line: Line) {
        self.network.send_modify(|network| match way {
            ToServer => network.to_server = line,
            ToClient => network.to_client = line,
        });
    }

    /// Nothing arrives any more, and nobody is told.
    pub(crate) fn black_hole(&self) {
        self.set(ToServer, Line::Silent);
        self.set(ToClient, Line::Silent);
    }

    /// Delays each byte by `latency` each way, and lets `rate` bytes a second through (0: any number).
    pub(crate) fn slow_down(&self, latency: Duration, rate: u64) {
        self.network.send_modify(|network| {
            network.latency = latency;
            network.rate = rate;
        });
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn run(
    listener: std::net::TcpListener,
    server: SocketAddr,
    network: watch::Receiver<Network>,
    shared: Arc<Shared>,
    ended: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("start a proxy: {error}"));
    runtime.block_on(async {
        tokio::select! {
            () = serve(listener, server, network, shared) => {}
            _ = ended => {}
        }
    });
}

async fn serve(
    listener: std::net::TcpListener,
    server: SocketAddr,
    network: watch::Receiver<Network>,
    shared: Arc<Shared>,
) {
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
        .unwrap_or_else(|error| panic!("start a proxy: {error}"));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let _ = client.set_zero_linger();
        if network.borrow().refuses {
            continue;
        }
        let (network, shared) = (network.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // A server that is not there: what the client sees is a reset, as from its port.
            if let Ok(upstream) = TcpStream::connect(server).await {
                connection(client, upstream, network, shared).await;
            }
        });
    }
}

/// Carries bytes both ways until either side ends or the connection is cut.
async fn connection(
    mut client: TcpStream,
    mut server: TcpStream,
    network: watch::Receiver<Network>,
    shared: Arc<Shared>,
) {
    // Without lingering, dropping a socket is a reset. What was carried is in the other's kernel by then.
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
        let _ = socket.set_zero_linger();
    }
    let born = network.borrow().cuts;
    let (mut seen, blown) = (network.clone(), Notify::new());
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let line = |way| Carrier {
        way,
        network: network.clone(),
        fuse: &shared.fuse,
        blown: &blown,
    };
    let upward = line(ToServer).carry(from_client, to_server);
    let downward = line(ToClient).carry(from_server, to_client);
    tokio::select! {
        // When one side has ended, what goes the other way may still arrive.
        _ = async { tokio::join!(upward, downward) } => {}
        _ = seen.wait_for(|network| network.cuts != born) => {}
        () = blown.notified() => {}
    }
}

/// Carries bytes one way.
struct Carrier<'a> {
    way: Way,
    network: watch::Receiver<Network>,
    fuse: &'a AtomicU64,
    blown: &'a Notify,
}

impl Carrier<'_> {
    /// One half reads, the other writes what is due.
    async fn carry(self, from: ReadHalf<'_>, to: WriteHalf<'_>) {
        let (sender, receiver) = mpsc::channel(CHUNKS_ON_THE_WAY);
        tokio::join!(self.read(from, sender), self.write(to, receiver));
    }

    async fn read(&self, mut from: ReadHalf<'_>, due: mpsc::Sender<(Instant, Vec<u8>)>) {
        let (mut network, mut is_deaf) = (self.network.clone(), false);
        loop {
            let mut chunk = vec![0; CHUNK];
            let Ok(length @ 1..) = from.read(&mut chunk).await else {
                return;
            };
            chunk.truncate(length);
            let passes = |state: &Network| state.line(self.way) != Line::Silent;
            let Ok(state) = network.wait_for(passes).await.map(|state| *state) else {
                return;
            };
            is_deaf |= state.line(self.way) == Line::Deaf;
            if !is_deaf
                && due
                    .send((Instant::now() + state.latency, chunk))
                    .await
                    .is_err()
            {
                return;
            }
        }
    }

    async fn write(&self, mut to: WriteHalf<'_>, mut due: mpsc::Receiver<(Instant, Vec<u8>)>) {
        while let Some((at, chunk)) = due.recv().await {
            sleep_until(at).await;
            if self.write_chunk(&mut to, &chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }

    /// Writes at the rate of the line, up to the fuse.
    async fn write_chunk(&self, to: &mut WriteHalf<'_>, mut chunk: &[u8]) -> std::io::Result<()> {
        while !chunk.is_empty() {
            let rate = self.network.borrow().rate;
            // A tenth of a second's worth at a time.
            let step = match rate {
                0 => chunk.len(),
                rate => chunk.len().min((rate / 10).max(1) as usize),
            };
            let (step, blows) = match self.way {
                ToServer => (step, false),
                ToClient => burn(self.fuse, step),
            };
            if rate > 0 {
                sleep(Duration::from_secs_f64(step as f64 / rate as f64)).await;
            }
            to.write_all(&chunk[..step]).await?;
            if blows {
                self.blown.notify_one();
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            chunk = &chunk[step..];
        }
        Ok(())
    }
}

/// How much of `step` bytes the fuse lets through, and whether it blows behind them.
fn burn(fuse: &AtomicU64, step: usize) -> (usize, bool) {
    let less = |left: u64| Some(left.saturating_sub(step as u64));
    match fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
        Ok(left @ 1..) if left <= step as u64 => (left as usize, true),
        _ => (step, false),
    }
}

mod tests {
    use super::*;
    use crate::common::wait::{SOON, eventually};
    use std::io::ErrorKind;
    use tokio::time::timeout;

    /// Long enough to see that nothing comes; a busy machine only makes the test see less.
    const A_MOMENT: Duration = Duration::from_millis(100);

    /// A server that sends back what it gets, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Proxy::before(address)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).await.unwrap()
    }

    async fn says(socket: &mut TcpStream, text: &str) -> std::io::Result<()> {
        socket.write_all(text.as_bytes()).await?;
        let mut back = vec![0; text.len()];
        socket.read_exact(&mut back).await?;
        assert_eq!(back, text.as_bytes());
        Ok(())
    }

    async fn is_reset(socket: &mut TcpStream) -> bool {
        let error = socket.read(&mut [0; 9]).await.err();
        error.is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    #[tokio::test]
    async fn proxy_changes_bytes_or_keeps_the_end_of_them_to_itself() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        says(&mut socket, &"all of it ".repeat(10_000))
            .await
            .unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(socket.read(&mut [0; 9]).await.unwrap(), 0);
        assert_eq!(proxy.connections(), 1);
        let uri = proxy.uri("amqp://host:5672/%2f", 5672);
        assert_eq!(uri, format!("amqp://host:{}/%2f", proxy.address.port()));
    }

    #[tokio::test]
    async fn cut_spares_an_old_connection_or_hits_a_new_one() {
        let proxy = echo().await;
        let mut old = connect(&proxy).await;
        says(&mut old, "before").await.unwrap();
        proxy.cut();
        assert!(is_reset(&mut old).await);
        let mut new = connect(&proxy).await;
        says(&mut new, "after").await.unwrap();
        proxy.refuse();
        assert!(is_reset(&mut new).await);
        let refused = async {
            let mut socket = TcpStream::connect(proxy.address).await?;
            says(&mut socket, "while").await
        };
        assert!(refused.await.is_err());
        proxy.heal();
        says(&mut connect(&proxy).await, "later").await.unwrap();
    }

    #[tokio::test]
    async fn cut_comes_before_or_behind_its_byte() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        says(&mut socket, "before").await.unwrap();
        proxy.cut_after(5);
        assert!(!proxy.has_cut());
        socket.write_all(b"123456789").await.unwrap();
        let mut got = [0; 5];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"12345");
        assert!(is_reset(&mut socket).await && proxy.has_cut());
        says(&mut connect(&proxy).await, "123456789").await.unwrap();
    }

    #[tokio::test]
    async fn silent_line_speaks_or_loses_what_waited() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        says(&mut socket, "before").await.unwrap();
        for way in [ToServer, ToClient] {
            proxy.set(way, Line::Silent);
            socket.write_all(b"waits").await.unwrap();
            let mut got = [0; 5];
            assert!(timeout(A_MOMENT, socket.read(&mut got)).await.is_err());
            proxy.heal();
            socket.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"waits");
        }
        proxy.black_hole();
        let ended = timeout(A_MOMENT, says(&mut socket, "nothing")).await;
        assert!(ended.is_err(), "a black hole answers or resets");
    }

    #[tokio::test]
    async fn deaf_line_hears_what_comes_after_a_hole() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        says(&mut socket, "before").await.unwrap();
        proxy.set(ToClient, Line::Deaf);
        assert!(timeout(A_MOMENT, says(&mut socket, "lost")).await.is_err());
        proxy.heal();
        assert!(timeout(A_MOMENT, says(&mut socket, "late")).await.is_err());
        says(&mut connect(&proxy).await, "new").await.unwrap();
    }

    #[tokio::test]
    async fn slow_line_is_fast() {
        let proxy = echo().await;
        let mut socket = connect(&proxy).await;
        says(&mut socket, "before").await.unwrap();
        let begin = Instant::now();
        proxy.slow_down(Duration::from_millis(100), 0);
        says(&mut socket, "there and back").await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(200));
        proxy.slow_down(Duration::ZERO, 10_000);
        let begin = Instant::now();
        says(&mut socket, &"x".repeat(3_000)).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(300));
        eventually(SOON, "full speed again", async || {
            proxy.heal();
            let begin = Instant::now();
            says(&mut socket, &"x".repeat(3_000)).await.unwrap();
            match begin.elapsed() < Duration::from_millis(300) {
                true => Ok(()),
                false => Err(format!("{:?}", begin.elapsed())),
            }
        })
        .await;
    }
}
