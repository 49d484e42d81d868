//! A body that is there already, in chunks that several answers may share.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// The chunks of an answer. Clones share them; each has a place of its own.
#[derive(Clone, Debug)]
pub struct Body {
    chunks: Arc<[Bytes]>,
    next: usize,
    left_bytes: u64,
}

// === impl Body ===

impl Body {
    /// Bytes that are still to be read.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.left_bytes
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left_bytes == 0
    }

    /// What is left, copied into one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.chunks[self.next..].concat()
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(chunks: Vec<Bytes>) -> Body {
        let left_bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Body { chunks: chunks.into(), next: 0, left_bytes }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body::from(if bytes.is_empty() { Vec::new() } else { vec![bytes] })
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Body::from(Bytes::from(text))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::from(Bytes::from(text))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(chunk) = self.chunks.get(self.next).cloned() else { return Poll::Ready(None) };
        self.next += 1;
        self.left_bytes -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.chunks.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn each_clone_gives_all_chunks_and_knows_what_is_left() {
        let whole = Body::from(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        let mut one = whole.clone();
        assert_eq!(one.size_hint().exact(), Some(3));
        assert_eq!(one.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert!(one.size_hint().exact() == Some(1) && !one.is_end_stream() && one.to_vec() == b"c");
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "abc");
        assert!(one.frame().await.is_some() && one.is_end_stream() && one.frame().await.is_none());
        assert!(Body::from(Bytes::new()).is_end_stream());
    }
}
