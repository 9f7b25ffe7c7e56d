//! The netfilter socket of one namespace.

use std::io;
use std::ops::{Deref, DerefMut};

use netlink_sys::constants::NETLINK_NETFILTER;

use super::batch::{Batch, TABLE_DELETED, Table};
use crate::netlink::{self, News};

/// A transaction that races with another table's is tried again by the kernel; a signal may still break it.
const MAX_TRIES: u32 = 5;

/// A netfilter socket; it stays in the namespace it was opened in.
pub(crate) struct Socket(netlink::Socket);

impl Deref for Socket {
    type Target = netlink::Socket;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Socket {
    /// Opens one in the thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        netlink::Socket::open(NETLINK_NETFILTER).map(Self)
    }

    /// Commits a transaction. `Ok` means that the kernel works by it.
    pub(crate) fn commit(&mut self, batch: Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, last) = batch.finish();
        let mut tries = 1;
        loop {
            match self.transact(&bytes, last) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// Writes tables anew without a moment in which neither the old nor the new ones count. A transaction switches rules
    /// by packet, but the elements of sets at once: a packet that has begun with the old rules finds the old sets empty. So
    /// stand-ins with the same contents are there while the tables are replaced.
    pub(crate) fn replace(&mut self, stand_ins: Batch, tables: Batch, gone: &[Table]) -> io::Result<()> {
        self.commit(stand_ins)?;
        let replaced = self.commit(tables);
        let mut batch = Batch::new();
        for table in gone {
            // Somebody may have flushed it meanwhile.
            batch.add_table(table);
            batch.delete_table(table);
        }
        let removed = self.commit(batch);
        replaced.and(removed)
    }

    /// Whether there is a table of this name.
    pub(crate) fn has_table(&mut self, table: &Table) -> io::Result<bool> {
        match self.request(&table.question()) {
            Ok(replies) => Ok(!replies.is_empty()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Opens a socket in the thread's namespace that hears of tables that are deleted there.
pub(crate) fn news() -> io::Result<News> {
    const NFNLGRP_NFTABLES: u32 = 7;
    News::open(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES], &[TABLE_DELETED])
}
