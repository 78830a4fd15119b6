//! A child that does one thing in another place (another root, another session) and hands a descriptor back; and
//! messages with descriptors, which that needs too.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::os;

/// A connected pair of unix sockets of this type (SOCK_*), close-on-exec.
pub fn pair(kind: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for two descriptors.
    os::check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: the call succeeded: both are open and ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Room for the descriptors of one message, aligned as the kernel wants it.
fn control_words(descriptors: usize) -> usize {
    (size_of::<libc::cmsghdr>() + 4 * descriptors).div_ceil(8) + 1
}

fn bytes_of(descriptors: usize) -> u32 {
    u32::try_from(4 * descriptors).unwrap_or(u32::MAX)
}

/// One sendmsg: bytes, descriptors with them, and where to, if the socket is not connected. How many bytes went.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[RawFd],
    to: Option<&Address>,
) -> io::Result<usize> {
    let mut iov = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = vec![0u64; control_words(fds.len())];
    // SAFETY: all zero is a message without anything.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    if let Some(to) = to {
        msg.msg_name = std::ptr::from_ref(&to.raw).cast_mut().cast();
        msg.msg_namelen = to.len;
    }
    if !fds.is_empty() {
        msg.msg_control = control.as_mut_ptr().cast();
        // SAFETY: arithmetic only.
        msg.msg_controllen = unsafe { libc::CMSG_SPACE(bytes_of(fds.len())) } as _;
        // SAFETY: `control` has room for the header and the descriptors, zeroed and aligned.
        unsafe {
            let head = libc::CMSG_FIRSTHDR(&msg);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = libc::CMSG_LEN(bytes_of(fds.len())) as _;
            std::ptr::copy_nonoverlapping(
                fds.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(head),
                4 * fds.len(),
            );
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: everything that the message refers to lives through the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &msg, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// An address of a unix socket.
pub struct Address {
    raw: libc::sockaddr_un,
    len: libc::socklen_t,
}

impl Address {
    /// A path, with the NUL that ends it if there is room.
    pub fn path(path: &str) -> io::Result<Address> {
        Address::new(path.as_bytes(), true)
    }

    /// A name that is no path, without the NUL before it.
    pub fn named(name: &[u8]) -> io::Result<Address> {
        Address::new(&[&[0], name].concat(), false)
    }

    fn new(bytes: &[u8], ends: bool) -> io::Result<Address> {
        // SAFETY: all zero is an address.
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX.try_into().unwrap_or(1);
        let most = raw.sun_path.len();
        if bytes.len() > most {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        let len = (bytes.len() + usize::from(ends)).min(most);
        let before = std::mem::offset_of!(libc::sockaddr_un, sun_path);
        let len =
            libc::socklen_t::try_from(before + len).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Address { raw, len })
    }

    /// bind(2).
    pub fn bind(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let raw = std::ptr::from_ref(&self.raw).cast();
        // SAFETY: the address is as long as the call is told.
        os::check(unsafe { libc::bind(socket.as_raw_fd(), raw, self.len) }).map(drop)
    }

    /// connect(2).
    pub fn connect(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let raw = std::ptr::from_ref(&self.raw).cast();
        // SAFETY: the address is as long as the call is told.
        os::check(unsafe { libc::connect(socket.as_raw_fd(), raw, self.len) }).map(drop)
    }
}

/// Receive one byte and at most one descriptor.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut byte = [0u8];
    let mut iov = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut control = vec![0u64; control_words(1)];
    // SAFETY: all zero is a message without anything.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic only.
    msg.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as _;
    // SAFETY: everything that the message refers to lives through the call.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut msg, libc::MSG_CMSG_CLOEXEC) };
    match n {
        1 => {}
        0 => return Err(io::Error::other("it died")),
        _ => return Err(io::Error::last_os_error()),
    }
    // SAFETY: the kernel filled the control data; a message of SCM_RIGHTS holds one descriptor, which is ours now.
    let fd = unsafe {
        let head = libc::CMSG_FIRSTHDR(&msg);
        if head.is_null() || (*head).cmsg_type != libc::SCM_RIGHTS {
            None
        } else {
            let mut fd: RawFd = -1;
            std::ptr::copy_nonoverlapping(
                libc::CMSG_DATA(head),
                std::ptr::from_mut(&mut fd).cast::<u8>(),
                4,
            );
            Some(OwnedFd::from_raw_fd(fd))
        }
    };
    Ok((byte[0], fd))
}

/// Do this in a child, which then ends. What it returns comes back. All signals are blocked.
pub fn elsewhere(f: impl FnOnce() -> io::Result<Option<OwnedFd>>) -> io::Result<Option<OwnedFd>> {
    let (ours, its) = pair(libc::SOCK_STREAM)?;
    // SAFETY: this process has one thread.
    let pid = os::check(unsafe { libc::fork() })?;
    if pid == 0 {
        drop(ours);
        let done = f();
        let (word, fd) = match &done {
            Ok(fd) => (0, fd.as_ref()),
            Err(e) => (e.raw_os_error().unwrap_or(libc::EIO), None),
        };
        let word = u8::try_from(word).unwrap_or(u8::MAX);
        let fds: Vec<RawFd> = fd.iter().map(|f| f.as_raw_fd()).collect();
        use std::os::fd::AsFd;
        let sent = send(its.as_fd(), &[word], &fds, None).is_ok();
        // SAFETY: ends this child without running the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!sent)) }
    }
    drop(its);
    use std::os::fd::AsFd;
    let got = receive(ours.as_fd());
    // SAFETY: our own child.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    match got? {
        (0, fd) => Ok(fd),
        (e, _) => Err(io::Error::from_raw_os_error(i32::from(e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_child_hands_back_a_descriptor_or_an_error() {
        let fd = elsewhere(|| os::memfd("x", b"words", false).map(Some)).unwrap();
        let mut text = String::new();
        let mut file = std::fs::File::from(fd.expect("a descriptor"));
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "words");
        assert!(elsewhere(|| Ok(None)).unwrap().is_none());
        let wrong = elsewhere(|| Err(io::Error::from_raw_os_error(libc::EXDEV)));
        assert_eq!(wrong.unwrap_err().raw_os_error(), Some(libc::EXDEV));
    }
}
