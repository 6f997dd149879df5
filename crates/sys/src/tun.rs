//! TAP and TUN devices (/dev/net/tun): creation, offloads, one frame or packet a call.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::eventfd::check;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const IFF_TUN: i16 = 0x0001;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const F_CSUM: libc::c_ulong = 0x01;
const F_TSO4: libc::c_ulong = 0x02;
const F_TSO6: libc::c_ulong = 0x04;
const F_TSO_ECN: libc::c_ulong = 0x08;
const F_USO: libc::c_ulong = 0x20 | 0x40;

/// Length of the virtio-net header in front of each frame.
pub const VNET_HEADER_LEN: usize = 10;

/// An open TAP or TUN device. Any thread may read or write; each call moves one frame whole.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

impl Tap {
    /// Creates the device `name`, or attaches to it if it is there, persistent and unused (`EBUSY` if used). It passes
    /// super-frames and partial checksums with a virtio-net header of [`VNET_HEADER_LEN`] bytes.
    pub fn open(name: &str) -> io::Result<Tap> {
        Tap::open_as(name, IFF_TAP)
    }

    /// The same for a TUN device, whose packets begin with their IP headers.
    pub fn open_tun(name: &str) -> io::Result<Tap> {
        Tap::open_as(name, IFF_TUN)
    }

    fn open_as(name: &str, kind: i16) -> io::Result<Tap> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        // SAFETY: all-zero bytes are a valid ifreq.
        let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.is_empty() || name.len() >= req.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        for (to, from) in req.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        req.ifr_ifru.ifru_flags = kind | IFF_NO_PI | IFF_VNET_HDR;
        let fd = file.as_raw_fd();
        // SAFETY: req lives through the call.
        check(unsafe { libc::ioctl(fd, TUNSETIFF, &mut req) })?;
        let size = VNET_HEADER_LEN as libc::c_int;
        // SAFETY: the ioctl reads one int.
        check(unsafe { libc::ioctl(fd, TUNSETVNETHDRSZ, &size) })?;
        let tcp = F_CSUM | F_TSO4 | F_TSO6 | F_TSO_ECN;
        // Kernels before 6.2 know no UDP segmentation; those before that may lack the rest, and work without.
        for offloads in [tcp | F_USO, tcp, F_CSUM] {
            // SAFETY: the argument is the flag word itself.
            if unsafe { libc::ioctl(fd, TUNSETOFFLOAD, offloads) } == 0 {
                break;
            }
        }
        Ok(Tap { file })
    }

    /// Does the device outlive its last descriptor?
    pub fn set_persistent(&self, on: bool) -> io::Result<()> {
        let on = libc::c_ulong::from(on);
        // SAFETY: the argument is the value itself.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETPERSIST, on) })?;
        Ok(())
    }

    /// Reads one frame, header first, over `parts` in turn; the number of bytes in all. `WouldBlock` if none waits.
    /// What does not fit is cut off.
    pub fn read(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&self.file).read_vectored(parts)
    }

    /// Writes one frame, header first.
    pub fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(parts)
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
