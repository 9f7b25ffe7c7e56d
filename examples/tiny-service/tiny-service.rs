//! A web server for tests that need speed: answers GET / as the dummy service does, in one small static binary.
//!
//! Environment: `PORT` (default 9005); `IGNORE_SIGTERM=1` lets it live on until SIGKILL; `EXIT_CODE` is what SIGTERM
//! ends it with (default 0); `EXIT_AFTER_MS` ends it by itself; `START_DELAY_MS` waits before it listens;
//! `ANSWER_DELAY_MS` waits before each answer. With an argument it runs a command instead: `get URL-PATH` asks the
//! server in the same container (for health checks), `get URL-PATH HOST` one elsewhere, `resolve NAME…` prints
//! the names' addresses in the order they came, `sleep` does nothing, `env` prints the environment, `exit CODE` ends with that
//! code, `cat PATH` prints a file, `write PATH TEXT` writes one, `echo …` prints its words, `uid` prints user and group,
//! `fill MIB` takes that much memory, `fork N` starts so many children, `serve-sctp PORT` says over SCTP who it is and who
//! asks, `get-sctp HOST PORT` asks that.
//!
//! It is only the standard library plus the few C functions that have no face there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;
const REQUEST_LINES_MAX: usize = 100;
const AF_INET: i32 = 2;
const SOCK_STREAM: i32 = 1;
const SOCK_CLOEXEC: i32 = 0o2000000;
const IPPROTO_SCTP: i32 = 132;
const SCTP_BACKLOG: i32 = 128;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn _exit(code: i32) -> !;
    fn getuid() -> u32;
    fn getgid() -> u32;
    fn pause() -> i32;
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn bind(socket: i32, address: *const Ipv4Socket, length: u32) -> i32;
    fn connect(socket: i32, address: *const Ipv4Socket, length: u32) -> i32;
    fn listen(socket: i32, backlog: i32) -> i32;
}

/// `struct sockaddr_in`.
#[repr(C)]
struct Ipv4Socket {
    family: u16,
    port: [u8; 2],
    address: [u8; 4],
    zero: [u8; 8],
}

static EXIT_CODE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

extern "C" fn stop(_: i32) {
    // SAFETY: `_exit` may be called in a signal handler and takes any number.
    unsafe { _exit(EXIT_CODE.load(std::sync::atomic::Ordering::Relaxed)) }
}

extern "C" fn ignore(_: i32) {}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn handle_signals() {
    EXIT_CODE.store(number("EXIT_CODE").unwrap_or(0) as i32, std::sync::atomic::Ordering::Relaxed);
    let ignores = std::env::var("IGNORE_SIGTERM").is_ok_and(|value| value == "1");
    let term = if ignores { ignore as *const () as usize } else { stop as *const () as usize };
    // SAFETY: both are functions of the type that signal(2) wants, and do only what handlers may do.
    unsafe {
        signal(SIGTERM, term);
        signal(SIGINT, stop as *const () as usize);
    }
}

/// A random (version 4) UUID.
fn uuid() -> String {
    let mut bytes = [0u8; 16];
    if let Ok(mut random) = std::fs::File::open("/dev/urandom") {
        let _ = random.read_exact(&mut bytes);
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string()
}

fn serve(stream: TcpStream) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).ok()? == 0 {
            return None;
        }
        let mut close = request.contains("HTTP/1.0");
        for _ in 0..REQUEST_LINES_MAX {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            close |= line == "connection: close";
        }
        if let Some(delay_ms) = number("ANSWER_DELAY_MS") {
            std::thread::sleep(Duration::from_millis(delay_ms));
        }
        let path = request.split_whitespace().nth(1).unwrap_or("/");
        let (status, body) = match path {
            "/" => ("200 OK", format!("{{\n  \"hostname\": \"{}\",\n  \"uuid\": \"{}\"\n}}\n", hostname(), uuid())),
            "/peer" => ("200 OK", format!("{}\n", peer.ip())),
            _ => ("404 Not Found", "{\n  \"error\": \"not found\"\n}\n".to_string()),
        };
        let connection = if close { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        writer.write_all((head + &body).as_bytes()).ok()?;
        if close {
            return None;
        }
    }
}

fn port() -> u16 {
    number("PORT").and_then(|port| u16::try_from(port).ok()).unwrap_or(9005)
}

