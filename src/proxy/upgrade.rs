//! The handshake of a WebSocket where one side asks by `Upgrade` (RFC 6455) and the other by an extended CONNECT (RFC
//! 8441): each is made of the other.

use http::{HeaderValue, Response, StatusCode};

use crate::proxy::headers;

/// What a server appends to a key to show that it has understood the handshake (RFC 6455, section 1.3).
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key for a WebSocket handshake of our own: 16 bytes in base64. It guards against servers that do not speak WebSocket,
/// not against attackers.
#[must_use]
pub fn websocket_key() -> String {
    base64(&[unforeseeable(), unforeseeable()].concat())
}

/// Bytes that nobody outside can foresee.
pub(super) fn unforeseeable() -> [u8; 8] {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish().to_ne_bytes()
}

/// Makes a 101 of the answer of an HTTP/2 backend to an extended CONNECT. `request`: the head with the client's key.
pub fn accept_upgrade(response: &mut Response<()>, request: &[u8]) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    if let Some(Ok(protocol)) = headers::field_of(request, "upgrade").map(HeaderValue::from_bytes) {
        fields.insert(http::header::UPGRADE, protocol);
    }
    if let Some(key) = headers::field_of(request, "sec-websocket-key") {
        let digest = sha1_smol::Sha1::from([key, WEBSOCKET_GUID].concat()).digest().bytes();
        if let Ok(accept) = HeaderValue::from_str(&base64(&digest)) {
            fields.insert("sec-websocket-accept", accept);
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let sextet = bits >> (18 - 6 * at) & 0x3f;
            text.push(if at <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_is_accepted_as_it_says() {
        let request =
            b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut response = Response::new(());
        accept_upgrade(&mut response, request);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["upgrade"], "websocket");
    }

    #[test]
    fn keys_have_sixteen_bytes_and_differ() {
        let (one, other) = (websocket_key(), websocket_key());
        assert_eq!((one.len(), &one[22..]), (24, "=="));
        assert_ne!(one, other);
        assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
    }
}
