//! Looks at the metrics page that are cheap enough to be taken often: without buckets, and without doubting its form. The
//! last page of each scenario is read in full.

use crate::common::{PATIENCE, Page, Sidecar, wait_for};

/// The page now, if the admin port answers.
pub fn look(sidecar: &Sidecar) -> Page {
    let response = sidecar.admin_get("/metrics", "");
    assert_eq!(response.status(), 200, "{}", response.text());
    let text = response.text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{"));
    Page::parse(&lines.flat_map(|line| [line, "\n"]).collect::<String>())
}

/// Waits until the page shows this.
#[track_caller]
pub fn wait_for_page(sidecar: &Sidecar, what: &str, condition: impl Fn(&Page) -> bool) {
    let mut page = Page::default();
    let held = wait_for(PATIENCE, || {
        page = look(sidecar);
        condition(&page)
    });
    assert!(held, "the page never showed: {what}\n{}", page.text);
}
