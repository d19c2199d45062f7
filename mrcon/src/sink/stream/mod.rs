//! RabbitMQ's native stream protocol: several messages a frame, and repeats dropped by the broker.
//!
//! Each message has its Seq as publishing id, and each connector the name of a producer
//! (`lineage.rs`): the broker takes no id that is not above the last one of that name. Each
//! connector has one publisher, or one for each partition of a super stream. As over AMQP, connectors
//! may share a connection ([`StreamConnections`]); a stream that is deleted ends no other's run.
//!
//! After any error of a message nothing more is sent: a higher id would make the broker drop the
//! lower one when it comes again. The run ends.

mod command;
mod hash;
mod login;
mod message;
mod protocol;
mod seat;
mod topology;

#[cfg(test)]
pub(crate) use message::write as write_message;

use super::connections::Connections;
use super::{Outcome, Settlement, Sink, late};
use crate::budget::UNSENT_BYTES;
use crate::config::RabbitMq;
use crate::envelope::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::StreamUri;
use bytes::BufMut;
use command::{Frame, SIZE_BYTES};
use protocol::Streams;
use seat::Seat;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;
use topology::Topology;

/// Bytes waiting for the socket above which the connector encodes no further: a few turns' worth.
const WRITE_BUFFER_HIGH: usize = UNSENT_BYTES;
/// Size from which on a frame is full: few enough bytes that the first of them need not wait.
const FULL_FRAME: usize = 64 << 10;
/// How long the broker may take to say goodbye.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Key, version, publisher and number of messages, behind a frame's size.
const PUBLISH_HEAD: usize = 2 + 2 + 1 + 4;

/// The connections of one process to one broker over the stream protocol, opened when they are first
/// needed.
///
/// A few connectors have a connection each. More of them share one, up to 256 publishers.
#[derive(Debug)]
pub struct StreamConnections(Connections<Streams>);

impl StreamConnections {
    /// For connectors of these names, in the order of the configuration; `sharing` is how many of
    /// them use a connection together, by default what suits their number.
    pub fn new(uri: StreamUri, connectors: &[String], sharing: Option<usize>) -> StreamConnections {
        StreamConnections(Connections::new(uri, connectors, sharing))
    }

    /// The same connectors at another broker, or with another login; a connection that there is stays.
    pub(crate) fn lead_to(&self, uri: StreamUri) {
        self.0.lead_to(uri);
    }

    /// A seat for a connector, with ids for so many publishers. The caller sets the deadline.
    async fn seat(&self, connector: usize, publishers: usize) -> Result<Seat> {
        self.0.port(connector, publishers).await.map(Seat::on)
    }
}

/// A connection to a broker where the stream is, before it is known under which name to publish.
#[derive(Debug)]
pub struct StreamLink {
    seat: Seat,
    topology: Topology,
    max_message_bytes: Option<u64>,
    /// How long the rest of the opening may take.
    limit: Duration,
}

impl StreamLink {
    /// Connects, and finds or creates the stream.
    ///
    /// `connector` is the connector's place among the names of `connections`, which decides whose
    /// connection it uses.
    ///
    /// # Errors
    /// No connection, refused credentials, a broker without the protocol, a stream that is missing or
    /// cannot be used.
    pub async fn connect(
        connections: &StreamConnections,
        connector: usize,
        target: &RabbitMq,
    ) -> Result<StreamLink> {
        let uri = connections.0.uri();
        let limit = uri.connection_timeout;
        let opening = async {
            let mut seat = connections.seat(connector, 1).await?;
            let topology = topology::ensure(&mut seat, target).await?;
            let publishers = topology.streams().len();
            if !seat.reserve(publishers) {
                seat = connections.seat(connector, publishers).await?;
            }
            Ok((seat, topology))
        };
        let (seat, topology) = timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(late(&format!("connect to {uri}"), limit)))?;
        Ok(StreamLink {
            seat,
            topology,
            max_message_bytes: target.max_message_bytes,
            limit,
        })
    }

    /// Partitions of the super stream; 0 for a plain stream.
    pub fn partitions(&self) -> usize {
        match &self.topology {
            Topology::Plain(_) => 0,
            Topology::Super(partitions) => partitions.len(),
        }
    }

    /// Begins to publish under the name of `producer`, with `next_seq` as the first id.
    ///
    /// Returns also the last id that the broker has of this producer; 0 if none.
    ///
    /// # Errors
    /// As [`StreamLink::connect`].
    pub async fn publish_as(mut self, producer: &str, next_seq: u64) -> Result<(StreamSink, u64)> {
        let within = self.limit;
        let declaring = self.seat.declare(producer, self.topology.streams());
        let last = timeout(within, declaring)
            .await
            .unwrap_or_else(|_| Err(late("declare a publisher", within)))?;
        let limits = *self.seat.limits();
        let full = [limits.usual_frame, limits.frame_max];
        let sink = StreamSink {
            full_frame: full.into_iter().flatten().fold(FULL_FRAME, usize::min),
            frame_max: limits.frame_max,
            publishers: self
                .seat
                .publishers()
                .into_iter()
                .map(Publisher::new)
                .collect(),
            seat: self.seat,
            gathered: 0,
            confirmed_to: next_seq - 1,
            last_seq: next_seq - 1,
            skipped: VecDeque::new(),
            max_message_bytes: self.max_message_bytes,
        };
        Ok((sink, last))
    }

    /// Takes leave of the broker without having published.
    pub async fn close(self) {
        let _ = timeout(CLOSE_DEADLINE, self.seat.close()).await;
    }
}

