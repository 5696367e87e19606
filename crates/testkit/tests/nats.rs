//! A private nats-server, as tests use it.

use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, stream};
use testkit::{Nats, eventually};
use tokio::net::TcpStream;
use tokio::time::timeout;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn stream_of_one(nats: &Nats) -> Result<(), async_nats::Error> {
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await?);
    let config = stream::Config {
        name: "NUMBERS".to_owned(),
        subjects: vec!["numbers".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await?;
    jetstream.publish("numbers", "1".into()).await?.await?;
    Ok(())
}

async fn stored(nats: &Nats) -> Result<u64, async_nats::Error> {
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await?);
    Ok(jetstream
        .get_stream("NUMBERS")
        .await?
        .get_info()
        .await?
        .state
        .messages)
}

#[tokio::test]
async fn streams_survive_a_stop_and_a_kill() -> Outcome {
    let mut nats = Nats::start().await?;
    let port = nats.port();
    stream_of_one(&nats).await?;

    nats.stop().await?;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    nats.restart().await?;
    assert_eq!(stored(&nats).await?, 1);

    nats.kill().await?;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    nats.restart().await?;
    assert_eq!(stored(&nats).await?, 1);
    assert_eq!(nats.port(), port);
    Ok(())
}

#[tokio::test]
async fn a_paused_server_does_not_answer_until_resumed() -> Outcome {
    let mut nats = Nats::start().await?;
    let client = async_nats::connect(nats.url()).await?;
    client.publish("before", "".into()).await?;
    client.flush().await?;

    nats.pause().await?;
    let connect = timeout(Duration::from_millis(300), async_nats::connect(nats.url())).await;
    assert!(connect.is_err(), "a paused server answered");

    nats.resume()?;
    timeout(Duration::from_secs(10), async_nats::connect(nats.url())).await??;
    Ok(())
}

#[tokio::test]
async fn configured_users_are_required() -> Outcome {
    let nats = Nats::start_with("authorization { user: todo, password: secret }").await?;
    assert!(async_nats::connect(nats.url()).await.is_err());
    ConnectOptions::with_user_and_password("todo".to_owned(), "secret".to_owned())
        .connect(nats.url())
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_error_shows_a_configuration_that_nats_rejects() {
    let error = Nats::start_with("authorization {").await.unwrap_err();
    assert!(format!("{error:?}").contains("Parse error"), "{error:?}");
}

#[tokio::test]
async fn a_dropped_server_is_gone() -> Outcome {
    let nats = Nats::start().await?;
    let port = nats.port();
    drop(nats);
    eventually(
        Duration::from_secs(10),
        async || match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(_) => Err("the server still listens"),
            Err(_) => Ok(()),
        },
    )
    .await?;
    Ok(())
}