fn get(path: &str, host: &str) -> i32 {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((host, port()))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) => {
            print!("{}", answer.split_once("\r\n\r\n").map_or("", |(_, body)| body));
            i32::from(!answer.starts_with("HTTP/1.1 200"))
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn resolve(names: &[String]) -> i32 {
    let mut code = 0;
    for name in names {
        let label = if names.len() > 1 { format!("{name} ") } else { String::new() };
        match (name.as_str(), 0).to_socket_addrs() {
            Ok(addresses) => addresses.for_each(|address| println!("{label}{}", address.ip())),
            Err(error) => {
                eprintln!("{name}: {error}");
                code = 1;
            }
        }
    }
    code
}

/// An SCTP socket that is used as a TCP one: the standard library's calls on it are the same.
fn sctp_socket(address: Ipv4Addr, port: u16, serves: bool) -> std::io::Result<OwnedFd> {
    let checked = |result: i32| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) };
    let place = Ipv4Socket { family: AF_INET as u16, port: port.to_be_bytes(), address: address.octets(), zero: [0; 8] };
    let length = size_of::<Ipv4Socket>() as u32;
    // SAFETY: takes numbers only.
    let number = checked(unsafe { socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP) })?;
    // SAFETY: the kernel has just made this descriptor, which nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    if serves {
        // SAFETY: the address is of the given length and lives longer than the call.
        checked(unsafe { bind(socket.as_raw_fd(), &place, length) })?;
        // SAFETY: takes numbers only.
        checked(unsafe { listen(socket.as_raw_fd(), SCTP_BACKLOG) })?;
    } else {
        // SAFETY: as with `bind`.
        checked(unsafe { connect(socket.as_raw_fd(), &place, length) })?;
    }
    Ok(socket)
}

fn delay_start() {
    if let Some(delay_ms) = number("START_DELAY_MS") {
        std::thread::sleep(Duration::from_millis(delay_ms));
    }
}

/// Tells each client this container's name and the client's address.
fn serve_sctp(port: u16) -> std::io::Result<()> {
    delay_start();
    let listener = TcpListener::from(sctp_socket(Ipv4Addr::UNSPECIFIED, port, true)?);
    println!("listening on SCTP port {port}");
    loop {
        let (mut stream, peer) = listener.accept()?;
        // A client that has gone is no reason to end.
        let _ = stream.write_all(format!("{} {}\n", hostname(), peer.ip()).as_bytes());
    }
}

fn get_sctp(host: &str, port: u16) -> std::io::Result<()> {
    let found = (host, port).to_socket_addrs()?.find_map(|address| match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    });
    let address = found.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let stream = TcpStream::from(sctp_socket(address, port, false)?);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    print!("{answer}");
    Ok(())
}

fn code_of(result: std::io::Result<()>) -> i32 {
    if let Err(error) = &result {
        eprintln!("{error}");
    }
    i32::from(result.is_err())
}

fn wait_forever() -> ! {
    loop {
        // SAFETY: takes nothing and only waits.
        unsafe { pause() };
    }
}

fn command(words: &[String]) -> i32 {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let count = || word(1).parse::<usize>().unwrap_or(1);
    match word(0) {
        "get" => get(word(1), words.get(2).map_or("127.0.0.1", String::as_str)),
        "resolve" => resolve(&words[1..]),
        "serve-sctp" => code_of(serve_sctp(word(1).parse().unwrap_or(0))),
        "get-sctp" => code_of(get_sctp(word(1), word(2).parse().unwrap_or(0))),
        "sleep" => wait_forever(),
        "exit" => word(1).parse().unwrap_or(1),
        "echo" => {
            println!("{}", words[1..].join(" "));
            0
        }
        "env" => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
            0
        }
        "uid" => {
            // SAFETY: both only return a number.
            println!("{}:{}", unsafe { getuid() }, unsafe { getgid() });
            0
        }
        "cat" => match std::fs::read(word(1)).and_then(|bytes| std::io::stdout().write_all(&bytes)) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{}: {error}", word(1));
                1
            }
        },
        "write" => match std::fs::write(word(1), words[2..].join(" ")) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{}: {error}", word(1));
                1
            }
        },
        "fill" => {
            let memory: Vec<Vec<u8>> = (0..count()).map(|_| vec![1u8; 1 << 20]).collect();
            println!("{}", memory.len());
            wait_forever()
        }
        "fork" => {
            let start = |_: &usize| std::process::Command::new("/proc/self/exe").arg("sleep").spawn().is_ok();
            println!("{}", (0..count()).filter(start).count());
            wait_forever()
        }
        other => {
            eprintln!("tiny-service: unknown command {other:?}");
            127
        }
    }
}

fn main() {
    handle_signals();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.is_empty() {
        std::process::exit(command(&words));
    }
    delay_start();
    if let Some(life_ms) = number("EXIT_AFTER_MS") {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(life_ms));
            std::process::exit(number("EXIT_CODE").unwrap_or(0) as i32);
        });
    }
    let listener = TcpListener::bind(("0.0.0.0", port())).unwrap_or_else(|error| {
        eprintln!("port {}: {error}", port());
        std::process::exit(1);
    });
    println!("listening on port {}", port());
    for stream in listener.incoming().flatten() {
        let serve = move || {
            let _ = serve(stream);
        };
        if std::thread::Builder::new().stack_size(64 << 10).spawn(serve).is_err() {
            eprintln!("no thread for a connection");
        }
    }
}
