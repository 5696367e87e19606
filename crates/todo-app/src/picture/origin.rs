//! Where pictures come from.

use std::io;
use std::time::Duration;

use reqwest::header;
use service_kit::Chain;
use tokio::io::AsyncWriteExt;
use url::Url;
use xxhash_rust::xxh3::Xxh3Default;

use super::cache::{Cache, Download};
use super::format::{ImageType, NotShown};

/// The largest picture that is kept, in bytes.
const SIZE_LIMIT: u64 = 10 * 1024 * 1024;

/// How many leading bytes determine a file's format and dimensions: a JPEG may
/// have this much metadata before its dimensions.
const START_SIZE: usize = 256 * 1024;

/// How long a download may take. Nobody waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Origin {
    client: reqwest::Client,
    url: Url,
}

impl Origin {
    pub(super) fn new(url: Url) -> reqwest::Result<Self> {
        let user_agent = concat!("todo-app/", env!("CARGO_PKG_VERSION"));
        let client = service_kit::http::client_of(&url, user_agent, FETCH_TIMEOUT)?;
        Ok(Self { client, url })
    }

    /// Downloads a picture into a temporary file of `cache`, which is deleted
    /// if the download ends early.
    pub(super) async fn fetch(&self, cache: &Cache) -> Result<Download, FetchError> {
        let request = self.client.get(self.url.clone());
        let mut response = request.send().await?.error_for_status()?;
        let declared = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        if !declared.is_some_and(|declared| declared.starts_with("image/")) {
            return Err(NotShown::NotAPicture.into());
        }
        if response.content_length() > Some(SIZE_LIMIT) {
            return Err(FetchError::TooLarge);
        }

        let (temporary, mut file) = cache.temporary_file().await?;
        let mut start = Vec::new();
        let mut hash = Xxh3Default::new();
        let mut size = 0;
        while let Some(chunk) = response.chunk().await? {
            size += chunk.len() as u64;
            if size > SIZE_LIMIT {
                return Err(FetchError::TooLarge);
            }
            let missing = START_SIZE - start.len();
            start.extend_from_slice(&chunk[..missing.min(chunk.len())]);
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        let content_type = ImageType::of(&start)?;
        // The file writes in the background: only `flush` reports an error.
        file.flush().await?;
        file.sync_all().await?;
        if file.metadata().await?.len() != size {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        Ok(Download {
            temporary,
            content_type,
            size,
            hash: hash.digest128(),
        })
    }
}

/// Why fetching a new picture failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the origin returned none: {}", Chain(.0))]
    Origin(reqwest::Error),
    #[error(transparent)]
    NotShown(#[from] NotShown),
    #[error("the picture has more than {SIZE_LIMIT} bytes")]
    TooLarge,
    #[error("cannot store it: {0}")]
    Cache(#[from] io::Error),
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        // The URL may contain a token.
        Self::Origin(error.without_url())
    }
}
