//! `skep version`.

use anyhow::Result;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::Shown;
use crate::context::Context;
use crate::json::{at, text};
use crate::template::render_object;

pub(crate) async fn version(context: &Context, shown: &Shown) -> Result<()> {
    let server: Box<RawValue> = context.client.get("/version").await?;
    let client = client(context);
    match &shown.format {
        Some(format) => {
            let both = format!("{{\"Client\":{},\"Server\":{server}}}", to_raw_value(&client)?);
            print!("{}", render_object(format, &RawValue::from_string(both)?)?);
        }
        None => print!("{}", described(&client, &serde_json::from_str(server.get())?)),
    }
    Ok(())
}

/// What this program says of itself, under docker's names.
pub(super) fn client(context: &Context) -> Value {
    json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": context.client.version(), "DefaultAPIVersion": "1.51",
        "GitCommit": option_env!("SKEP_GIT_COMMIT").unwrap_or("unknown"), "GoVersion": "none (Rust)",
        "Os": std::env::consts::OS, "Arch": arch(), "BuildTime": option_env!("SKEP_BUILD_TIME").unwrap_or_default(),
        "Context": "default",
    })
}

/// The architecture in Go's words.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn described(client: &Value, server: &Value) -> String {
    let line = |head: &str, value: &str| format!("{head}{value}\n");
    let mut out = line("Client: ", &format!("Skep {}", text(client, "Version")));
    out += &line(" API version:       ", text(client, "ApiVersion"));
    out += &line(" Git commit:        ", text(client, "GitCommit"));
    out += &line(" OS/Arch:           ", &format!("{}/{}", text(client, "Os"), text(client, "Arch")));
    let platform = text(server, "Platform.Name");
    out += &line("\nServer:", &if platform.is_empty() { String::new() } else { format!(" {platform}") });
    let api = format!("{} (minimum version {})", text(server, "ApiVersion"), text(server, "MinAPIVersion"));
    let of_engine = [
        ("Version:          ", text(server, "Version").to_owned()),
        ("API version:      ", api),
        ("Go version:       ", text(server, "GoVersion").to_owned()),
        ("Git commit:       ", text(server, "GitCommit").to_owned()),
        ("Built:            ", text(server, "BuildTime").to_owned()),
        ("OS/Arch:          ", format!("{}/{}", text(server, "Os"), text(server, "Arch"))),
        ("Experimental:     ", (at(server, "Experimental") == true).to_string()),
    ];
    out += " Engine:\n";
    out + &of_engine.iter().map(|(head, value)| format!("  {head}{value}\n")).collect::<String>()
}
