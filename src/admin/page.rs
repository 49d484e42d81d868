//! The plain page at `/`: what this is, whether it is ready, and which endpoints there are. No script, nothing loaded
//! from elsewhere; every value is escaped. The live page will take its place.

use std::fmt::Write as _;

use super::{About, ENDPOINTS};

/// What the page may do: be styled by its own style element, and nothing else. `unsafe-inline` is for that element
/// alone; there is no input of a client on the page that could bring a style along.
pub(super) const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c1d20;--soft:#5d6169;--line:#e1e2e6;--paper:#fff;--back:#f5f5f2;--gold:#8a6100;\
--good:#1a6e3c;--bad:#a8281c}\
@media(prefers-color-scheme:dark){:root{--ink:#e9e9ec;--soft:#a2a6af;--line:#34363c;--paper:#1d1e22;--back:#141518;\
--gold:#e2b54a;--good:#6fcf97;--bad:#ff8a7d}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:44rem;margin:0 auto;padding:2.5rem 1rem}\
h1{margin:0;font-size:1.6rem;letter-spacing:-.01em}h1 span{color:var(--gold)}h2{margin:2rem 0 .5rem;font-size:1.05rem}\
p{margin:.25rem 0 1.5rem;color:var(--soft)}\
dl{margin:0;background:var(--paper);border:1px solid var(--line);border-radius:.6rem;overflow:hidden}\
dl>div{display:grid;grid-template-columns:11rem 1fr;gap:1rem;padding:.6rem 1rem}\
dl>div+div{border-top:1px solid var(--line)}\
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}ul{margin:0;padding:0;list-style:none}\
a{color:var(--gold);font-family:ui-monospace,monospace;font-size:.93rem}\
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}\
@media(max-width:34rem){dl>div{grid-template-columns:1fr;gap:0}}";

/// Addresses of the backend that are shown: as many as a person reads.
const ADDRESSES_MAX: usize = 16;

/// The page, complete.
pub(super) fn render(about: &About, reasons: &[String]) -> String {
    let About { version, proxy, upstream, addresses } = about;
    let mut page = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Golden Sidecar</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1><span>Golden</span> Sidecar</h1>\n\
         <p>Latency, traffic, errors and saturation of one service, measured on the way.</p>\n<dl>\n"
    );
    row(&mut page, "Readiness", |page| {
        if reasons.is_empty() {
            page.push_str("<span class=\"good\">ready</span>");
        } else {
            page.push_str("<span class=\"bad\">not ready</span><ul>");
            for reason in reasons {
                let _ = write!(page, "<li>{}</li>", escape(reason));
            }
            page.push_str("</ul>");
        }
    });
    row(&mut page, "Proxy", |page| page.push_str(&escape(proxy)));
    row(&mut page, "Upstream", |page| {
        page.push_str(&escape(upstream));
        if !addresses.is_empty() {
            page.push_str("<ul>");
            for address in addresses.iter().take(ADDRESSES_MAX) {
                let _ = write!(page, "<li>{address}</li>");
            }
            if addresses.len() > ADDRESSES_MAX {
                let _ = write!(page, "<li>and {} more</li>", addresses.len() - ADDRESSES_MAX);
            }
            page.push_str("</ul>");
        }
    });
    row(&mut page, "Version", |page| page.push_str(&escape(version)));
    page.push_str("</dl>\n<h2>Endpoints</h2>\n<dl>\n");
    for (path, _, sentence) in ENDPOINTS {
        let _ = writeln!(page, "<div><dt><a href=\"{path}\">{path}</a></dt><dd>{}</dd></div>", escape(sentence));
    }
    page.push_str("</dl>\n</main>\n</body>\n</html>\n");
    page
}

fn row(page: &mut String, term: &str, value: impl FnOnce(&mut String)) {
    let _ = write!(page, "<div><dt>{term}</dt><dd>");
    value(page);
    page.push_str("</dd></div>\n");
}

/// Text as HTML shows it, in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn values_are_shown_and_never_become_markup() {
        let about = About {
            version: "1<2".to_owned(),
            proxy: "[::1]:8000".to_owned(),
            upstream: "http://a\"><script>alert('&')</script>:80".to_owned(),
            addresses: (1..=18).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect(),
        };
        let page = render(&about, &["backend: <b>".to_owned()]);
        assert!(page.contains("http://a&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;:80"), "{page}");
        assert!(page.contains("<li>backend: &lt;b&gt;</li>") && page.contains("1&lt;2") && page.contains("[::1]:8000"));
        assert!(page.contains("<li>127.0.0.1:16</li><li>and 2 more</li>"), "{page}");
        assert!(!page.contains("<script") && !page.contains("<b>"));
        for (path, _, _) in ENDPOINTS {
            assert!(page.contains(&format!("<a href=\"{path}\">")), "{path}");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = render(
            &About {
                version: String::new(),
                proxy: "127.0.0.1:1".to_owned(),
                upstream: String::new(),
                addresses: Vec::new(),
            },
            &[],
        );
        for foreign in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
