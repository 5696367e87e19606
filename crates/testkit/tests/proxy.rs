//! A network that goes silent.

use std::time::Duration;

use testkit::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

const SOON: Duration = Duration::from_secs(30);

/// How long to wait for nothing to arrive.
const MOMENT: Duration = Duration::from_millis(200);

/// An echo server, and the network to it.
async fn echo() -> Result<(Proxy, JoinSet<()>), Box<dyn std::error::Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(listener.local_addr()?.port()).await?;
    let server = async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    };
    Ok((proxy, JoinSet::from_iter([server])))
}

async fn echoes(connection: &mut TcpStream) -> bool {
    let _ = connection.write_all(b"x").await;
    let mut byte = [0];
    matches!(
        timeout(MOMENT, connection.read_exact(&mut byte)).await,
        Ok(Ok(_))
    )
}

#[tokio::test]
async fn a_silent_network_closes_nothing_and_delivers_later() -> Outcome {
    let (proxy, _server) = echo().await?;
    let mut connection = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
    assert!(echoes(&mut connection).await);

    proxy.silence();
    assert!(!echoes(&mut connection).await);
    let mut new = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
    assert!(!echoes(&mut new).await);

    proxy.resume();
    let mut byte = [0];
    timeout(SOON, connection.read_exact(&mut byte)).await??;
    timeout(SOON, new.read_exact(&mut byte)).await??;
    Ok(())
}

#[tokio::test]
async fn a_forgotten_connection_stays_silent_while_new_ones_work() -> Outcome {
    let (proxy, _server) = echo().await?;
    let mut connection = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
    assert!(echoes(&mut connection).await);

    proxy.silence();
    proxy.forget();
    assert!(!echoes(&mut connection).await);
    let mut new = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
    new.write_all(b"x").await?;
    let mut byte = [0];
    timeout(SOON, new.read_exact(&mut byte)).await??;
    Ok(())
}

#[tokio::test]
async fn closing_one_side_closes_the_other() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(listener.local_addr()?.port()).await?;
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
    let (server, _) = timeout(SOON, listener.accept()).await??;
    drop(server);
    let mut byte = [0];
    assert_eq!(timeout(SOON, client.read(&mut byte)).await??, 0);
    Ok(())
}
