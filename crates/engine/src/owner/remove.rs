//! Removal: refused, after a kill, or at once. What is removed leaves no file, mount, network or name behind.

use super::Owner;
use super::stop::Then;
use crate::container::{Reply, View};
use crate::record::{Flush, MountKind, Phase};
use crate::{EngineError, RemoveOptions};

impl Owner {
    pub(super) async fn remove(&mut self, options: RemoveOptions, reply: Reply) {
        let (phase, name) = (self.record.life.phase, &self.record.name);
        match phase {
            Phase::Running | Phase::Paused | Phase::Restarting if !options.force => {
                let advice = if phase == Phase::Paused { "unpause and then stop" } else { "stop" };
                let text = format!(
                    "cannot remove container \"/{name}\": container is {}: {advice} the container before removing or force remove",
                    phase.as_str()
                );
                let _ = reply.send(Err(EngineError::conflict(text)));
            }
            Phase::Running | Phase::Paused => self.kill_for(Then::Remove(options, reply)).await,
            _ => {
                let _ = reply.send(self.remove_now(options).await);
            }
        }
    }

    /// Removes a container that does not run. A second removal finds nothing to do.
    pub(super) async fn remove_now(&mut self, options: RemoveOptions) -> Result<(), EngineError> {
        if self.view.borrow().removed {
            return Ok(());
        }
        self.restart_at = None;
        self.record.life.phase = Phase::Removing;
        // told to a daemon that finds the rest after a crash
        self.save_or_warn(Flush::Later).await;
        self.publish();
        match self.remove_files().await {
            Ok(()) => {}
            Err(error) => {
                let text = format!("cannot remove container \"/{}\": {error}", self.record.name);
                self.record.life.phase = Phase::Dead;
                self.record.life.error.clone_from(&text);
                self.save_or_warn(Flush::Later).await;
                self.publish();
                return Err(EngineError::internal(text));
            }
        }
        self.remove_volumes(options).await;
        self.engine.execs.forget_container(&self.record.id);
        self.engine.index.remove(&self.record.id);
        self.view.send_replace(std::sync::Arc::new(View {
            record: std::sync::Arc::new(self.record.clone()),
            exits: self.exits,
            shim: None,
            removed: true,
        }));
        self.log("destroy");
        Ok(())
    }

    async fn remove_files(&mut self) -> Result<(), EngineError> {
        if self.shim.is_some() {
            self.take_down().await;
        }
        self.engine.images.remove_rootfs(&self.record.id).await?;
        let paths = self.paths.clone();
        let work = tokio::task::spawn_blocking(move || {
            for directory in [&paths.exec, &paths.data] {
                match std::fs::remove_dir_all(directory) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(EngineError::io("remove", directory, &error));
                    }
                    _ => {}
                }
            }
            Ok(())
        });
        work.await.map_err(|_| EngineError::internal("the removal was cancelled"))?
    }

    async fn remove_volumes(&self, options: RemoveOptions) {
        let engine = self.engine.clone();
        let id = self.record.id.clone();
        let volumes: Vec<(String, bool)> = self
            .record
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Volume)
            .map(|mount| (mount.name.clone(), mount.anonymous))
            .collect();
        let work = tokio::task::spawn_blocking(move || {
            for (name, anonymous) in volumes {
                engine.volumes.remove_user(&name, &id);
                // another container may use it by `--volumes-from`; then it stays
                if options.volumes && anonymous && engine.volumes.remove(&name).is_ok() {
                    engine.events.log("volume", "destroy", &name, [("driver".to_owned(), "local".to_owned())].into());
                }
            }
        });
        if work.await.is_err() {
            tracing::warn!(container = %self.record.id, "removing its volumes was cancelled");
        }
    }
}
