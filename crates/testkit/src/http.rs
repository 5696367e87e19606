use std::error::Error as StdError;
use std::net::SocketAddr;

use axum::http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The status of a GET of `path` on a new connection.
pub(crate) async fn status(
    address: SocketAddr,
    path: &str,
) -> Result<StatusCode, Box<dyn StdError + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    // The connection is driven here rather than in a task, so that it ends with this function.
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status()),
        Err(error) = connection => Err(error.into()),
    }
}
