//! Where pictures come from.

use std::io;
use std::time::Duration;

use reqwest::header;
use tokio::io::AsyncWriteExt;
use url::Url;
use xxhash_rust::xxh3::Xxh3Default;

use super::cache::{Cache, Download, ImageType};

/// The largest picture that is kept, in bytes.
const SIZE_LIMIT: u64 = 10 * 1024 * 1024;

/// How many bytes at the start of a file tell what it is.
const SIGNATURE_SIZE: usize = 512;

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
        let client = service_kit::http::client(user_agent, FETCH_TIMEOUT)?;
        Ok(Self { client, url })
    }

    /// Downloads a picture into a temporary file of `cache`, which goes away
    /// by itself where the download ends early.
    pub(super) async fn fetch(&self, cache: &Cache) -> Result<Download, FetchError> {
        let request = self.client.get(self.url.clone());
        let mut response = request.send().await?.error_for_status()?;
        let declared = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        if !declared.is_some_and(|declared| declared.starts_with("image/")) {
            return Err(FetchError::NotAPicture);
        }
        if response.content_length() > Some(SIZE_LIMIT) {
            return Err(FetchError::TooLarge);
        }

        let (temporary, mut file) = cache.temporary_file().await?;
        let mut signature = Vec::with_capacity(SIGNATURE_SIZE);
        let mut hash = Xxh3Default::new();
        let mut size = 0;
        while let Some(chunk) = response.chunk().await? {
            size += chunk.len() as u64;
            if size > SIZE_LIMIT {
                return Err(FetchError::TooLarge);
            }
            let missing = SIGNATURE_SIZE - signature.len();
            signature.extend(chunk.iter().take(missing));
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        let content_type = ImageType::of(&signature).ok_or(FetchError::NotAPicture)?;
        file.sync_all().await?;
        Ok(Download {
            temporary,
            content_type,
            size,
            hash: hash.digest128(),
        })
    }
}

/// Why there is no new picture.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the origin did not give one: {0}")]
    Origin(#[from] reqwest::Error),
    #[error("the answer is not a JPEG, PNG, WebP, GIF or AVIF picture")]
    NotAPicture,
    #[error("the picture has more than {SIZE_LIMIT} bytes")]
    TooLarge,
    #[error("it cannot be kept: {0}")]
    Cache(#[from] io::Error),
}
