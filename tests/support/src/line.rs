//! A line to another program that a test can cut and mend: while it is cut, calls break and new ones are hung up on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A TCP proxy on a port of its own; its threads end with the process.
pub struct Line {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    /// Both ends of every connection, to be broken by a cut.
    ends: Vec<TcpStream>,
}

impl Line {
    /// A line to `target` (`127.0.0.1:PORT`), whole at first.
    pub fn to(target: &str) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let state = Arc::<Mutex<State>>::default();
        let (shared, target) = (state.clone(), target.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connect(stream, &target, &shared);
            }
        });
        Line { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn cut(&self) {
        let mut state = self.state.lock().expect("nobody panics with the line in hand");
        state.cut = true;
        for end in state.ends.drain(..) {
            // One that is closed already needs no closing.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.state.lock().expect("nobody panics with the line in hand").cut = false;
    }
}

/// Joins a caller with the target; hangs up when the line is cut or nobody is there.
fn connect(caller: TcpStream, target: &str, state: &Mutex<State>) {
    let mut state = state.lock().expect("nobody panics with the line in hand");
    if state.cut {
        return;
    }
    let Ok(callee) = TcpStream::connect(target) else { return };
    for (from, to) in [(&caller, &callee), (&callee, &caller)] {
        let (Ok(mut from), Ok(mut to), Ok(end)) = (from.try_clone(), to.try_clone(), from.try_clone()) else { return };
        state.ends.push(end);
        thread::spawn(move || pass(&mut from, &mut to));
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side may have closed first.
    let _ = to.shutdown(Shutdown::Write);
}
