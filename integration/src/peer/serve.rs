//! The serving part.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Request, RequestKind, Serve, receive_hashed, send_pattern, until_stdin_ends};
use crate::stack::{Flex, Stack, StackKind};

const CHUNK: usize = 64 << 10;

/// Serves until standard input ends.
pub(super) async fn run<S: Stack>(args: &Serve) -> io::Result<()> {
    let listener = S::bind(args.listen, args.congestion.as_deref())?;
    println!("listening on {}", S::local_addr(&listener)?);
    tokio::select! {
        result = accept_all::<S>(listener) => result,
        () = until_stdin_ends() => Ok(()),
    }
}

/// Serves on a thread per core until standard input ends. Ours only.
pub(super) fn run_per_core(args: &Serve) -> io::Result<()> {
    if args.stack != StackKind::Flex {
        let text = "--per-core serves with --stack flex";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let announced = std::sync::Once::new();
    let ended = tokio::sync::watch::Sender::new(false);
    let ended_at = &ended;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // An error ends the input as well.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            ended_at.send_replace(true);
        });
        flextcp_net::PerCore::new().run(args.listen, |listener| {
            let mut ended = ended_at.subscribe();
            let announced = &announced;
            async move {
                let address = listener.local_addr()?;
                announced.call_once(|| println!("listening on {address}"));
                tokio::select! {
                    result = accept_all::<Flex>(listener) => result,
                    _ = ended.wait_for(|ended| *ended) => Ok(()),
                }
            }
        })
    })
    .map(drop)
}

/// Serves every connection in a task of its own.
pub(super) async fn accept_all<S: Stack>(listener: S::Listener) -> io::Result<()> {
    loop {
        let stream = match S::accept(&listener).await {
            Ok(stream) => stream,
            // The client gave up before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream).await
                && !is_hangup(&error)
            {
                eprintln!("connection: {error}");
            }
        });
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

async fn serve_one<T>(mut stream: T) -> io::Result<()>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Some(request) = Request::read(&mut stream).await? else {
        return Ok(());
    };
    match request.kind {
        RequestKind::Echo => {
            let mut buffer = vec![0; 4096];
            loop {
                let n = stream.read(&mut buffer).await?;
                if n == 0 {
                    return Ok(());
                }
                stream.write_all(&buffer[..n]).await?;
            }
        }
        RequestKind::Sink => {
            let mut buffer = vec![0; CHUNK];
            let mut count = 0u64;
            loop {
                let n = stream.read(&mut buffer).await?;
                if n == 0 {
                    break;
                }
                count += n as u64;
            }
            stream.write_u64_le(count).await?;
            stream.shutdown().await
        }
        RequestKind::Source => loop {
            stream.write_all(&[0x5a; CHUNK]).await?;
        },
        RequestKind::Exchange => {
            let (mut from, mut to) = tokio::io::split(stream);
            let (received, sent) = tokio::try_join!(
                receive_hashed(&mut from, request.len),
                send_pattern(&mut to, request.len, !request.seed),
            )?;
            to.write_all(&received).await?;
            to.write_all(&sent).await?;
            to.shutdown().await?;
            // Leave the close to the client, which then knows that all of it arrived.
            from.read(&mut [0]).await.map(drop)
        }
    }
}
