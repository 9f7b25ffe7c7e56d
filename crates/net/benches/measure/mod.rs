//! Connections, requests and bytes over several paths, in turn.

#![allow(unreachable_pub, reason = "a bench has no public items")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::support::Ns;

pub const ROUNDS: usize = 7;
pub const CONNECTIONS: usize = 2000;
const REQUESTS: usize = 20_000;
const TRANSFER_BYTES: usize = 512 << 20;

/// Two threads accept. First byte of a connection: `e` echoes every byte, `s` swallows all and answers at the end.
pub fn serve(ns: &Ns) {
    let (sender, receiver) = std::sync::mpsc::channel();
    ns.spawn(move || {
        let listener = TcpListener::bind("0.0.0.0:80").unwrap();
        sender.send(()).unwrap();
        let second = listener.try_clone().unwrap();
        std::thread::spawn(move || second.incoming().flatten().for_each(answer));
        listener.incoming().flatten().for_each(answer);
    });
    receiver.recv().unwrap();
}

fn answer(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 1 << 18];
    let mut is_echo = None;
    while let Ok(len) = stream.read(&mut buffer) {
        if len == 0 {
            let _ = stream.write_all(b"!");
            return;
        }
        if *is_echo.get_or_insert(buffer[0] == b'e') && stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    // ends with a reset, so that thousands of connections do not use up the client's ports
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
    stream
}

pub fn connections(address: &str) -> Duration {
    let begin = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = connect(address);
        stream.write_all(b"e").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    begin.elapsed()
}

fn requests(address: &str) -> Duration {
    let mut stream = connect(address);
    let begin = Instant::now();
    for _ in 0..REQUESTS {
        stream.write_all(b"e").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    begin.elapsed()
}

fn transfer(address: &str) -> Duration {
    let mut stream = connect(address);
    let block = vec![b's'; 1 << 17];
    let begin = Instant::now();
    for _ in 0..TRANSFER_BYTES / block.len() {
        stream.write_all(&block).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    begin.elapsed()
}

/// Something that is done `amount` times.
struct Measure {
    what: &'static str,
    run: fn(&str) -> Duration,
    amount: usize,
}

const MEASURES: [Measure; 3] = [
    Measure { what: "connections/s", run: connections, amount: CONNECTIONS },
    Measure { what: "requests/s on one connection", run: requests, amount: REQUESTS },
    Measure { what: "MiB/s", run: transfer, amount: TRANSFER_BYTES >> 20 },
];

/// Measures the paths in turn, so that the machine's moods meet all of them, and prints medians.
pub fn paths(ns: &Ns, paths: &[(&str, &str)]) {
    for Measure { what, run, amount } in MEASURES {
        let mut times = vec![Vec::new(); paths.len()];
        for _ in 0..ROUNDS {
            for ((_, address), times) in paths.iter().zip(&mut times) {
                let address = (*address).to_owned();
                times.push(ns.run(move || run(&address)));
            }
        }
        let rates: Vec<f64> = times.iter_mut().map(|times| amount as f64 / median(times).as_secs_f64()).collect();
        for ((name, _), rate) in paths.iter().zip(&rates) {
            println!("{name:20} {rate:10.0} {what} ({:.0} %)", 100.0 * rate / rates[0]);
        }
    }
}

pub fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
