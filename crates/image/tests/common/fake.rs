//! A registry of a few lines that cuts, stalls, redirects and lies on request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close after so many bytes of the body.
    pub cut: Option<usize>,
    /// Never send the rest.
    pub stall: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, stall: false }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

type Handler = dyn FnMut(&Asked) -> Reply + Send;

/// The server; ends when dropped.
pub struct Fake {
    pub address: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(handler: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Mutex<Box<Handler>>> = Arc::new(Mutex::new(Box::new(handler)));
        let log = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, handler.clone(), log.clone()));
            }
        });
        Self { address, asked, task }
    }

    /// The paths asked for so far.
    pub fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.path.clone()).collect()
    }
}

async fn serve(stream: TcpStream, handler: Arc<Mutex<Box<Handler>>>, log: Arc<Mutex<Vec<Asked>>>) {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    if stream.read_line(&mut first).await.is_err() {
        return;
    }
    let mut words = first.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    let asked = Asked { method: method.into(), path: path.into(), headers, body };
    let reply = (handler.lock().unwrap())(&asked);
    log.lock().unwrap().push(asked);
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(b"Connection: close\r\n\r\n").await;
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    let _ = stream.write_all(&reply.body[..end]).await;
    let _ = stream.flush().await;
    if reply.stall {
        std::future::pending::<()>().await;
    }
}

/// Manifests and blobs by path, served properly with ranges.
#[derive(Clone, Default)]
pub struct Content(pub BTreeMap<String, (String, Vec<u8>)>);

impl Content {
    pub fn answer(&self, asked: &Asked) -> Reply {
        if asked.path == "/v2/" {
            return Reply::new(200, "{}");
        }
        let Some((kind, bytes)) = self.0.get(&asked.path) else {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return Reply::new(404, body);
        };
        let from = asked
            .headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from {
            Some(from) if from < bytes.len() => Reply::new(206, &bytes[from..])
                .header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            Some(_) => Reply::new(416, ""),
            None => Reply::new(200, bytes.clone()).header("Content-Type", kind.clone()),
        }
    }
}
