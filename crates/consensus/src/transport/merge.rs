//! What waits for a peer is made one message where it can be: under load a gRPC call costs more than what it carries.

use swarm_proto::raftpb;

/// Bytes of entries in a merged message; etcd's limit for one.
const MAX_BYTES: usize = 65_535;

/// Puts `next` into `message` if the two say the same together, or gives it back.
pub(super) fn merge(message: &mut raftpb::Message, next: raftpb::Message) -> Option<raftpb::Message> {
    let same = (message.kind, message.from, message.term, message.reject)
        == (next.kind, next.from, next.term, next.reject)
        && !next.reject;
    if same && message.kind == raftpb::MessageType::MsgApp as i32 {
        return merge_appends(message, next);
    }
    // An acknowledgement of an index acknowledges all before it.
    if same && message.kind == raftpb::MessageType::MsgAppResp as i32 && next.index >= message.index {
        *message = next;
        return None;
    }
    Some(next)
}

fn merge_appends(message: &mut raftpb::Message, next: raftpb::Message) -> Option<raftpb::Message> {
    let (last_index, last_term) =
        message.entries.last().map_or((message.index, message.log_term), |last| (last.index, last.term));
    let size = |entries: &[raftpb::Entry]| entries.iter().map(|entry| entry.data.len() + 32).sum::<usize>();
    let follows = (next.index, next.log_term) == (last_index, last_term);
    if !follows || size(&message.entries) + size(&next.entries) > MAX_BYTES {
        return Some(next);
    }
    message.commit = message.commit.max(next.commit);
    message.entries.extend(next.entries);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(index: u64, count: u64, size: usize) -> raftpb::Message {
        let entry = |index| raftpb::Entry { index, term: 2, data: vec![0; size], ..Default::default() };
        raftpb::Message {
            kind: raftpb::MessageType::MsgApp as i32,
            from: 1,
            to: 2,
            term: 2,
            log_term: 2,
            index,
            entries: (index + 1..=index + count).map(entry).collect(),
            commit: index,
            ..Default::default()
        }
    }

    fn check(mut first: raftpb::Message, next: raftpb::Message, expected: Option<raftpb::Message>) {
        let before = first.clone();
        match (merge(&mut first, next.clone()), expected) {
            (None, Some(expected)) => assert_eq!(first, expected),
            (Some(back), None) => assert_eq!((back, first), (next, before)),
            (back, expected) => panic!("{back:?} for {expected:?}"),
        }
    }

    #[test]
    fn appends_that_follow_each_other_become_one() {
        check(append(4, 2, 9), append(6, 1, 9), Some(raftpb::Message { commit: 6, ..append(4, 3, 9) }));
        // A new commit index alone.
        check(append(4, 2, 9), append(6, 0, 9), Some(raftpb::Message { commit: 6, ..append(4, 2, 9) }));
        check(append(4, 0, 9), append(4, 2, 9), Some(append(4, 2, 9)));
        // A gap, the past, another term, too much.
        check(append(4, 2, 9), append(7, 1, 9), None);
        check(append(4, 2, 9), append(5, 1, 9), None);
        check(append(4, 2, 9), raftpb::Message { term: 3, ..append(6, 1, 9) }, None);
        check(append(4, 2, 9), raftpb::Message { log_term: 1, ..append(6, 1, 9) }, None);
        check(
            append(4, 1, 60_000),
            append(5, 1, 5_400),
            Some(raftpb::Message {
                commit: 5,
                entries: append(4, 1, 60_000).entries.into_iter().chain(append(5, 1, 5_400).entries).collect(),
                ..append(4, 1, 60_000)
            }),
        );
        check(append(4, 1, 60_000), append(5, 1, 5_500), None);
    }

    #[test]
    fn the_last_acknowledgement_counts() {
        let answer = |index, reject| raftpb::Message {
            kind: raftpb::MessageType::MsgAppResp as i32,
            from: 1,
            to: 2,
            term: 2,
            index,
            reject,
            ..Default::default()
        };
        check(answer(4, false), answer(7, false), Some(answer(7, false)));
        check(answer(7, false), answer(4, false), None);
        check(answer(4, false), answer(7, true), None);
        check(answer(4, true), answer(7, true), None);
        check(answer(4, false), append(4, 1, 9), None);
    }
}
