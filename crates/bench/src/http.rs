//! Requests of the bench itself.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Error;

/// The whole response to a GET of `url`.
pub(crate) async fn get(url: &str) -> Result<String, Error> {
    ask("GET", url, "").await
}

/// The whole response to a request.
pub(crate) async fn ask(method: &str, url: &str, body: &str) -> Result<String, Error> {
    let mut stream = send(method, url, body).await?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .map_err(Error::io(url))?;
    Ok(answer)
}

/// Sends a request on a new connection, which the server closes after it.
pub(crate) async fn send(method: &str, url: &str, body: &str) -> Result<TcpStream, Error> {
    let (host, path) = url
        .trim_start_matches("http://")
        .split_once('/')
        .unwrap_or((url, ""));
    let mut stream = TcpStream::connect(host).await.map_err(Error::io(url))?;
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Error::io(url))?;
    Ok(stream)
}