/// Publishers to one stream or super stream. See the module's documentation.
#[derive(Debug)]
pub struct StreamSink {
    seat: Seat,
    /// One for each partition, in their order.
    publishers: Vec<Publisher>,
    /// Bytes in frames that are not with the seat yet.
    gathered: usize,
    full_frame: usize,
    frame_max: Option<usize>,
    /// Every id up to this one is confirmed; others above it may be.
    confirmed_to: u64,
    last_seq: u64,
    /// Numbers above `confirmed_to` that were not published, in order: those events were put aside.
    skipped: VecDeque<u64>,
    /// As configured: the protocol has no limit of its own.
    max_message_bytes: Option<u64>,
}

/// The publisher of one stream, with the frame that it gathers messages in.
#[derive(Debug)]
struct Publisher {
    id: u8,
    frame: Vec<u8>,
    messages: u32,
    /// Ids that are not confirmed, in order.
    owed: VecDeque<u64>,
    /// The highest id that was confirmed before an earlier one.
    confirmed_early: u64,
}

impl Publisher {
    fn new(id: u8) -> Publisher {
        Publisher {
            id,
            frame: Vec::new(),
            messages: 0,
            owed: VecDeque::new(),
            confirmed_early: 0,
        }
    }

    fn gather(&mut self, seq: u64, message: &Message<'_>) {
        if self.messages == 0 {
            command::begin_frame(&mut self.frame, command::PUBLISH);
            self.frame.put_u8(self.id);
            self.frame.put_u32(0);
        }
        self.frame.put_u64(seq);
        let start = self.frame.len();
        self.frame.put_u32(0);
        message::write(&mut self.frame, seq, message);
        let size = (self.frame.len() - start - 4) as u32;
        self.frame[start..start + 4].copy_from_slice(&size.to_be_bytes());
        self.messages += 1;
    }

    fn confirmed(&mut self, id: u64) {
        if self.owed.front() == Some(&id) {
            self.owed.pop_front();
        } else if let Ok(index) = self.owed.binary_search(&id) {
            self.owed.remove(index);
            self.confirmed_early = self.confirmed_early.max(id);
        }
    }

    /// Whether an id is not confirmed, and a later one is.
    fn has_gap(&self) -> bool {
        let first = self.owed.front();
        first.is_some_and(|first| *first < self.confirmed_early)
    }

    /// Makes a whole frame of what was gathered.
    fn finish(&mut self) {
        command::end_frame(&mut self.frame, 0);
        let count = SIZE_BYTES + PUBLISH_HEAD - 4;
        self.frame[count..count + 4].copy_from_slice(&self.messages.to_be_bytes());
        self.messages = 0;
    }
}

impl StreamSink {
    /// Which publisher an event goes to. Events about no document go to the first partition.
    fn partition_of(&self, message: &Message<'_>) -> usize {
        match (self.publishers.len(), message.route) {
            (1, _) | (_, None) => 0,
            (count, Some(route)) => hash::partition(route, count),
        }
    }

