//! Options of kernel sockets that tokio has no methods for.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::ext::KeepAlive;

pub(crate) fn keepalive(socket: &SockRef<'_>) -> io::Result<Option<KeepAlive>> {
    if !socket.keepalive()? {
        return Ok(None);
    }
    #[cfg(not(windows))]
    return Ok(Some(KeepAlive {
        time: socket.tcp_keepalive_time()?,
        interval: socket.tcp_keepalive_interval()?,
        count: socket.tcp_keepalive_retries()?,
    }));
    #[cfg(windows)]
    return Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system does not tell the times of keep-alive probes",
    ));
}

pub(crate) fn set_keepalive(socket: &SockRef<'_>, keepalive: Option<KeepAlive>) -> io::Result<()> {
    match keepalive {
        None => socket.set_keepalive(false),
        Some(KeepAlive {
            time,
            interval,
            count,
        }) => socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(time)
                .with_interval(interval)
                .with_retries(count),
        ),
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn user_timeout(socket: &SockRef<'_>) -> io::Result<Option<Duration>> {
    Ok(socket
        .tcp_user_timeout()?
        .filter(|timeout| !timeout.is_zero()))
}

#[cfg(target_os = "linux")]
pub(crate) fn set_user_timeout(socket: &SockRef<'_>, timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(timeout)
}

#[cfg(target_os = "linux")]
pub(crate) fn congestion(socket: &SockRef<'_>) -> io::Result<String> {
    let name = socket.tcp_congestion()?;
    let end = name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

#[cfg(target_os = "linux")]
pub(crate) fn set_congestion(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn user_timeout(_: &SockRef<'_>) -> io::Result<Option<Duration>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set_user_timeout(_: &SockRef<'_>, _: Option<Duration>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn congestion(_: &SockRef<'_>) -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set_congestion(_: &SockRef<'_>, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
