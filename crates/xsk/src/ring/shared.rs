//! Rings in memory that is shared with the kernel.

use super::{ConsumerIndex, ProducerIndex};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::sockopt::xdp_mmap_offsets;
use rustix::net::xdp::XdpRingOffset;
use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

/// `struct xdp_desc`: a packet in the packet memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) options: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16 && align_of::<Descriptor>() == 8);

/// The four rings of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Receive,
    Transmit,
    Fill,
    Completion,
}

/// `XDP_RING_NEED_WAKEUP`
const NEED_WAKEUP: u32 = 1;

impl Kind {
    /// `XDP_PGOFF_RX_RING` and so on.
    const fn page_offset(self) -> u64 {
        match self {
            Self::Receive => 0,
            Self::Transmit => 0x8000_0000,
            Self::Fill => 0x1_0000_0000,
            Self::Completion => 0x1_8000_0000,
        }
    }
}

/// Entries of a ring: numbers only, of which every bit pattern is one.
///
/// # Safety
/// Every bit pattern has to be a value.
unsafe trait Entry: Copy {}

// SAFETY: an integer.
unsafe impl Entry for u64 {}
// SAFETY: integers without padding between them.
unsafe impl Entry for Descriptor {}

/// A ring's memory. The counters are the kernel's to change at any time, so they are atomic; an
/// entry belongs to one side at a time, as the counters say.
#[derive(Debug)]
struct Memory<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    /// `None`: the kernel is older than 5.4.
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    size: u32,
    /// Everything above points into it.
    _mapping: Mapping,
}

/// What is given back at the end.
#[derive(Debug)]
struct Mapping {
    start: *mut c_void,
    length: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.start.is_null() {
            return;
        }
        // SAFETY: this is the mapping that was made, whole, and the ring that points into it is gone
        // with it.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

// SAFETY: the memory is not bound to a thread; all access is by one owner or atomic.
unsafe impl<T: Send> Send for Memory<T> {}

impl<T: Entry> Memory<T> {
    /// Maps a ring of a socket for which `size` entries were set.
    fn map(socket: BorrowedFd<'_>, kind: Kind, size: u32) -> rustix::io::Result<Self> {
        let all = xdp_mmap_offsets(socket)?;
        let at: XdpRingOffset = match kind {
            Kind::Receive => all.rx,
            Kind::Transmit => all.tx,
            Kind::Fill => all.fr,
            Kind::Completion => all.cr,
        };
        let place = |offset: u64| usize::try_from(offset).map_err(|_| rustix::io::Errno::OVERFLOW);
        let (producer, consumer, entries) =
            (place(at.producer)?, place(at.consumer)?, place(at.desc)?);
        let flags = at.flags.map(place).transpose()?;
        let length = entries + size as usize * size_of::<T>();
        let aligned = [producer, consumer, flags.unwrap_or(0)].iter().all(|at| at % 4 == 0);
        let inside = producer.max(consumer).max(flags.unwrap_or(0)) + 4 <= length;
        if !aligned || !inside || entries % align_of::<T>() != 0 {
            return Err(rustix::io::Errno::INVAL);
        }
        // SAFETY: a new mapping at a place of the kernel's choice touches nobody else's memory.
        let start = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::SHARED | MapFlags::POPULATE;
            mmap(null_mut(), length, access, flags, socket, kind.page_offset())?
        };
        let mapping = Mapping { start, length };
        let at = |offset: usize| {
            // SAFETY: the offset is within the mapping: checked above.
            NonNull::new(unsafe { start.byte_add(offset) }).ok_or(rustix::io::Errno::FAULT)
        };
        Ok(Self {
            producer: at(producer)?.cast(),
            consumer: at(consumer)?.cast(),
            flags: flags.map(at).transpose()?.map(NonNull::cast),
            entries: at(entries)?.cast(),
            size,
            _mapping: mapping,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: it points into the mapping, which lives as long as `self`, is aligned, and is only
        // ever accessed atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer's counter.
        unsafe { self.consumer.as_ref() }
    }

    /// Whether the kernel sleeps until it is woken.
    fn needs_wakeup(&self) -> bool {
        let Some(flags) = self.flags else { return false };
        // SAFETY: as for the producer's counter.
        unsafe { flags.as_ref() }.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// The entry at a place that an index gave for a ring of this size.
    fn entry(&self, slot: usize) -> *mut T {
        debug_assert!(slot < self.size as usize, "an index of another ring");
        // SAFETY: places are below the ring's size, and that many entries are mapped.
        unsafe { self.entries.as_ptr().add(slot) }
    }
}

/// A ring that this side fills.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    memory: Memory<T>,
    index: ProducerIndex,
}

/// A ring that this side empties.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    memory: Memory<T>,
    index: ConsumerIndex,
}

#[allow(private_bounds, reason = "entries are of two types, and both are here")]
impl<T: Entry> Producer<T> {
    pub(crate) fn map(socket: BorrowedFd<'_>, kind: Kind, size: u32) -> rustix::io::Result<Self> {
        Self::over(Memory::map(socket, kind, size)?).ok_or(rustix::io::Errno::INVAL)
    }

