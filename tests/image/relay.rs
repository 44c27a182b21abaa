//! A relay before a server, whose address stays when the server is started anew, and which can be
//! stopped in the middle of whatever passes.

use std::io::{Read, Write, copy, sink};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

struct State {
    /// The server's port.
    to: u16,
    /// Bytes that may pass yet, both ways together.
    left: usize,
    /// How often it went on: connections of an earlier time are cut.
    time: u32,
    /// Connections until one that is answered 500, by nobody behind; 0 for none.
    fails_in: u32,
}

#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Relay {
    /// Stops after `left` bytes.
    pub(crate) fn new(to: u16, left: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            to,
            left,
            time: 0,
            fails_in: 0,
        };
        let relay = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new((Mutex::new(state), Condvar::new())),
        };
        let this = relay.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                this.pass(&client);
            }
        });
        relay
    }

    /// Waits until so many bytes have passed.
    pub(crate) fn wait(&self) {
        let (state, changed) = &*self.state;
        let state = state.lock().unwrap();
        let waited = changed.wait_timeout_while(state, PATIENCE, |state| state.left > 0);
        assert!(!waited.unwrap().1.timed_out(), "so much never passed");
    }

    /// Cuts what is connected, and lets `left` bytes pass between new connections and `to`.
    pub(crate) fn go_on(&self, to: u16, left: usize) {
        let (state, changed) = &*self.state;
        let mut state = state.lock().unwrap();
        (state.to, state.left) = (to, left);
        state.time += 1;
        changed.notify_all();
    }

    /// Lets everything pass from now on, also what waits.
    pub(crate) fn open(&self) {
        let (state, changed) = &*self.state;
        state.lock().unwrap().left = usize::MAX;
        changed.notify_all();
    }

    /// Answers the `n`th connection from now on, as a proxy would that has lost the server: the
    /// first is 1.
    pub(crate) fn fail(&self, n: u32) {
        self.state.0.lock().unwrap().fails_in = n;
    }

    fn pass(&self, client: &TcpStream) {
        let (to, time, fails) = {
            let mut state = self.state.0.lock().unwrap();
            let fails = state.fails_in == 1;
            state.fails_in = state.fails_in.saturating_sub(1);
            (state.to, state.time, fails)
        };
        if fails {
            let mut client = client.try_clone().unwrap();
            thread::spawn(move || {
                let answer = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
                client.read_exact(&mut [0])?;
                client.write_all(answer)?;
                copy(&mut client, &mut sink())
            });
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
            return;
        };
        for (from, to) in [(client, &server), (&server, client)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let this = self.clone();
            thread::spawn(move || this.copy(&from, &to, time));
        }
    }

    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream, time: u32) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let mut bytes = &buffer[..read];
            while !bytes.is_empty() {
                let some = self.take(bytes.len(), time);
                if some == 0 || to.write_all(&bytes[..some]).is_err() {
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                bytes = &bytes[some..];
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// How many of `wanted` bytes may pass: none on a connection that is cut.
    fn take(&self, wanted: usize, time: u32) -> usize {
        let (state, changed) = &*self.state;
        let state = state.lock().unwrap();
        let mut state = changed
            .wait_while(state, |state| state.left == 0 && state.time == time)
            .unwrap();
        if state.time != time {
            return 0;
        }
        let some = wanted.min(state.left);
        state.left -= some;
        if state.left == 0 {
            changed.notify_all();
        }
        some
    }
}