    /// Gives the frame of a publisher to the seat.
    fn send(&mut self, index: usize) {
        let publisher = &mut self.publishers[index];
        if publisher.messages == 0 {
            return;
        }
        publisher.finish();
        self.gathered -= publisher.frame.len();
        // A frame that would fill a segment is one; small ones of many partitions share it.
        match publisher.frame.len() >= self.full_frame {
            true => self.seat.hand_over(&mut publisher.frame),
            false => self.seat.append(&mut publisher.frame),
        }
    }

    fn on_frame(&mut self, mut frame: Frame, into: &mut Vec<Settlement>) -> Result<()> {
        match frame.key {
            command::PUBLISH_CONFIRM => {
                let number = frame.fields.u8()?;
                let alone = self.publishers.len() == 1;
                let its = |publisher: &&mut Publisher| publisher.id == number;
                let mut publisher = self.publishers.iter_mut().find(its);
                for _ in 0..frame.fields.u32()? {
                    let id = frame.fields.u64()?;
                    if let Some(publisher) = &mut publisher {
                        publisher.confirmed(id);
                    }
                    step_over(&mut self.confirmed_to, &mut self.skipped);
                    note_confirm(&mut self.confirmed_to, alone, id, into);
                }
                Ok(())
            }
            command::PUBLISH_ERROR => {
                let _publisher = frame.fields.u8()?;
                let _count = frame.fields.u32()?;
                let (id, code) = (frame.fields.u64()?, frame.fields.u16()?);
                Err(command::refusal(code, &format!("publish event {id}")))
            }
            _ => self.seat.on_notice(frame, "publish"),
        }
    }
}

/// Moves over numbers that the broker never heard of.
fn step_over(confirmed_to: &mut u64, skipped: &mut VecDeque<u64>) {
    while skipped.front() == Some(&(*confirmed_to + 1)) {
        skipped.pop_front();
        *confirmed_to += 1;
    }
}

/// One confirmed id. Ids of a plain stream come in order, so a run of them is one settlement; those
/// of partitions do not, and the ids between them belong to others.
fn note_confirm(confirmed_to: &mut u64, alone: bool, id: u64, into: &mut Vec<Settlement>) {
    let next = *confirmed_to + 1;
    let multiple = alone && id == next;
    if multiple {
        *confirmed_to = id;
        if let Some(last) = into.last_mut()
            && last.multiple
            && last.seq + 1 == id
        {
            last.seq = id;
            return;
        }
    }
    into.push(Settlement {
        seq: id,
        multiple,
        outcome: Outcome::Confirmed,
    });
}

