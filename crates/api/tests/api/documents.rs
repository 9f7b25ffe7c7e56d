//! `docs/compatibility.md` tells the truth about endpoints.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../../docs/compatibility.md");

#[test]
fn every_endpoint_that_is_not_built_is_on_the_page() {
    let rows = PAGE.split("## Endpoints that do not answer yet").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: BTreeSet<_> = rows.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`')).collect();
    let missing: BTreeSet<_> = api::NOT_BUILT
        .iter()
        .map(|missing| format!("{} {} | {} |", missing.method, missing.path, missing.what))
        .collect();
    let listed: BTreeSet<_> = listed.into_iter().map(|(endpoint, rest)| format!("{endpoint}{rest}")).collect();
    assert_eq!(listed, missing);
}
