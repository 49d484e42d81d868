//! WebSocket on the wire, as much as a tunnel must read to end one between two frames: where frames end. Pure.
//!
//! Source: RFC 6455, sections 5.2 (framing), 5.4 (fragmentation), 5.5 (control frames), 7.4.1 (close codes).
//! Shape:  FIN, three bits of extensions and four of the opcode; MASK and seven bits of length; two or eight more bytes
//!         of length, big-endian, if those say 126 or 127; four bytes of key if MASK; the payload.
//! Absent: payloads are never looked at, so extensions that change them (RFC 7692) make no difference.

/// Most bytes of a frame's head: two, eight of length, four of key.
const HEAD_MAX: usize = 14;
/// "Going away": a server that is shutting down (RFC 6455, section 7.4.1).
const GOING_AWAY: [u8; 2] = 1001u16.to_be_bytes();

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// Who sends the frames of a direction: clients mask theirs, servers must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The side that asked for the WebSocket.
    Client,
    /// The side that accepted.
    Server,
}

/// Follows the frames of one direction, in whatever pieces they come. Copied to look ahead: it is 40 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    sender: Sender,
    state: State,
    /// The head of the current frame as far as it has come.
    head: [u8; HEAD_MAX],
    have: usize,
    /// A message was begun and its last fragment has not come.
    fragmented: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes of payload that are still to come.
    Payload(u64),
    /// A Close has passed, after which nothing may come.
    Closed,
    /// What came is no WebSocket: nobody knows where a frame ends.
    Broken,
}

impl Frames {
    /// A direction of which nothing has come yet.
    #[must_use]
    pub fn new(sender: Sender) -> Frames {
        Frames { sender, state: State::Head, head: [0; HEAD_MAX], have: 0, fragmented: false }
    }

    /// Whether the last frame is whole and another may follow: here a control frame may be put in, within a fragmented
    /// message, too.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.state == State::Head && self.have == 0
    }

    /// Whether a whole Close has passed.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether what came is no WebSocket.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Follows all of `bytes`, which come next.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.follow_frame(bytes)..];
        }
    }

    /// How many of the `bytes` that come next belong to a frame of which a part has come. All of them, if nobody knows.
    #[must_use]
    pub fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        if self.is_between_frames() { 0 } else { { *self }.follow_frame(bytes) }
    }

    /// Follows `bytes`, at least one, to the end of a frame or to their own. Returns how many.
    fn follow_frame(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            match self.state {
                State::Head => {
                    let n = (self.head_len() - self.have).min(rest.len());
                    self.head[self.have..self.have + n].copy_from_slice(&rest[..n]);
                    self.have += n;
                    used += n;
                    if self.have == 2 && !self.is_allowed() {
                        self.state = State::Broken;
                    } else if self.have == self.head_len() && self.begin_payload() {
                        return used;
                    }
                }
                State::Payload(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    used += n;
                    self.state = State::Payload(left - n as u64);
                    if left == n as u64 {
                        self.end_frame();
                        return used;
                    }
                }
                State::Closed | State::Broken => return bytes.len(),
            }
        }
        used
    }

    fn opcode(&self) -> u8 {
        self.head[0] & 0x0f
    }

    fn is_final(&self) -> bool {
        self.head[0] & 0x80 != 0
    }

    /// Bytes of length behind the first two of the head.
    fn long_len(&self) -> usize {
        match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn head_len(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        2 + self.long_len() + if self.sender == Sender::Client { 4 } else { 0 }
    }

    /// Whether a frame may begin with these two bytes, here.
    fn is_allowed(&self) -> bool {
        let masked = self.head[1] & 0x80 != 0;
        let order = match self.opcode() {
            CONTINUATION => self.fragmented,
            1..=BINARY => !self.fragmented,
            CLOSE..=PONG => self.is_final() && self.long_len() == 0,
            _ => false,
        };
        order && masked == (self.sender == Sender::Client)
    }

    /// The head is whole. Returns whether the frame is, too.
    fn begin_payload(&mut self) -> bool {
        let long = &self.head[2..2 + self.long_len()];
        let wide = long.iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
        // The shortest form is the only one, and the highest bit is 0.
        let (length, fits) = match long.len() {
            0 => (u64::from(self.head[1] & 0x7f), true),
            2 => (wide, wide > 125),
            _ => (wide, wide > u64::from(u16::MAX) && wide <= i64::MAX as u64),
        };
        self.state = if fits { State::Payload(length) } else { State::Broken };
        if fits && length == 0 {
            self.end_frame();
            return true;
        }
        false
    }

    fn end_frame(&mut self) {
        if self.opcode() <= BINARY {
            self.fragmented = !self.is_final();
        }
        self.state = if self.opcode() == CLOSE { State::Closed } else { State::Head };
        self.have = 0;
    }
}