impl Sink for StreamSink {
    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        let index = self.partition_of(message);
        let most = message::most_bytes(message) + SIZE_BYTES + PUBLISH_HEAD + 12;
        let limit = self
            .frame_max
            .unwrap_or(usize::MAX)
            .min(u32::MAX as usize >> 1);
        if self.publishers[index].frame.len() + most > limit {
            self.send(index);
        }
        let publisher = &mut self.publishers[index];
        let before = publisher.frame.len();
        publisher.frame.reserve(most);
        publisher.gather(seq, message);
        if publisher.frame.len() > limit {
            // Nothing of it has been sent: it was alone in its frame.
            let bytes = publisher.frame.len();
            publisher.frame = Vec::new();
            publisher.messages = 0;
            let text = format!(
                "publish event {seq}: its frame has {bytes} bytes, {limit} are allowed (frame_max of the URI)"
            );
            return Err(Error::new(ErrorKind::MessageTooLarge, text));
        }
        publisher.owed.push_back(seq);
        let after = publisher.frame.len();
        self.gathered += after - before;
        if self.publishers.len() == 1 {
            self.skipped.extend(self.last_seq + 1..seq);
        }
        self.last_seq = seq;
        if after >= self.full_frame {
            self.send(index);
        }
        Ok(())
    }

    fn max_message_bytes(&self) -> Option<u64> {
        self.max_message_bytes
    }

    fn has_room(&self) -> bool {
        self.seat.unsent() + self.gathered < WRITE_BUFFER_HIGH
    }

    fn has_gap(&self) -> bool {
        self.publishers.iter().any(Publisher::has_gap)
    }

    /// The protocol has no word for it: during an alarm the broker just does not confirm.
    fn blocked(&self) -> Option<&str> {
        None
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        let had_room = self.has_room();
        for index in 0..self.publishers.len() {
            self.send(index);
        }
        loop {
            while let Some(frame) = self.seat.next_frame()? {
                self.on_frame(frame, into)?;
            }
            if !into.is_empty() || self.has_room() != had_room {
                return Ok(());
            }
            self.seat.turn(had_room, WRITE_BUFFER_HIGH).await?;
        }
    }

    async fn close(self) {
        let _ = timeout(CLOSE_DEADLINE, self.seat.close()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::sample as message;
    use bytes::BytesMut;

    fn settled(base: u64, alone: bool, ids: &[u64]) -> Vec<(u64, bool)> {
        let (mut confirmed_to, mut into) = (base, Vec::new());
        for id in ids {
            note_confirm(&mut confirmed_to, alone, *id, &mut into);
        }
        into.iter()
            .map(|settlement| (settlement.seq, settlement.multiple))
            .collect()
    }

    #[test]
    fn confirm_covers_a_message_that_the_broker_did_not_confirm() {
        assert_eq!(settled(0, true, &[1, 2, 3]), [(3, true)]);
        // A repeat that is dropped may be confirmed before new messages that were sent before it.
        assert_eq!(
            settled(10, true, &[13, 11, 12, 13]),
            [(13, false), (13, true)]
        );
        assert_eq!(
            settled(10, true, &[11, 13, 14]),
            [(11, true), (13, false), (14, false)]
        );
        // What is not known is passed on, and counts for nothing in the window.
        assert_eq!(
            settled(10, true, &[3, u64::MAX, 11]),
            [(3, false), (u64::MAX, false), (11, true)]
        );
        assert_eq!(
            settled(0, false, &[1, 2, 4]),
            [(1, false), (2, false), (4, false)]
        );
    }

    #[test]
    fn confirms_behind_an_event_that_was_put_aside_count_one_by_one() {
        let (mut confirmed_to, mut skipped) = (0, VecDeque::from([1, 2, 4]));
        let mut into = Vec::new();
        for id in [3, 5, 6] {
            step_over(&mut confirmed_to, &mut skipped);
            note_confirm(&mut confirmed_to, true, id, &mut into);
        }
        let multiple = |settlement: &Settlement| settlement.multiple;
        assert!(into.iter().all(multiple), "{into:?}");
        assert_eq!((confirmed_to, skipped.len()), (6, 0));
    }

    #[test]
    fn message_that_never_arrived_is_taken_for_one_that_is_only_late() {
        let mut publisher = Publisher::new(0);
        // Events between them were put aside, or are another partition's.
        publisher.owed.extend([3, 5, 6, 9, 10]);
        let mut gap_after = |id| {
            publisher.confirmed(id);
            publisher.has_gap()
        };
        assert!(!gap_after(3));
        assert!(gap_after(6));
        assert!(gap_after(9));
        // It was late; what is not known counts for nothing.
        assert!(!gap_after(5));
        assert!(!gap_after(7) && !gap_after(u64::MAX));
        assert!(!gap_after(10));
    }

    #[test]
    fn frame_of_several_messages_has_wrong_sizes() {
        let mut publisher = Publisher::new(3);
        publisher.gather(41, &message(b"{}"));
        publisher.gather(42, &message(b"{\"a\":1}"));
        publisher.finish();
        let mut input = BytesMut::from(&publisher.frame[..]);
        let mut frame = Frame::of(command::cut(&mut input).unwrap().unwrap()).unwrap();
        assert!(input.is_empty());
        assert_eq!(frame.key, command::PUBLISH);
        assert_eq!(frame.fields.u8().unwrap(), 3);
        assert_eq!(frame.fields.u32().unwrap(), 2);
        for (seq, body) in [(41, &b"{}"[..]), (42, b"{\"a\":1}")] {
            assert_eq!(frame.fields.u64().unwrap(), seq);
            let size = frame.fields.u32().unwrap();
            let bytes: Vec<u8> = (0..size).map(|_| frame.fields.u8().unwrap()).collect();
            let mut expected = Vec::new();
            message::write(&mut expected, seq, &message(body));
            assert_eq!(bytes, expected);
        }
        assert!(frame.fields.u8().is_err(), "something follows");
    }
}
