//! The fields that every answer of the admin port carries, so that a browser neither guesses, keeps, frames nor lends it.
//! There is no `Access-Control-Allow-Origin` among them: other origins may not read.
//!
//! Source: RFC 9111, section 5.2.2.5 (`no-store`), Content Security Policy Level 3, Fetch (`nosniff`, CORP), Referrer
//! Policy, RFC 7034 (`X-Frame-Options`, for browsers that do not know `frame-ancestors`).

use http::HeaderName;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};

/// Names and values. The page at `/` replaces the policy by its own.
pub(super) const ALWAYS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The same as lines of a head, for answers that are written by hand.
pub(super) fn lines() -> String {
    ALWAYS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}