/// A Close frame that says "going away", and how much of it has been sent.
#[derive(Clone, Debug)]
pub struct CloseFrame {
    bytes: [u8; 8],
    sent: usize,
    len: usize,
}

impl CloseFrame {
    /// As a server sends it.
    #[must_use]
    pub fn from_server() -> CloseFrame {
        let [high, low] = GOING_AWAY;
        CloseFrame { bytes: [0x80 | CLOSE, 2, high, low, 0, 0, 0, 0], sent: 0, len: 4 }
    }

    /// As a client sends it, masked by a key that nobody can foresee (RFC 6455, section 5.3).
    #[must_use]
    pub fn from_client(key: [u8; 4]) -> CloseFrame {
        let ([a, b, c, d], [high, low]) = (key, GOING_AWAY);
        CloseFrame { bytes: [0x80 | CLOSE, 0x80 | 2, a, b, c, d, high ^ a, low ^ b], sent: 0, len: 8 }
    }

    /// What is still to be sent.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..self.len]
    }

    /// `n` bytes more have been sent.
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as the standard draws it, written without a look at how it is read.
    #[derive(Clone, Debug)]
    struct Frame {
        last: bool,
        /// Bits of extensions.
        reserved: u8,
        opcode: u8,
        key: Option<[u8; 4]>,
        length: usize,
    }

    impl Frame {
        fn encode(&self, out: &mut Vec<u8>) {
            let flags = if self.last { 8 } else { 0 } + self.reserved;
            out.push(flags * 16 + self.opcode);
            let mask = if self.key.is_some() { 128 } else { 0 };
            if self.length < 126 {
                out.push(mask + u8::try_from(self.length).unwrap());
            } else if let Ok(short) = u16::try_from(self.length) {
                out.push(mask + 126);
                out.extend(short.to_be_bytes());
            } else {
                out.push(mask + 127);
                out.extend((self.length as u64).to_be_bytes());
            }
            out.extend(self.key.iter().flatten());
            out.extend((0..self.length).map(|at| at as u8 ^ 0x88));
        }
    }

    fn key(sender: Sender) -> impl Strategy<Value = Option<[u8; 4]>> {
        any::<[u8; 4]>().prop_map(move |key| (sender == Sender::Client).then_some(key))
    }

    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 0usize..140, 1 => prop::sample::select(vec![125, 126, 127, 65_535, 65_536, 70_000])]
    }

    fn control(sender: Sender) -> impl Strategy<Value = Frame> {
        (9u8..=10, 0usize..=125, key(sender)).prop_map(|(opcode, length, key)| Frame {
            last: true,
            reserved: 0,
            opcode,
            key,
            length,
        })
    }

    /// A message in fragments, with control frames before each.
    fn message(sender: Sender) -> impl Strategy<Value = Vec<Frame>> {
        let part = (prop::collection::vec(control(sender), 0..2), length(), key(sender));
        (1u8..=2, 0u8..8, prop::collection::vec(part, 1..4)).prop_map(|(opcode, reserved, parts)| {
            let count = parts.len();
            let mut frames = Vec::new();
            for (at, (controls, length, key)) in parts.into_iter().enumerate() {
                frames.extend(controls);
                let opcode = if at == 0 { opcode } else { 0 };
                frames.push(Frame { last: at + 1 == count, reserved, opcode, key, length });
            }
            frames
        })
    }

    fn conversation() -> impl Strategy<Value = (Sender, Vec<Frame>)> {
        prop::sample::select(vec![Sender::Client, Sender::Server]).prop_flat_map(|sender| {
            prop::collection::vec(message(sender), 0..4).prop_map(move |messages| (sender, messages.concat()))
        })
    }

    fn encode(frames: &[Frame]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for frame in frames {
            frame.encode(&mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn followed(sender: Sender, bytes: &[u8]) -> Frames {
        let mut frames = Frames::new(sender);
        frames.follow(bytes);
        frames
    }

    proptest! {
        #[test]
        fn it_is_between_frames_exactly_where_they_end((sender, frames) in conversation(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let (bytes, ends) = encode(&frames);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend(ends.iter().flat_map(|end| [end.saturating_sub(1), *end, (end + 1).min(bytes.len())]));
            at.sort_unstable();
            let mut follower = Frames::new(sender);
            let mut before = 0;
            for cut in at {
                let next = ends.iter().copied().find(|end| *end >= before).unwrap();
                let rest = if ends.contains(&before) { 0 } else { next - before };
                prop_assert_eq!(follower.rest_of_frame(&bytes[before..]), rest);
                follower.follow(&bytes[before..cut]);
                prop_assert_eq!(follower.is_between_frames(), ends.contains(&cut), "at {} of {:?}", cut, ends);
                prop_assert!(!follower.is_broken() && !follower.has_closed());
                before = cut;
            }
        }

        #[test]
        fn a_close_is_seen_when_it_is_whole((sender, mut frames) in conversation(), length in 0usize..=125, key in any::<[u8; 4]>()) {
            let key = (sender == Sender::Client).then_some(key);
            frames.push(Frame { last: true, reserved: 0, opcode: 8, key, length });
            let (bytes, _) = encode(&frames);
            prop_assert!(!followed(sender, &bytes[..bytes.len() - 1]).has_closed());
            let mut closed = followed(sender, &bytes);
            prop_assert!(closed.has_closed() && !closed.is_between_frames());
            closed.follow(b"whatever follows");
            prop_assert!(closed.has_closed() && !closed.is_between_frames());
        }

        #[test]
        fn whatever_comes_a_cut_changes_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            for sender in [Sender::Client, Sender::Server] {
                let whole = followed(sender, &bytes);
                let mut cut_once = followed(sender, &bytes[..cut.index(bytes.len() + 1)]);
                cut_once.follow(&bytes[cut.index(bytes.len() + 1)..]);
                let mut byte_by_byte = Frames::new(sender);
                bytes.iter().for_each(|byte| byte_by_byte.follow(&[*byte]));
                let says = |frames: &Frames| (frames.state, frames.have, frames.fragmented);
                prop_assert_eq!(says(&whole), says(&cut_once));
                prop_assert_eq!(says(&whole), says(&byte_by_byte));
            }
        }
    }

    #[test]
    fn lengths_of_eight_bytes_are_counted_to_their_end() {
        let mut frames = followed(Sender::Server, &[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(frames.state, State::Payload(1 << 40));
        frames.follow(&[0; 1000]);
        assert_eq!(frames.state, State::Payload((1 << 40) - 1000));
        let largest = followed(Sender::Server, &[0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(largest.state, State::Payload(i64::MAX as u64));
    }

    #[test]
    fn what_is_no_websocket_is_given_up_on_for_good() {
        let broken: &[(Sender, &[u8], &str)] = &[
            (Sender::Server, b"ping", "a continuation of nothing"),
            (Sender::Server, &[0x83, 0], "a reserved opcode"),
            (Sender::Server, &[0x8b, 0], "a reserved control opcode"),
            (Sender::Server, &[0x81, 0x80], "a server that masks"),
            (Sender::Client, &[0x81, 0x00], "a client that does not"),
            (Sender::Server, &[0x09, 0], "a control frame in fragments"),
            (Sender::Server, &[0x89, 126], "a long control frame"),
            (Sender::Server, &[0x01, 0, 0x81, 0], "a message within a message"),
            (Sender::Server, &[0x82, 126, 0, 125], "a length in more bytes than it needs"),
            (Sender::Server, &[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], "a length in many more"),
            (Sender::Server, &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], "a length with its highest bit"),
        ];
        for (sender, bytes, what) in broken {
            let mut frames = followed(*sender, bytes);
            assert!(frames.is_broken() && !frames.is_between_frames(), "{what}");
            assert_eq!(frames.rest_of_frame(&[0x81, 0, 0x81]), 3, "{what}");
            frames.follow(&[0x88, 0]);
            assert!(frames.is_broken() && !frames.has_closed(), "{what}");
        }
    }

    #[test]
    fn the_close_frames_are_those_of_the_standard() {
        assert_eq!(CloseFrame::from_server().unsent(), [0x88, 0x02, 0x03, 0xe9]);
        let mut masked = CloseFrame::from_client([1, 2, 3, 4]);
        assert_eq!(masked.unsent(), [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
        assert!(followed(Sender::Client, masked.unsent()).has_closed());
        assert!(followed(Sender::Server, CloseFrame::from_server().unsent()).has_closed());
        masked.sent(6);
        assert_eq!(masked.unsent(), [0x03 ^ 1, 0xe9 ^ 2]);
        masked.sent(2);
        assert!(masked.unsent().is_empty());
    }
}
