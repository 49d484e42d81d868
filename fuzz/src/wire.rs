//! A second reader of HTTP/1.1 (RFC 9110, RFC 9112), which shares no code with the sidecar and is stricter than any
//! backend: what it cannot read in one way only, nobody should be sent.

/// A name and its value, white space around it taken off.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// Method, target and version.
pub type RequestLine<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// A head: its first line, its fields in order, and how many bytes it takes with its empty line.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// The first line without its end.
    pub line: &'a [u8],
    /// In the order in which they came.
    pub fields: Vec<Field<'a>>,
    /// Bytes up to the body.
    pub len: usize,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// With the connection.
    Close,
}

/// A body as far as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Its bytes, chunked coding taken off.
    pub bytes: Vec<u8>,
    /// Bytes that it takes on the wire.
    pub len: usize,
    /// Whether it is all there. One that ends with the connection never is.
    pub complete: bool,
    /// Why it cannot be read on, if so.
    pub fault: Option<String>,
}

/// A whole message, or its beginning.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Its head.
    pub head: Head<'a>,
    /// Its body.
    pub body: Body,
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |at| at + 1);
    &value[start..end]
}

/// Where a text begins in another one.
#[must_use]
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Bytes as they are shown in a sentence.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The fields of these lines, each with its CRLF.
///
/// # Errors
/// When one is not `name: value`, or holds a byte that no field may hold.
pub fn fields(lines: &[u8]) -> Result<Vec<Field<'_>>, String> {
    let mut fields = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let end = find(rest, b"\r\n").ok_or_else(|| format!("a line without an end: {}", shown(rest)))?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| format!("no colon: {}", shown(line)))?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(format!("a bad name: {}", shown(line)));
        }
        if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
            return Err(format!("a control byte in a value: {}", shown(line)));
        }
        fields.push((name, value));
    }
    Ok(fields)
}

/// The head at the beginning of these bytes; `None`: it has no end yet.
///
/// # Errors
/// When it has one and is malformed.
pub fn head(bytes: &[u8]) -> Result<Option<Head<'_>>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let len = end + 4;
    let first = find(bytes, b"\r\n").unwrap_or(end);
    let line = &bytes[..first];
    if line.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 127) {
        return Err(format!("a control byte in the first line: {}", shown(line)));
    }
    Ok(Some(Head { line, fields: fields(&bytes[first + 2..end + 2])?, len }))
}

impl<'a> Head<'a> {
    /// The values of all fields of this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = |(own, value): &Field<'a>| own.eq_ignore_ascii_case(name.as_bytes()).then_some(*value);
        self.fields.iter().filter_map(named)
    }

    /// Method, target and version.
    ///
    /// # Errors
    /// When the line is not just that.
    pub fn request_line(&self) -> Result<RequestLine<'a>, String> {
        let parts: Vec<_> = self.line.split(|byte| *byte == b' ').collect();
        let [method, target, version] = parts[..] else { return Err(format!("no request: {}", shown(self.line))) };
        let good = !method.is_empty()
            && method.iter().all(|byte| is_token(*byte))
            && !target.is_empty()
            && matches!(version, b"HTTP/1.1" | b"HTTP/1.0");
        if good { Ok((method, target, version)) } else { Err(format!("a bad request line: {}", shown(self.line))) }
    }

    /// The status, and whether the version is 1.0.
    ///
    /// # Errors
    /// When the line is no status line.
    pub fn status(&self) -> Result<(u16, bool), String> {
        let bad = || format!("a bad status line: {}", shown(self.line));
        let (version, rest) = self.line.split_at_checked(9).ok_or_else(bad)?;
        let old = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(bad()),
        };
        // The reason may be missing, its blank too.
        let (digits, reason) = rest.split_at_checked(3).ok_or_else(bad)?;
        let status = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok()).ok_or_else(bad)?;
        if !(100..=999).contains(&status) || digits[0] == b'+' || reason.first().is_some_and(|byte| *byte != b' ') {
            return Err(bad());
        }
        Ok((status, old))
    }

    /// How many fields speak of the framing: what the sidecar takes from a client and what it writes has one at most.
    #[must_use]
    pub fn framing_fields(&self) -> usize {
        self.all("content-length").count() + self.all("transfer-encoding").count()
    }

    /// Whether this list has this element.
    #[must_use]
    pub fn lists(&self, name: &str, element: &str) -> bool {
        let mut elements = self.all(name).flat_map(|value| value.split(|byte| *byte == b','));
        elements.any(|own| trim(own).eq_ignore_ascii_case(element.as_bytes()))
    }

    /// The one length or coding that there is. A length that is there several times with the same digits is one: so a
    /// backend may write it (RFC 9110, section 8.6), and nobody else here does, see [`Head::framing_fields`].
    ///
    /// # Errors
    /// When two readers could differ.
    fn framing(&self) -> Result<Framing, String> {
        let lengths: Vec<_> = self.all("content-length").collect();
        let codings: Vec<_> = self.all("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(Framing::None),
            ([length, more @ ..], [])
                if !length.is_empty()
                    && length.iter().all(u8::is_ascii_digit)
                    && more.iter().all(|other| other == length) =>
            {
                let text = std::str::from_utf8(length).unwrap_or_default();
                text.parse().map(Framing::Length).map_err(|error| format!("a length of {text}: {error}"))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            _ => Err(format!(
                "ambiguous framing: {:?}",
                self.fields.iter().map(|(n, v)| (shown(n), shown(v))).collect::<Vec<_>>()
            )),
        }
    }
}

