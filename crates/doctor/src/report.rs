//! Findings, and the report that they make: as JSON for programs, as text for people, as an exit code for scripts.

use serde::{Deserialize, Serialize};

/// How wide the text is.
const WIDTH: usize = 100;
/// The column that sentences begin in.
const INDENT: usize = 9;

/// How bad it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Nothing is wrong, but it may be good to know.
    Note,
    /// It could not be checked.
    Unknown,
    /// It works, or most of it, but not as it should.
    Warning,
    /// Something does not work.
    Broken,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Broken => "broken",
        }
    }
}

/// What was checked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Whether a daemon answers.
    Daemon,
    /// Where this node stands in its swarm.
    Node,
    /// What the kernel can do.
    Kernel,
    /// Settings of the kernel.
    Settings,
    /// The table of connections.
    Conntrack,
    /// This machine's own addresses and links.
    Addresses,
    /// Subnets of networks against routes of the machine.
    Subnets,
    /// Firewall rules of others.
    Firewall,
    /// Ports and tunnels that another program has.
    Engines,
    /// Gossip as this node does it.
    Gossip,
    /// Whether a peer is there at all.
    Peer,
    /// 2377/tcp.
    ManagerPort,
    /// 7946/tcp.
    GossipTcp,
    /// 7946/udp.
    GossipUdp,
    /// VXLAN, 4789/udp.
    DataPath,
    /// Full packets.
    Mtu,
    /// Checksums that a network card is to compute.
    Checksums,
    /// Clocks.
    Clock,
    /// The tables that nodes tell each other.
    Tables,
}

/// One thing that was found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was checked.
    pub check: Check,
    /// The peer that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What was found, in plain words.
    pub what: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding about this machine.
    pub fn new(level: Level, check: Check, what: impl Into<String>) -> Self {
        Self { level, check, peer: None, what: what.into(), remedy: None }
    }

    /// About a peer.
    pub fn of(self, peer: &str) -> Self {
        Self { peer: Some(peer.to_owned()), ..self }
    }

    /// With a remedy.
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Whose report it is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// Its address in the swarm; empty outside of one.
    pub address: String,
    /// Skep's version.
    pub version: String,
}

/// Everything that was found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Whose report it is.
    pub machine: Machine,
    /// How many peers were looked at.
    pub peers: usize,
    /// The worst of the findings, what is unknown left out.
    pub worst: Level,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(machine: Machine, peers: usize, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let mut report = Self { machine, peers, worst: Level::Ok, findings };
        report.set_worst();
        report
    }

    /// Puts a finding of the caller's own in front of those of its level.
    pub fn add(&mut self, finding: Finding) {
        let at = self.findings.iter().position(|other| other.level <= finding.level);
        self.findings.insert(at.unwrap_or(self.findings.len()), finding);
        self.set_worst();
    }

    fn set_worst(&mut self) {
        let levels = self.findings.iter().map(|finding| finding.level).filter(|level| *level != Level::Unknown);
        self.worst = levels.max().unwrap_or(Level::Ok);
    }

    /// 0: all is well; 1: there are warnings; 2: something is broken. What is unknown counts for nothing.
    pub fn exit_code(&self) -> i32 {
        match self.worst {
            Level::Ok | Level::Note | Level::Unknown => 0,
            Level::Warning => 1,
            Level::Broken => 2,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let Machine { name, address, version } = &self.machine;
        let address = if address.is_empty() { String::new() } else { format!(" ({address})") };
        let peers = match self.peers {
            0 => String::new(),
            1 => ", 1 peer".to_owned(),
            count => format!(", {count} peers"),
        };
        let mut out = format!("Skep {version} on {}{}{peers}\n\n", plain(name), address);
        for finding in &self.findings {
            let subject = finding.peer.as_ref().map(|peer| format!("{peer}: ")).unwrap_or_default();
            out += &paragraph(finding.level.word(), &format!("{subject}{}", finding.what));
            if let Some(remedy) = &finding.remedy {
                out += &paragraph("", &format!("→ {remedy}"));
            }
        }
        out + &self.summary()
    }

    fn summary(&self) -> String {
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let words = [
            (Level::Broken, "broken"),
            (Level::Warning, "warnings"),
            (Level::Unknown, "could not be checked"),
            (Level::Note, "notes"),
            (Level::Ok, "fine"),
        ];
        let parts = words.iter().map(|(level, word)| (count(*level), *word)).filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts
            .map(|(count, word)| format!("{count} {}", if count == 1 { word.trim_end_matches('s') } else { word }))
            .collect();
        format!("\n{}\n", parts.join(", "))
    }
}

/// Another's words without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// Lines with a word in front, broken between words; commands longer than a line stay whole.
fn paragraph(word: &str, text: &str) -> String {
    let mut out = String::new();
    let mut line = format!("{word:INDENT$}");
    let mut width = INDENT;
    for part in plain(text).split(' ') {
        let length = part.chars().count();
        if width + length > WIDTH && width > INDENT {
            out += line.trim_end();
            out.push('\n');
            (line, width) = (" ".repeat(INDENT), INDENT);
        }
        line += part;
        line.push(' ');
        width += length + 1;
    }
    out + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(levels: &[Level]) -> Report {
        let findings = levels.iter().map(|level| Finding::new(*level, Check::Kernel, "something")).collect();
        Report::new(Machine::default(), 0, findings)
    }

    #[test]
    fn the_exit_code_is_the_worst_that_is_known() {
        use Level::{Broken, Note, Ok, Unknown, Warning};
        let check = |levels: &[Level], expected| assert_eq!(report(levels).exit_code(), expected, "{levels:?}");
        check(&[], 0);
        check(&[Ok, Note, Unknown], 0);
        check(&[Ok, Warning, Unknown], 1);
        check(&[Warning, Broken, Ok], 2);
    }

    #[test]
    fn the_worst_comes_first_and_lines_are_short() {
        let mut report = report(&[Level::Ok, Level::Broken]);
        report.machine = Machine { name: "a\x1b[31m".into(), address: "10.0.0.1".into(), version: "1".into() };
        report.findings[0] = Finding::new(Level::Broken, Check::Mtu, "word ".repeat(40).trim()).of("b").remedy("do it");
        report.add(Finding::new(Level::Warning, Check::Daemon, "late"));
        let text = report.text();
        assert!(text.starts_with("Skep 1 on a[31m (10.0.0.1)\n\nbroken   b: word word"), "{text}");
        assert!(text.contains("\n         → do it\nwarning  late\nok       something\n"), "{text}");
        assert!(text.ends_with("\n1 broken, 1 warning, 1 fine\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn json_comes_back() {
        let report = report(&[Level::Unknown, Level::Broken]);
        let text = serde_json::to_string(&report).expect("json");
        assert!(text.contains(r#""Worst":"broken""#) && text.contains(r#""Check":"kernel""#), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("the same"), report);
    }
}
