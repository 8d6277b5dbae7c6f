//! Socket options and requests that neither the standard library nor socket2 wraps.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Plain data that the kernel reads or fills in: any bit pattern is a value, and there is no padding.
pub(crate) trait Plain: Copy {}

impl Plain for i32 {}
impl Plain for u32 {}
impl<const N: usize> Plain for [u8; N] {}

/// `setsockopt` with an array of values.
pub(crate) fn set<T: Plain>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    values: &[T],
) -> io::Result<()> {
    let bytes = libc::socklen_t::try_from(size_of_val(values)).expect("options are a few bytes");
    // SAFETY: the kernel reads `bytes` bytes, the size of the slice, which outlives the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, values.as_ptr().cast(), bytes) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `getsockopt` of one value; what the kernel does not fill in stays zero.
pub(crate) fn get<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut bytes = libc::socklen_t::try_from(size_of::<T>()).expect("options are a few bytes");
    // SAFETY: the kernel writes at most `bytes` bytes, the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then partly overwritten; any bit pattern is a `Plain`.
    Ok(unsafe { value.assume_init() })
}

/// An `ioctl` that answers with a count: `SIOCINQ`, `SIOCOUTQ`, `SIOCOUTQNSD`.
pub(crate) fn count(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<usize> {
    let mut answer: libc::c_int = 0;
    // SAFETY: each of these requests writes one int through the pointer.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut answer) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(answer).map_err(io::Error::other)
}

/// `tcpi_bytes_received`: bytes that arrived in order, and one for a FIN.
pub(crate) fn bytes_received(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const OFFSET: usize = 128;
    let info: [u8; OFFSET + 8] = get(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&info[OFFSET..]);
    Ok(u64::from_ne_bytes(bytes))
}

/// `tcpi_state` of a listener, and `tcpi_sacked`, which is its backlog.
pub(crate) fn backlog(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    const TCP_LISTEN: u8 = 10;
    const OFFSET: usize = 28;
    let info: [u8; OFFSET + 4] = get(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&info[OFFSET..]);
    Ok((info[0] == TCP_LISTEN).then_some(u32::from_ne_bytes(bytes)))
}

/// Makes the kernel drop every segment that arrives for this socket before TCP sees it: its peer believes them
/// lost. Classic BPF of one instruction, `ret 0`.
pub(crate) fn drop_incoming(fd: BorrowedFd<'_>) -> io::Result<()> {
    const RETURN_CONSTANT: u16 = 0x06;
    let mut program = [libc::sock_filter {
        code: RETURN_CONSTANT,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    let filter = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    let bytes = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).expect("a few bytes");
    // SAFETY: the kernel copies the program of `len` instructions, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            bytes,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
