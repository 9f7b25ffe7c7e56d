//! Tables of connections: what one that fills means, and when a daemon that looks again and again has something to say.
//!
//! A full table costs the kernel new connections, mostly without a word to whoever made them.

use std::collections::BTreeMap;

use crate::{Check, Finding, Level};

/// Shares of a table, in hundredths.
const FULL: u64 = 95;
const HIGH: u64 = 80;
/// Looks in a row that find a table below [`HIGH`] before it counts as well again.
const CALM_LOOKS: u32 = 3;

/// A table of connections: each namespace has its own, and one bound holds for all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conntrack {
    /// Whose it is.
    pub place: String,
    /// Connections in it.
    pub used: u64,
    /// Connections that it holds at most; 0 for no bound.
    pub most: u64,
    /// Packets and connections dropped since the start since it was full.
    pub dropped: u64,
}

impl Conntrack {
    /// How full it is, in hundredths.
    fn share(&self) -> u64 {
        self.used.saturating_mul(100).checked_div(self.most).unwrap_or(0)
    }

    fn numbers(&self) -> String {
        let Self { place, used, most, dropped } = self;
        let dropped =
            if *dropped > 0 { format!(", {dropped} packets were dropped since the start") } else { String::new() };
        format!("the table of connections of {place} holds {used} of {most}{dropped}")
    }
}

/// What a table's fullness means.
pub(crate) fn judge(table: &Conntrack) -> Finding {
    let level = match table.share() {
        FULL.. => Level::Broken,
        HIGH.. => Level::Warning,
        _ if table.dropped > 0 => Level::Note,
        _ => Level::Ok,
    };
    let consequence = match level {
        Level::Broken => ": new connections are dropped",
        Level::Warning => ": when it is full new connections are dropped",
        Level::Note => "; it has been full before",
        _ => "",
    };
    let finding = Finding::new(level, Check::Conntrack, table.numbers() + consequence);
    match level {
        Level::Ok => finding,
        _ => finding.remedy(format!("sysctl -w net.netfilter.nf_conntrack_max={}", table.most.saturating_mul(4))),
    }
}

/// What there is to say of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConntrackNews {
    /// It is full, or about to be: as in the report.
    Full(Finding),
    /// It is full no more.
    Over(String),
}

/// Who looks at tables again and again: says once that one is full, and once that this is over.
///
/// ```text
///   quiet ── FULL, or drops at HIGH and more ─► said ── CALM_LOOKS below HIGH, or the table is gone ─► quiet
/// ```
///
/// Drops alone are no sign: the kernel also counts packets of one flow that came at the same time on two processors.
#[derive(Debug, Default)]
pub struct ConntrackWatch(BTreeMap<String, Watched>);

/// One table.
#[derive(Debug, Default)]
struct Watched {
    dropped: u64,
    is_said: bool,
    calm_looks: u32,
}

impl ConntrackWatch {
    /// Takes what was seen of all tables; what to say of them.
    pub fn look(&mut self, tables: &[Conntrack]) -> Vec<ConntrackNews> {
        let mut news = Vec::new();
        self.0.retain(|place, watched| {
            let stays = tables.iter().any(|table| table.place == *place);
            if !stays && watched.is_said {
                news.push(ConntrackNews::Over(format!("the table of connections of {place} is gone")));
            }
            stays
        });
        for table in tables {
            // What was dropped before the first look is no news.
            let first = || Watched { dropped: table.dropped, ..Watched::default() };
            news.extend(self.0.entry(table.place.clone()).or_insert_with(first).look(table));
        }
        news
    }
}

