//! One HTTP connection for each call: the API's calls are few and some take the connection over.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::{Address, ClientError, JsonLines};

/// Largest whole answer.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Largest error answer.
const MAX_ERROR_BYTES: usize = 1 << 20;
/// The API version that this client speaks at the most; both sides of a call agree on the lower one.
const API_VERSION: &str = "1.51";

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    version: String,
}

/// A connection that the daemon gave over: bytes both ways.
pub struct Hijacked {
    /// The connection.
    pub io: TokioIo<hyper::upgrade::Upgraded>,
    /// Whether the daemon frames standard output and error (no TTY).
    pub multiplexed: bool,
}

impl Client {
    /// A client of the daemon at `address`; asks it for its API version.
    pub async fn connect(address: Address) -> Result<Self, ClientError> {
        let mut client = Self { address, version: String::new() };
        let response = client.send(Method::GET, "/_ping", HeaderMap::new(), Bytes::new()).await?;
        let theirs = response.headers().get("Api-Version").and_then(|value| value.to_str().ok()).unwrap_or("1.24");
        client.version = lower_version(theirs, API_VERSION).to_owned();
        Ok(client)
    }

    /// The API version that both sides speak.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the daemon is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `GET`, one JSON answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.call(Method::GET, path, HeaderMap::new(), None::<&Value>).await?;
        Ok(serde_json::from_slice(&collect(response).await?)?)
    }

    /// `POST` with a JSON body; the answer's bytes.
    pub async fn post<B: Serialize + ?Sized>(&self, path: &str, body: Option<&B>) -> Result<Bytes, ClientError> {
        collect(self.call(Method::POST, path, HeaderMap::new(), body).await?).await
    }

    /// `POST` with a JSON body and headers; one JSON answer.
    pub async fn post_with<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        headers: HeaderMap,
        body: &B,
    ) -> Result<T, ClientError> {
        let response = self.call(Method::POST, path, headers, Some(body)).await?;
        Ok(serde_json::from_slice(&collect(response).await?)?)
    }

    /// `POST` of raw bytes; the answer as a stream.
    pub async fn post_bytes(&self, path: &str, content_type: &str, body: Bytes) -> Result<JsonLines, ClientError> {
        let mut headers = HeaderMap::new();
        if let Ok(value) = content_type.parse() {
            headers.insert(header::CONTENT_TYPE, value);
        }
        let path = self.versioned(path);
        let response = self.send(Method::POST, &path, headers, body).await?;
        Ok(JsonLines::new(checked(response).await?.into_body()))
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Bytes, ClientError> {
        collect(self.call(Method::DELETE, path, HeaderMap::new(), None::<&Value>).await?).await
    }

    /// A call whose answer is a stream.
    pub async fn stream<B: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<&B>,
    ) -> Result<JsonLines, ClientError> {
        Ok(JsonLines::new(self.call(method, path, headers, body).await?.into_body()))
    }

    /// `POST` that takes the connection over (attach, exec).
    pub async fn hijack<B: Serialize + ?Sized>(&self, path: &str, body: Option<&B>) -> Result<Hijacked, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, header::HeaderValue::from_static("tcp"));
        let response = self.call(Method::POST, path, headers, body).await?;
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let multiplexed = kind != Some("application/vnd.docker.raw-stream");
        let upgraded = hyper::upgrade::on(response).await?;
        Ok(Hijacked { io: TokioIo::new(upgraded), multiplexed })
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.version)
    }

    async fn call<B: Serialize + ?Sized>(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Option<&B>,
    ) -> Result<Response<Incoming>, ClientError> {
        let bytes = match body {
            Some(body) => {
                headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let response = self.send(method, &self.versioned(path), headers, bytes).await?;
        checked(response).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, "api").body(Full::new(body))?;
        request.headers_mut().extend(headers);
        let refused = |source| ClientError::Connect { address: self.address.to_string(), source };
        match &self.address {
            Address::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(refused)?;
                exchange(TokioIo::new(stream), request).await
            }
            Address::Tcp(host) => {
                let stream = TcpStream::connect(host).await.map_err(refused)?;
                exchange(TokioIo::new(stream), request).await
            }
        }
    }
}

async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await?;
    // The connection's task ends with the answer, or lives on inside of a hijacked stream.
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(request).await?)
}

async fn checked(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    let status = response.status();
    if status.is_success() || status.is_informational() || status == http::StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    let body = Limited::new(response.into_body(), MAX_ERROR_BYTES).collect().await;
    let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<Value>(&bytes).ok();
    let message = message.as_ref().and_then(|value| value.get("message")).and_then(Value::as_str);
    let message = message.map_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned(), str::to_owned);
    Err(ClientError::Api { status: status.as_u16(), message })
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    body.map(|body| body.to_bytes()).map_err(|_| ClientError::TooLarge { limit: MAX_ANSWER_BYTES })
}

fn lower_version<'a>(a: &'a str, b: &'a str) -> &'a str {
    let key = |text: &str| {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        (major.parse::<u32>().unwrap_or(0), minor.parse::<u32>().unwrap_or(0))
    };
    if key(a) <= key(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::lower_version;

    #[test]
    fn the_lower_version_is_agreed_on() {
        assert_eq!(lower_version("1.9", "1.51"), "1.9");
        assert_eq!(lower_version("1.60", "1.51"), "1.51");
    }
}
