//! The memory that packets lie in.

use crate::XskError;
use crate::error::{UMEM, failed};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::net::sockopt::set_xdp_umem_reg;
use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};
use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the memory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UmemSettings {
    /// How many frames: each holds one packet.
    pub frames: u32,
    /// The size of each in bytes: a power of two from 2048 to the page size. A packet that does not
    /// fit, behind the headroom and 256 bytes of the kernel's, is dropped.
    pub frame_size: u32,
    /// Bytes that stay free before each received packet, for a header to be put there.
    pub headroom: u32,
}

impl Default for UmemSettings {
    fn default() -> Self {
        Self { frames: 4096, frame_size: 4096, headroom: 0 }
    }
}

/// Packet memory, shared with the kernel. Clones are the same memory.
#[derive(Debug, Clone)]
pub struct Umem(Arc<Area>);

/// A piece of packet memory for one packet, and the right to read and write it. There is one for
/// each piece, so who has it has it alone; one that is dropped is not used again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is dropped is not used again"]
pub struct Frame {
    /// Which memory it is of.
    umem: u64,
    number: u32,
}

#[derive(Debug)]
struct Area {
    start: *mut c_void,
    settings: UmemSettings,
    /// Unlike that of any other in this process.
    id: u64,
}

// SAFETY: the memory is not bound to a thread, and bytes are only reached by whoever holds a frame.
unsafe impl Send for Area {}
// SAFETY: as above; nothing else of it changes.
unsafe impl Sync for Area {}

impl Area {
    fn length(&self) -> usize {
        self.settings.frames as usize * self.settings.frame_size as usize
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made, whole. References into it borrow an `Umem`, and
        // none is left. A socket that is still open holds the pages, not the mapping.
        let _ = unsafe { munmap(self.start, self.length()) };
    }
}

impl Umem {
    /// Makes memory, and gives all its frames.
    ///
    /// # Errors
    /// [`XskError`]: the settings make no sense, or there is not that much memory.
    pub fn new(settings: UmemSettings) -> Result<(Self, Vec<Frame>), XskError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let UmemSettings { frames, frame_size: size, headroom } = settings;
        // net/xdp/xdp_umem.c: XDP_UMEM_MIN_CHUNK_SIZE, and at most a page.
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        if !size.is_power_of_two() || size < 2048 || size > page {
            return Err(XskError::FrameSize { size });
        }
        if frames == 0 || u64::from(frames) * u64::from(size) > u64::from(u32::MAX) {
            return Err(XskError::FrameCount { count: frames, size });
        }
        // XDP_PACKET_HEADROOM comes on top, and something has to be left.
        if headroom >= size - 256 {
            return Err(XskError::Headroom { headroom, size });
        }
        let length = frames as usize * size as usize;
        // SAFETY: a new mapping at a place of the kernel's choice touches nobody else's memory.
        let start = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap_anonymous(null_mut(), length, access, MapFlags::PRIVATE | MapFlags::POPULATE)
        };
        let start = start.map_err(|errno| failed("get packet memory", errno))?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let umem = Self(Arc::new(Area { start, settings, id }));
        let frames = (0..frames).map(|number| Frame { umem: id, number }).collect();
        Ok((umem, frames))
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> UmemSettings {
        self.0.settings
    }

    /// All bytes of a frame.
    ///
    /// # Panics
    /// The frame is of another memory.
    #[must_use]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        // SAFETY: the place is a whole frame within the mapping, which lives as long as `self`. Bytes
        // are always initialised. Nobody writes them: only one `Frame` exists for them, it is
        // borrowed, and the kernel has none of those that exist.
        unsafe {
            std::slice::from_raw_parts(self.place(frame), self.0.settings.frame_size as usize)
        }
    }

    /// All bytes of a frame, to be written.
    ///
    /// # Panics
    /// The frame is of another memory.
    #[must_use]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: as for reading; and nobody reads them, because the only `Frame` for them is
        // borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(self.place(frame), self.0.settings.frame_size as usize)
        }
    }

    fn place(&self, frame: &Frame) -> *mut u8 {
        assert_eq!(frame.umem, self.0.id, "the frame is of another packet memory");
        let offset = frame.number as usize * self.0.settings.frame_size as usize;
        // SAFETY: frames of this memory have numbers below their count, so this is in the mapping.
        unsafe { self.0.start.cast::<u8>().add(offset) }
    }

    /// Where a frame begins, as rings name it.
    pub(crate) fn address(&self, frame: &Frame) -> u64 {
        assert_eq!(frame.umem, self.0.id, "the frame is of another packet memory");
        u64::from(frame.number) * u64::from(self.0.settings.frame_size)
    }

    /// The frame that the kernel gives back with an address in it, and where in it that is; `None`:
    /// it is beyond the memory, which no kernel says.
    ///
    /// For addresses that came from a ring only: each makes a frame that was handed over exist again.
    pub(crate) fn frame_back(&self, address: u64) -> Option<(Frame, u32)> {
        let size = u64::from(self.0.settings.frame_size);
        let number = u32::try_from(address / size).ok()?;
        let within = u32::try_from(address % size).ok()?;
        (number < self.0.settings.frames).then_some((Frame { umem: self.0.id, number }, within))
    }

    /// Makes it the memory of a socket.
    pub(crate) fn register(&self, socket: BorrowedFd<'_>) -> Result<(), XskError> {
        let Area { start, settings, .. } = &*self.0;
        let register = XdpUmemReg {
            addr: start.addr() as u64,
            len: self.0.length() as u64,
            chunk_size: settings.frame_size,
            headroom: settings.headroom,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        set_xdp_umem_reg(socket, register).map_err(|errno| failed(UMEM, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_separate_pieces() {
        let settings = UmemSettings { frames: 3, frame_size: 2048, headroom: 0 };
        let (umem, mut frames) = Umem::new(settings).unwrap();
        for (number, frame) in (1u8..).zip(&mut frames) {
            umem.bytes_mut(frame).fill(number);
        }
        for (number, frame) in (1u8..).zip(&frames) {
            assert_eq!(umem.bytes(frame), vec![number; 2048]);
        }
        assert_eq!(umem.address(&frames[2]), 4096);
        let (back, within) = umem.frame_back(4096 + 256).unwrap();
        assert_eq!((&back, within), (&frames[2], 256));
        assert_eq!(umem.frame_back(3 * 2048), None);
        assert_eq!(umem.frame_back(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "another packet memory")]
    fn a_frame_of_another_memory_is_not_taken() {
        let (_, others) = Umem::new(UmemSettings::default()).unwrap();
        let (umem, _frames) = Umem::new(UmemSettings::default()).unwrap();
        let _ = umem.bytes(&others[0]);
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let refused = |frames, frame_size, headroom| {
            Umem::new(UmemSettings { frames, frame_size, headroom }).unwrap_err().to_string()
        };
        assert!(refused(1, 1000, 0).starts_with("frames of 1000 bytes"));
        assert!(refused(1, 1 << 30, 0).starts_with("frames of"));
        assert!(refused(0, 4096, 0).starts_with("0 frames"));
        assert!(refused(1 << 20, 4096, 0).starts_with("1048576 frames"));
        assert!(refused(1, 2048, 1800).starts_with("headroom of 1800"));
    }
}
