//! Messages of `grpc.health.v1`, by hand: one field each way.
//!
//! Source: gRPC, doc/health-checking.md and grpc/health/v1/health.proto; the frame of a message doc/PROTOCOL-HTTP2.md.
//! Shape:  a frame is a byte (1: compressed), four bytes of length, most significant first, and the message.
//!         `HealthCheckRequest { string service = 1; }`, `HealthCheckResponse { ServingStatus status = 1; }`.
//! Absent: a field that is not there has the default: the empty name, or UNKNOWN.

/// The call.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest answer that is read. It is seven bytes; what a later version of the service adds will not be a thousand.
pub(super) const ANSWER_BYTES_MAX: usize = 1024;
/// Bytes of a frame before its message.
const FRAME_BYTES: usize = 5;
/// Field 1 with bytes of a counted length, and as a number.
const FIELD_1_BYTES: u8 = (1 << 3) | BYTES;
const FIELD_1_NUMBER: u64 = (1 << 3) | NUMBER as u64;
/// Wire types of protobuf.
const NUMBER: u8 = 0;
const EIGHT: u8 = 1;
const BYTES: u8 = 2;
const FOUR: u8 = 5;

/// `ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not told.
    Unknown,
    /// Up.
    Serving,
    /// Down.
    NotServing,
    /// Of those who watch only; a check ends with NOT_FOUND instead.
    ServiceUnknown,
}

impl Health {
    /// Its name in the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "UNKNOWN",
            Health::Serving => "SERVING",
            Health::NotServing => "NOT_SERVING",
            Health::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

/// The frame that asks for a service; the empty name asks for the whole server. At most 255 bytes, which the configuration
/// sees to.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(FIELD_1_BYTES);
        // The length in groups of seven bits, the lowest first.
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// Reads the body of an answer: exactly one frame, not compressed. `None`: it is no such thing.
pub(super) fn read(body: &[u8]) -> Option<Health> {
    let (head, message) = body.split_first_chunk::<FRAME_BYTES>()?;
    let [compressed, length @ ..] = *head;
    if compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        // Of a field that comes twice the last one counts; others are of a later version.
        match (key, (key & 7) as u8) {
            (FIELD_1_NUMBER, _) => status = number(&mut rest)?,
            // Field 0 is none, and neither is the status of another type.
            (key, _) if key >> 3 <= 1 => return None,
            (_, NUMBER) => drop(number(&mut rest)?),
            (_, EIGHT) => rest = rest.get(8..)?,
            (_, BYTES) => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, FOUR) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(match status {
        1 => Health::Serving,
        2 => Health::NotServing,
        3 => Health::ServiceUnknown,
        // What a later version may say is not that it serves.
        _ => Health::Unknown,
    })
}

/// A number in groups of seven bits, the lowest first; at most ten of them.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    /// The messages as a library knows them.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(string, tag = "1")]
        service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Response {
        #[prost(int32, tag = "1")]
        status: i32,
        #[prost(bytes = "vec", tag = "2")]
        later: Vec<u8>,
        #[prost(fixed32, tag = "3")]
        four: u32,
        #[prost(fixed64, tag = "16")]
        eight: u64,
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        frame
    }

    #[test]
    fn each_status_is_read() {
        for (message, health) in [
            (&[][..], Health::Unknown),
            (&[8, 0], Health::Unknown),
            (&[8, 1], Health::Serving),
            (&[8, 2], Health::NotServing),
            (&[8, 3], Health::ServiceUnknown),
            (&[8, 4], Health::Unknown),
            (&[8, 1, 8, 2], Health::NotServing),
        ] {
            assert_eq!(read(&frame(message)), Some(health), "{message:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let serving = frame(&[8, 1]);
        for bad in [
            &[][..],
            &serving[..6],
            &[&serving[..], &serving].concat(),
            &[&[1], &serving[1..]].concat(),
            &frame(&[8]),
            &frame(&[8, 0x81]),
            // Eleven groups, ten of which the last has too many bits, field 0, groups, a text as status.
            &frame(&[8, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]),
            &frame(&[8, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]),
            &frame(&[0, 1]),
            &frame(&[0x13, 0x14]),
            &frame(&[10, 1, 1]),
            &frame(&[0x12, 5, 1]),
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_request_is_what_a_library_writes(service in "[ -~]{0,255}") {
            prop_assert_eq!(request(&service), frame(&Request { service }.encode_to_vec()));
        }

        #[test]
        fn an_answer_is_read_as_a_library_reads_it(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            // Any bytes; whatever is read, the library reads the same.
            if let Some(health) = read(&frame(&bytes)) {
                // It knows of later fields by their type, which noise gets wrong.
                if let Ok(response) = Response::decode(&bytes[..]) {
                    let expected = match response.status { 1 => Health::Serving, 2 => Health::NotServing, 3 => Health::ServiceUnknown, _ => Health::Unknown };
                    // The library takes the lower half of a number that is too large.
                    prop_assert!(health == expected || health == Health::Unknown);
                }
            }
            let _ = read(&bytes);
        }

        #[test]
        fn later_fields_do_not_matter(
            status in 0i32..5, later in proptest::collection::vec(any::<u8>(), 0..20), four: u32, eight: u64,
        ) {
            let plain = read(&frame(&Response { status, ..Response::default() }.encode_to_vec()));
            prop_assert!(plain.is_some());
            prop_assert_eq!(read(&frame(&Response { status, later, four, eight }.encode_to_vec())), plain);
        }
    }
}
