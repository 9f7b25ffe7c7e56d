//! Attachers: those of a running container at once, those that come before its start when it starts.

use shim::protocol::Attach;

use super::Owner;
use crate::container::AttachStreams;
use crate::options::AttachOptions;
use crate::record::Phase;
use crate::shim_client::ShimClient;
use crate::{EngineError, streams};

/// Attachers that wait for a container's start.
const WAITING_MAX: usize = 64;

/// An attacher of a container that does not run yet.
#[derive(Debug)]
pub(super) struct PendingAttach {
    options: AttachOptions,
    streams: AttachStreams,
}

fn wanted(options: AttachOptions, open_stdin: bool) -> Attach {
    Attach { stdin: options.stdin && open_stdin, stdout: options.stdout, stderr: options.stderr }
}

impl Owner {
    pub(super) async fn attach(&mut self, options: AttachOptions, streams: AttachStreams) -> Result<(), EngineError> {
        let id = &self.record.id;
        match self.record.life.phase {
            Phase::Paused => {
                return Err(EngineError::conflict(format!(
                    "container {id} is paused, unpause the container before attach"
                )));
            }
            Phase::Restarting => {
                return Err(EngineError::conflict(format!(
                    "container {id} is restarting, wait until the container is running"
                )));
            }
            Phase::Running => {
                let client = self.client()?.clone();
                return self.connect(&client, options, streams).await;
            }
            Phase::Removing | Phase::Dead => return Err(EngineError::gone(id)),
            Phase::Created | Phase::Exited => {}
        }
        if !options.stream {
            return Ok(());
        }
        self.waiting_attachers.retain(|waiting| !waiting.streams.output.is_closed());
        if self.waiting_attachers.len() >= WAITING_MAX {
            return Err(EngineError::conflict(format!("too many attach to container {id} before its start")));
        }
        self.waiting_attachers.push(PendingAttach { options, streams });
        self.log("attach");
        Ok(())
    }

    async fn connect(
        &self,
        client: &ShimClient,
        options: AttachOptions,
        streams: AttachStreams,
    ) -> Result<(), EngineError> {
        if !options.stream {
            return Ok(());
        }
        let stream = client
            .attach(wanted(options, self.record.config.open_stdin))
            .await
            .map_err(|error| EngineError::internal(format!("attach: {error}")))?;
        streams::join(stream, streams, None);
        self.log("attach");
        Ok(())
    }

    /// Joins those who waited, before the first word of the program.
    pub(super) async fn connect_attachers(&mut self, client: &ShimClient) {
        for waiting in std::mem::take(&mut self.waiting_attachers) {
            if waiting.streams.output.is_closed() {
                continue;
            }
            let wanted = wanted(waiting.options, self.record.config.open_stdin);
            match client.attach(wanted).await {
                Ok(stream) => streams::join(stream, waiting.streams, None),
                Err(error) => tracing::warn!(container = %self.record.id, %error, "cannot attach"),
            }
        }
    }
}
