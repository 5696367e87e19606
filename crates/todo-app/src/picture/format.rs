//! Decides by its first bytes whether a file is shown.

use serde::{Deserialize, Serialize};

/// The largest picture that is shown, in pixels a side: a small file can decode
/// to more than a browser's memory.
const SIDE_LIMIT: usize = 8192;

/// The formats that are shown. None of them can contain a script.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ImageType {
    /// AV1 Image File Format.
    #[serde(rename = "image/avif")]
    Avif,
    /// Graphics Interchange Format.
    #[serde(rename = "image/gif")]
    Gif,
    /// JPEG.
    #[serde(rename = "image/jpeg")]
    Jpeg,
    /// Portable Network Graphics.
    #[serde(rename = "image/png")]
    Png,
    /// WebP.
    #[serde(rename = "image/webp")]
    Webp,
}

/// Why a file is not shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotShown {
    /// It has none of these formats, or its dimensions cannot be determined.
    #[error("the answer is not a JPEG, PNG, WebP, GIF or AVIF picture")]
    NotAPicture,
    /// A browser would need too much memory for it.
    #[error("the picture has more than {SIDE_LIMIT} pixels a side")]
    TooManyPixels,
}

impl ImageType {
    /// The format of the file that begins with `start`, whatever its declared
    /// type.
    ///
    /// # Errors
    /// If it must not be shown.
    pub fn of(start: &[u8]) -> Result<Self, NotShown> {
        let found = infer::get(start).ok_or(NotShown::NotAPicture)?.mime_type();
        let format = [Self::Avif, Self::Gif, Self::Jpeg, Self::Png, Self::Webp]
            .into_iter()
            .find(|format| format.as_str() == found)
            .ok_or(NotShown::NotAPicture)?;
        let sides = imagesize::blob_size(start).map_err(|_| NotShown::NotAPicture)?;
        if sides.width > SIDE_LIMIT || sides.height > SIDE_LIMIT {
            return Err(NotShown::TooManyPixels);
        }
        Ok(format)
    }

    /// The media type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avif => "image/avif",
            Self::Gif => "image/gif",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Avif => "avif",
            Self::Gif => "gif",
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_a_browser_would_execute_is_rejected() {
        for content in [
            &b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"[..],
            b"<?xml version='1.0'?><svg/>",
            b"<!doctype html><script></script>",
            b"%PDF-1.7",
            b"",
        ] {
            assert_eq!(ImageType::of(content), Err(NotShown::NotAPicture));
        }
    }
}