/// The body behind a head, as far as it can be read.
#[must_use]
pub fn body(bytes: &[u8], framing: Framing) -> Body {
    match framing {
        Framing::None => Body { complete: true, ..Body::default() },
        Framing::Length(length) => {
            let there = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            let complete = there as u64 == length;
            Body { bytes: bytes[..there].to_vec(), len: there, complete, fault: None }
        }
        Framing::Close => Body { bytes: bytes.to_vec(), len: bytes.len(), complete: false, fault: None },
        Framing::Chunked => {
            let mut body = Body::default();
            body.fault = chunks(bytes, &mut body).err();
            body
        }
    }
}

fn chunks(bytes: &[u8], body: &mut Body) -> Result<(), String> {
    loop {
        let rest = &bytes[body.len..];
        let Some(end) = find(rest, b"\r\n") else { break };
        let line = &rest[..end];
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(end);
        let extension = trim(&line[digits..]);
        let legal = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 127);
        // White space that no extension follows is read by some as a part of the size.
        let blank = extension.is_empty() && digits != end;
        if !(1..=15).contains(&digits)
            || blank
            || !(extension.is_empty() || extension[0] == b';')
            || !extension.iter().all(legal)
        {
            return Err(format!("a bad chunk: {}", shown(line)));
        }
        let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
        let size = usize::from_str_radix(text, 16).map_err(|error| format!("{text}: {error}"))?;
        let after = &rest[end + 2..];
        if size == 0 {
            let end_of_trailers =
                if after.starts_with(b"\r\n") { Some(0) } else { find(after, b"\r\n\r\n").map(|at| at + 2) };
            let Some(len) = end_of_trailers else { break };
            fields(&after[..len])?;
            body.len += end + 2 + len + 2;
            body.complete = true;
            return Ok(());
        }
        let there = size.min(after.len());
        body.bytes.extend_from_slice(&after[..there]);
        let tail = &after[there..];
        if !b"\r\n".starts_with(&tail[..tail.len().min(2)]) {
            return Err(format!("no line end after {size} bytes of a chunk: {}", shown(&tail[..tail.len().min(8)])));
        }
        if tail.len() < 2 {
            break;
        }
        body.len += end + 2 + size + 2;
    }
    body.len = bytes.len();
    Ok(())
}

/// The request at the beginning of these bytes; `None`: its head has no end yet.
///
/// # Errors
/// When it is malformed, or could be read in two ways.
pub fn request(bytes: &[u8]) -> Result<Option<Message<'_>>, String> {
    sound(request_head(bytes)?)
}

fn sound(message: Option<Message<'_>>) -> Result<Option<Message<'_>>, String> {
    match message {
        Some(Message { body: Body { fault: Some(fault), .. }, .. }) => Err(fault),
        message => Ok(message),
    }
}

/// As [`request`], but one with a body that has a fault is there up to the fault.
///
/// # Errors
/// When its head is malformed, or could be read in two ways.
pub fn request_head(bytes: &[u8]) -> Result<Option<Message<'_>>, String> {
    let Some(head) = head(bytes)? else { return Ok(None) };
    let (_, target, version) = head.request_line()?;
    let hosts = head.all("host").count();
    if hosts > 1 || (hosts == 0 && version == b"HTTP/1.1") {
        return Err(format!("{hosts} Host fields"));
    }
    if target.contains(&b'#') {
        return Err("a fragment".into());
    }
    let framing = head.framing()?;
    if head.framing_fields() > 1 {
        return Err("a length twice".into());
    }
    if version == b"HTTP/1.0" && framing == Framing::Chunked {
        return Err("chunked in HTTP/1.0".into());
    }
    let body = body(&bytes[head.len..], framing);
    Ok(Some(Message { head, body }))
}

/// The response at the beginning of these bytes to a request with this method; `None`: its head has no end yet.
///
/// # Errors
/// When it is malformed, or could be read in two ways.
pub fn response<'a>(bytes: &'a [u8], method: &[u8]) -> Result<Option<Message<'a>>, String> {
    let Some(head) = head(bytes)? else { return Ok(None) };
    let (status, old) = head.status()?;
    let told = head.framing()?;
    if old && told == Framing::Chunked {
        return Err("chunked in HTTP/1.0".into());
    }
    let bodyless = method == b"HEAD" || status < 200 || matches!(status, 204 | 304);
    let framing = match told {
        _ if bodyless => Framing::None,
        Framing::None => Framing::Close,
        told => told,
    };
    let body = body(&bytes[head.len..], framing);
    sound(Some(Message { head, body }))
}
