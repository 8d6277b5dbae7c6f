//! A read buffer per thread instead of one per connection: an idle connection owns none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// The most that one read delivers.
pub const SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Reads from `stream` into the thread's buffer and hands the bytes to `consume` (none: end of
/// stream). `consume` must not call this function again.
///
/// # Errors
///
/// What the stream's `poll_read` returns.
pub fn poll_read_with<S, T>(
    mut stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    consume: impl FnOnce(Pin<&mut S>, &mut Context<'_>, &[u8]) -> T,
) -> Poll<io::Result<T>>
where
    S: AsyncRead + ?Sized,
{
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(stream.as_mut().poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(consume(stream, cx, buffer.filled())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn delivers_what_arrived_and_then_the_end() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"hello").await.unwrap();
        drop(theirs);
        let mut read = async || {
            poll_fn(|cx| poll_read_with(Pin::new(&mut ours), cx, |_, _, bytes| bytes.to_vec()))
                .await
                .unwrap()
        };
        assert_eq!(read().await, b"hello");
        assert_eq!(read().await, b"");
    }
}