    fn over(memory: Memory<T>) -> Option<Self> {
        let consumer = memory.consumer().load(Ordering::Acquire);
        let producer = memory.producer().load(Ordering::Relaxed);
        let index = ProducerIndex::new(memory.size, producer, consumer)?;
        Some(Self { memory, index })
    }

    /// How many entries there is room for.
    pub(crate) fn room(&mut self) -> u32 {
        // What the other side read it has read before it published its counter.
        self.index.see(self.memory.consumer().load(Ordering::Acquire));
        self.index.room()
    }

    /// Hands over entries as long as there is room and `next` gives some; how many.
    pub(crate) fn produce(&mut self, wanted: u32, mut next: impl FnMut() -> T) -> u32 {
        if self.index.room() < wanted {
            self.room();
        }
        let slots = self.index.claim(wanted);
        let count = slots.len() as u32;
        for slot in slots {
            // SAFETY: the entry is this side's until the counter is published: the other side has
            // read it, by its own counter, or it was never written.
            unsafe { self.memory.entry(slot).write(next()) };
        }
        // The entries are written before the counter is seen.
        self.memory.producer().store(self.index.position(), Ordering::Release);
        count
    }

    pub(crate) fn needs_wakeup(&self) -> bool {
        self.memory.needs_wakeup()
    }
}

#[allow(private_bounds, reason = "entries are of two types, and both are here")]
impl<T: Entry> Consumer<T> {
    pub(crate) fn map(socket: BorrowedFd<'_>, kind: Kind, size: u32) -> rustix::io::Result<Self> {
        Self::over(Memory::map(socket, kind, size)?).ok_or(rustix::io::Errno::INVAL)
    }

    fn over(memory: Memory<T>) -> Option<Self> {
        let producer = memory.producer().load(Ordering::Acquire);
        let consumer = memory.consumer().load(Ordering::Relaxed);
        let index = ConsumerIndex::new(memory.size, producer, consumer)?;
        Some(Self { memory, index })
    }

    /// How many entries there are.
    pub(crate) fn available(&mut self) -> u32 {
        // What the other side wrote it has written before it published its counter.
        self.index.see(self.memory.producer().load(Ordering::Acquire));
        self.index.available()
    }

    /// Takes up to `wanted` entries; how many.
    pub(crate) fn consume(&mut self, wanted: u32, mut take: impl FnMut(T)) -> u32 {
        if self.index.available() < wanted {
            self.available();
        }
        let slots = self.index.claim(wanted);
        let count = slots.len() as u32;
        for slot in slots {
            // SAFETY: the entry is this side's until the counter is published: the other side has
            // written it, by its own counter.
            take(unsafe { self.memory.entry(slot).read() });
        }
        // The entries are read before the other side may write them again.
        self.memory.consumer().store(self.index.position(), Ordering::Release);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters and entries of a ring that no kernel has a part in.
    struct Heap {
        counters: Box<[AtomicU32; 3]>,
        entries: Box<[u64]>,
    }

    impl Heap {
        fn new(size: u32, start: u32) -> Self {
            let counters = Box::new([start, start, 0].map(AtomicU32::new));
            Self { counters, entries: vec![0; size as usize].into() }
        }

        /// One side's view. Both views have to end before the ring.
        fn view(&mut self) -> Memory<u64> {
            let [producer, consumer, flags] = &*self.counters;
            Memory {
                producer: NonNull::from(producer),
                consumer: NonNull::from(consumer),
                flags: Some(NonNull::from(flags)),
                entries: NonNull::from(&mut *self.entries).cast(),
                size: self.entries.len() as u32,
                _mapping: Mapping { start: null_mut(), length: 0 },
            }
        }
    }

    #[test]
    fn what_one_thread_puts_in_another_takes_out_in_order() {
        // A small ring hands over to the other thread all the time, which takes long on a machine
        // that has something else to do. Each count goes past the end of the counters.
        for (size, count) in [(1, 1_500), (2, 2_000), (64, 20_000), (1024, 200_000)] {
            let mut heap = Heap::new(size, u32::MAX - 1000);
            let mut producer = Producer::over(heap.view()).unwrap();
            let mut consumer = Consumer::over(heap.view()).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let mut next = 0;
                    while next < count {
                        let wanted = u32::try_from(count - next).unwrap().min(17);
                        let done = producer.produce(wanted, || {
                            next += 1;
                            next
                        });
                        if done == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
                let mut last = 0;
                while last < count {
                    let done = consumer.consume(29, |value| {
                        assert_eq!(value, last + 1, "in a ring of {size}");
                        last = value;
                    });
                    if done == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
    }

    #[test]
    fn the_kernel_says_when_it_sleeps() {
        let mut heap = Heap::new(4, 0);
        let producer = Producer::over(heap.view()).unwrap();
        assert!(!producer.needs_wakeup());
        heap.counters[2].store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }
}