impl Watched {
    fn look(&mut self, table: &Conntrack) -> Option<ConntrackNews> {
        let drops = table.dropped > std::mem::replace(&mut self.dropped, table.dropped);
        let is_high = table.share() >= HIGH;
        let is_full = table.share() >= FULL || (is_high && drops);
        self.calm_looks = if is_high { 0 } else { self.calm_looks + 1 };
        if is_full && !self.is_said {
            self.is_said = true;
            return Some(ConntrackNews::Full(judge(table)));
        }
        if !self.is_said || self.calm_looks < CALM_LOOKS {
            return None;
        }
        *self = Self { dropped: table.dropped, ..Self::default() };
        Some(ConntrackNews::Over(format!("{}: it has room again", table.numbers())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(used: u64, dropped: u64) -> Conntrack {
        Conntrack { place: "this machine".to_owned(), used, most: 1000, dropped }
    }

    #[test]
    fn a_table_that_fills_is_told() {
        let check = |used, dropped, expected| assert_eq!(judge(&table(used, dropped)).level, expected, "{used}");
        check(10, 0, Level::Ok);
        check(10, 5, Level::Note);
        check(799, 0, Level::Ok);
        check(800, 0, Level::Warning);
        check(949, 0, Level::Warning);
        check(950, 0, Level::Broken);
        check(2000, 0, Level::Broken);
        let unbounded = Conntrack { most: 0, ..table(2000, 0) };
        assert_eq!(judge(&unbounded).level, Level::Ok);
    }

    /// Each look: connections, drops; and what is said: `!` that it is full, `.` that it is over, nothing.
    fn check(looks: &[(u64, u64, &str)]) {
        let mut watch = ConntrackWatch::default();
        for (number, (used, dropped, expected)) in looks.iter().enumerate() {
            let said: String = watch
                .look(&[table(*used, *dropped)])
                .iter()
                .map(|news| if matches!(news, ConntrackNews::Full(_)) { '!' } else { '.' })
                .collect();
            assert_eq!(said, *expected, "look {number} of {looks:?}");
        }
    }

    #[test]
    fn a_full_table_is_said_once_and_once_that_it_is_over() {
        check(&[(10, 0, ""), (949, 0, ""), (950, 0, "!"), (1000, 70, ""), (1000, 90, ""), (10, 90, "")]);
        check(&[(1000, 9, "!"), (799, 9, ""), (0, 9, ""), (0, 9, "."), (0, 9, ""), (950, 9, "!")]);
    }

    #[test]
    fn it_does_not_flap() {
        check(&[(950, 0, "!"), (940, 0, ""), (950, 0, ""), (790, 0, ""), (790, 0, ""), (800, 0, ""), (790, 0, "")]);
        check(&[(950, 0, "!"), (949, 0, ""), (949, 0, ""), (949, 0, ""), (949, 0, "")]);
    }

    #[test]
    fn drops_are_news_where_they_begin_and_the_table_is_high() {
        check(&[(850, 5, ""), (850, 5, ""), (850, 6, "!"), (850, 9, "")]);
        check(&[(100, 0, ""), (100, 1, ""), (100, 5, "")]);
        // The namespace was made anew: its counters are, too.
        check(&[(850, 50, ""), (850, 0, ""), (850, 1, "!")]);
    }

    #[test]
    fn a_table_that_is_gone_is_over_and_each_counts_by_itself() {
        let mesh = |used| Conntrack { place: "the mesh".to_owned(), ..table(used, 0) };
        let mut watch = ConntrackWatch::default();
        let said = watch.look(&[table(10, 0), mesh(960)]);
        let what = "the table of connections of the mesh holds 960 of 1000: new connections are dropped";
        let finding = Finding::new(Level::Broken, Check::Conntrack, what);
        assert_eq!(said, [ConntrackNews::Full(finding.remedy("sysctl -w net.netfilter.nf_conntrack_max=4000"))]);
        let over = ConntrackNews::Over("the table of connections of the mesh is gone".to_owned());
        assert_eq!(watch.look(&[table(10, 0)]), [over]);
        assert_eq!(watch.look(&[table(10, 0)]), []);
        assert_eq!(watch.look(&[table(10, 0), mesh(960)]).len(), 1);
        assert_eq!(watch.look(&[]).len(), 1);
    }
}
