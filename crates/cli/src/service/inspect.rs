//! `skep service inspect`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;

use super::pretty::pretty;
use crate::context::Context;
use crate::inspect::{Format, Found};
use crate::json::{encode, list, text};

/// Options of `service inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    format: Format,
    /// Print the information in a human friendly format.
    #[arg(long)]
    pretty: bool,
    /// Services, by name or identifier.
    #[arg(required = true)]
    services: Vec<String>,
}

impl Inspect {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut found = Found::default();
        for name in &self.services {
            // With what the managers take where the spec says nothing.
            let path = format!("/services/{}?insertDefaults=true", encode(name));
            match context.client.get::<Box<RawValue>>(&path).await {
                Ok(service) => found.add(Ok(service)),
                Err(error) if error.status() == Some(404) => {
                    found.add(Err(format!("Error: no such service: {name}")));
                }
                Err(error) => found.add(Err(error.to_string())),
            }
        }
        if !self.pretty {
            return found.print(&self.format);
        }
        for service in std::mem::take(&mut found.objects) {
            let service: Value = serde_json::from_str(service.get())?;
            print!("{}", pretty(&service, &networks(context, &service).await));
        }
        found.end()
    }
}

/// Names of the service's networks; one that cannot be asked for keeps its identifier.
async fn networks(context: &Context, service: &Value) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for network in list(service, "Spec.TaskTemplate.Networks") {
        let id = text(network, "Target");
        if let Ok(network) = context.client.get::<Value>(&format!("/networks/{}", encode(id))).await {
            names.insert(id.to_owned(), text(&network, "Name").to_owned());
        }
    }
    names
}
