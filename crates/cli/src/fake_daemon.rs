//! A daemon for tests: canned answers by method and path, and a record of what was asked.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use clap::Parser;
use client::Client;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::args::Cli;
use crate::context::Context;

#[derive(Default)]
struct Script {
    /// Beginning of "METHOD /path", status, body; the longest that fits answers.
    answers: Vec<(String, u16, Value)>,
    /// "METHOD /path body", without the version.
    requests: Vec<String>,
}

/// It ends when it is dropped.
pub(crate) struct FakeDaemon {
    address: String,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
}

impl FakeDaemon {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let answering = script.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One call each; the client closes.
                serve(stream, &answering).await.ok();
            }
        });
        let daemon = Self { address, script, accepting };
        daemon.answer("GET /_ping", 200, Value::Null);
        daemon
    }

    /// What is answered to requests that begin like this.
    pub(crate) fn answer(&self, request: &str, status: u16, body: Value) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).answers.push((request.to_owned(), status, body));
    }

    /// The requests so far, but pings, that are `wanted`.
    pub(crate) fn requests(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = script.requests.iter().filter(|request| !request.starts_with("GET /_ping") && wanted(request));
        asked.cloned().collect()
    }

    pub(crate) async fn context(&self) -> Context {
        Context { client: Client::connect(self.address.parse().unwrap()).await.unwrap() }
    }

    /// Runs a command line against it.
    pub(crate) async fn run(&self, words: &[&str]) -> Result<()> {
        let words = ["skep", "-H", &self.address].into_iter().chain(words.iter().copied());
        crate::run(Cli::try_parse_from(words)?).await
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).await?;
    let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let (status, answer) = reply(&request, &body, script);
    let head = format!(
        "HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn reply(request: &str, body: &[u8], script: &Mutex<Script>) -> (u16, String) {
    let (method, path) = request.split_once(' ').unwrap_or((request, ""));
    let path = path.strip_prefix("/v1.51").unwrap_or(path);
    let request = format!("{method} {path}");
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    script.requests.push(format!("{request} {}", String::from_utf8_lossy(body)).trim_end().to_owned());
    let fitting = script.answers.iter().filter(|(beginning, ..)| request.starts_with(beginning));
    let missing = || (404, r#"{"message":"page not found"}"#.to_owned());
    fitting.max_by_key(|(beginning, ..)| beginning.len()).map_or_else(missing, |(_, status, body)| {
        (*status, if body.is_null() { String::new() } else { body.to_string() })
    })
}
