//! Where in a ring to write or read next. Pure.

/// The side that fills a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerIndex {
    size: u32,
    /// The next entry that is written.
    next: u32,
    /// Up to where the other side was known to have read.
    consumed: u32,
}

/// The side that empties a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerIndex {
    size: u32,
    /// The next entry that is read.
    next: u32,
    /// Up to where the other side was known to have written.
    produced: u32,
}

/// Places in a ring, in order.
#[derive(Debug, Clone)]
pub struct Slots {
    mask: u32,
    next: u32,
    left: u32,
}

impl Iterator for Slots {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next & self.mask;
        self.next = self.next.wrapping_add(1);
        Some(at as usize)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Slots {}

impl ProducerIndex {
    /// For a ring of `size` entries whose counters stand as given; `None`: the size is no power of
    /// two.
    #[must_use]
    pub fn new(size: u32, producer: u32, consumer: u32) -> Option<Self> {
        size.is_power_of_two().then_some(Self { size, next: producer, consumed: consumer })
    }

    /// How many entries can be written before the other side has to be looked at again.
    #[must_use]
    pub fn room(&self) -> u32 {
        // A counter that makes no sense leaves no room.
        self.size.saturating_sub(self.next.wrapping_sub(self.consumed))
    }

    /// Takes note of how far the other side has read.
    pub fn see(&mut self, consumer: u32) {
        self.consumed = consumer;
    }

    /// The places of the next entries, up to `wanted`, which are now this side's to write.
    pub fn claim(&mut self, wanted: u32) -> Slots {
        let slots = Slots { mask: self.size - 1, next: self.next, left: wanted.min(self.room()) };
        self.next = self.next.wrapping_add(slots.left);
        slots
    }

    /// The counter to publish once the claimed entries are written.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.next
    }

    /// How many entries the other side was not known to have read.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.next.wrapping_sub(self.consumed).min(self.size)
    }
}

impl ConsumerIndex {
    /// For a ring of `size` entries whose counters stand as given; `None`: the size is no power of
    /// two.
    #[must_use]
    pub fn new(size: u32, producer: u32, consumer: u32) -> Option<Self> {
        size.is_power_of_two().then_some(Self { size, next: consumer, produced: producer })
    }

    /// How many entries can be read before the other side has to be looked at again.
    #[must_use]
    pub fn available(&self) -> u32 {
        let there = self.produced.wrapping_sub(self.next);
        // More than the ring has is nonsense: reading none is safe.
        if there > self.size { 0 } else { there }
    }

    /// Takes note of how far the other side has written.
    pub fn see(&mut self, producer: u32) {
        self.produced = producer;
    }

    /// The places of the next entries, up to `wanted`, to be read before the counter is published.
    pub fn claim(&mut self, wanted: u32) -> Slots {
        let left = wanted.min(self.available());
        let slots = Slots { mask: self.size - 1, next: self.next, left };
        self.next = self.next.wrapping_add(left);
        slots
    }

    /// The counter to publish once the claimed entries are read.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Debug, Clone)]
    enum Move {
        Produce(u32),
        Consume(u32),
        SeeConsumer,
        SeeProducer,
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            (0u32..40).prop_map(Move::Produce),
            (0u32..40).prop_map(Move::Consume),
            Just(Move::SeeConsumer),
            Just(Move::SeeProducer),
        ];
        proptest::collection::vec(one, 0..200)
    }

    proptest! {
        /// Both sides on one ring, each seeing of the other what it saw last: what goes in comes
        /// out, in order, once, and nothing that was not read is overwritten.
        #[test]
        fn a_ring_is_a_queue(power in 0u32..6, start: u32, moves in moves()) {
            let size = 1 << power;
            let mut producer = ProducerIndex::new(size, start, start).unwrap();
            let mut consumer = ConsumerIndex::new(size, start, start).unwrap();
            let mut ring = vec![None; size as usize];
            let (mut expected, mut next) = (VecDeque::new(), 0u64);
            for one in moves {
                match one {
                    Move::Produce(count) => {
                        let room = producer.room();
                        let slots = producer.claim(count);
                        prop_assert_eq!(slots.len() as u32, count.min(room));
                        for slot in slots {
                            prop_assert!(ring[slot].is_none(), "an entry was overwritten");
                            ring[slot] = Some(next);
                            expected.push_back(next);
                            next += 1;
                        }
                    }
                    Move::Consume(count) => {
                        for slot in consumer.claim(count) {
                            let read = ring[slot].take();
                            prop_assert!(read.is_some(), "an entry was read before it was written");
                            prop_assert_eq!(read, expected.pop_front());
                        }
                    }
                    Move::SeeConsumer => producer.see(consumer.position()),
                    Move::SeeProducer => consumer.see(producer.position()),
                }
                prop_assert!(producer.room() + producer.pending() == size);
                prop_assert!(consumer.available() <= size && expected.len() <= size as usize);
            }
        }

        /// Whatever the other side's counter says, places stay within the ring.
        #[test]
        fn a_counter_that_makes_no_sense_does_no_harm(
            power in 0u32..20, counters: [u32; 3], wanted: u32,
        ) {
            let size = 1 << power;
            let mut producer = ProducerIndex::new(size, counters[0], counters[1]).unwrap();
            let mut consumer = ConsumerIndex::new(size, counters[0], counters[1]).unwrap();
            producer.see(counters[2]);
            consumer.see(counters[2]);
            let wanted = wanted % 64;
            for slot in producer.claim(wanted).chain(consumer.claim(wanted)) {
                prop_assert!(slot < size as usize);
            }
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for size in [0, 3, 100, u32::MAX] {
            assert_eq!(ProducerIndex::new(size, 0, 0), None);
            assert_eq!(ConsumerIndex::new(size, 0, 0), None);
        }
        assert!(ProducerIndex::new(1 << 31, 0, 0).is_some());
    }
}
