//! A wire between two nodes that a test can cut: it forwards TCP connections on loopback, byte by byte, and ends
//! each of them where it was told to. Afterwards it takes new ones, as a router does that came back.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::spawn;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// A direction, as seen from who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the one who connected.
    There,
    /// To the one who connected.
    Back,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Both sides are told in good order.
    Finished,
    /// Both sides are told by a reset.
    Reset,
    /// Nobody is told: nothing passes any more, either way.
    Silenced,
}

/// Where one connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// So many bytes pass.
    pub(crate) after: usize,
    /// In this direction.
    pub(crate) way: Way,
    /// Then this happens.
    pub(crate) how: How,
}

/// The wire. It ends with the test, and its connections with it.
#[derive(Debug)]
pub(crate) struct Wire {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// For the connections to come, one each.
    cuts: Mutex<VecDeque<Cut>>,
    /// How many connections were cut.
    made: AtomicUsize,
    over: AtomicBool,
    connections: Mutex<Vec<Arc<Connection>>>,
}

/// The two halves of a connection: to who connected, and to the target.
#[derive(Debug)]
struct Connection {
    near: TcpStream,
    far: TcpStream,
    cut: Option<Cut>,
    ended: Mutex<Option<How>>,
}

impl Wire {
    /// Leads to a port on loopback. Connection by connection ends at one of `cuts`; later ones last.
    pub(crate) fn to(port: u16, cuts: impl IntoIterator<Item = Cut>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        lock(&shared.cuts).extend(cuts);
        let of = Arc::clone(&shared);
        spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if of.over.load(Ordering::SeqCst) {
                    return;
                }
                // A target that is not there refuses by the end of the connection.
                if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                    of.join(near, far);
                }
            }
        });
        Self { addr, shared }
    }

    /// Where to connect.
    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// How many connections were cut.
    pub(crate) fn cuts_made(&self) -> usize {
        self.shared.made.load(Ordering::SeqCst)
    }

    /// Adds a cut for a connection to come.
    pub(crate) fn will_cut(&self, cut: Cut) {
        lock(&self.shared.cuts).push_back(cut);
    }

    /// Ends every connection that stands now.
    pub(crate) fn cut(&self, how: How) {
        let standing = lock(&self.shared.connections).clone();
        for connection in &standing {
            connection.end(how);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut(How::Finished);
        // Wakes the listener, which then sees that it is over.
        drop(TcpStream::connect(self.addr));
    }
}

impl Shared {
    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let connection = Arc::new(Connection {
            near,
            far,
            cut: lock(&self.cuts).pop_front(),
            ended: Mutex::default(),
        });
        lock(&self.connections).push(Arc::clone(&connection));
        for way in [Way::There, Way::Back] {
            let (shared, connection) = (Arc::clone(self), Arc::clone(&connection));
            spawn(move || shared.pump(&connection, way));
        }
    }

    /// Forwards one direction to its end.
    fn pump(&self, connection: &Arc<Connection>, way: Way) {
        let (mut from, mut to) = match way {
            Way::There => (&connection.near, &connection.far),
            Way::Back => (&connection.far, &connection.near),
        };
        let cut = connection.cut.filter(|cut| cut.way == way);
        let mut left = cut.map_or(usize::MAX, |cut| cut.after);
        let mut buffer = [0; 4096];
        while left > 0 {
            let most = left.min(buffer.len());
            let count = from.read(&mut buffer[..most]).unwrap_or(0);
            if count == 0 || connection.ended().is_some() {
                break;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            left -= count;
        }
        match cut.filter(|_| left == 0) {
            Some(cut) => {
                if connection.end(cut.how) {
                    self.made.fetch_add(1, Ordering::SeqCst);
                }
            }
            None => drop(connection.end(How::Finished)),
        }
        // Sockets that nobody holds are closed, and their peers told.
        if connection.ended() != Some(How::Silenced) {
            lock(&self.connections).retain(|one| !Arc::ptr_eq(one, connection));
        }
    }
}

impl Connection {
    /// Ends it; false if it had ended before.
    fn end(&self, how: How) -> bool {
        if lock(&self.ended).is_some() {
            return false;
        }
        *lock(&self.ended) = Some(how);
        for stream in [&self.near, &self.far] {
            match how {
                How::Finished => drop(stream.shutdown(Shutdown::Both)),
                How::Reset => {
                    let abort = linger {
                        l_onoff: 1,
                        l_linger: 0,
                    };
                    setsockopt(stream, sockopt::Linger, &abort).unwrap();
                    // Ends the readers; the last of them closes the socket, which resets.
                    drop(stream.shutdown(Shutdown::Read));
                }
                How::Silenced => {}
            }
        }
        true
    }

    fn ended(&self) -> Option<How> {
        *lock(&self.ended)
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
