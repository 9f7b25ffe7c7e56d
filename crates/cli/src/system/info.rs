//! `skep info`: docker's lines.

use anyhow::Result;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::version::client;
use super::{Shown, swarm};
use crate::context::Context;
use crate::json::{at, list, number, text};
use crate::template::render_object;

pub(crate) async fn info(context: &Context, shown: &Shown) -> Result<()> {
    let server: Box<RawValue> = context.client.get("/info").await?;
    if let Some(format) = &shown.format {
        // Docker's object: the daemon's fields, and the client's in one more.
        let fields = server.get().trim_end().strip_suffix('}').unwrap_or_default();
        let object = format!("{fields},\"ClientInfo\":{}}}", to_raw_value(&client(context))?);
        print!("{}", render_object(format, &RawValue::from_string(object)?)?);
        return Ok(());
    }
    let info: Value = serde_json::from_str(server.get())?;
    print!("Client: Skep {}\n\n{}", env!("CARGO_PKG_VERSION"), described(&info));
    for warning in list(&info, "Warnings") {
        eprintln!("{}", warning.as_str().unwrap_or_default());
    }
    Ok(())
}

fn described(info: &Value) -> String {
    let mut out = String::from("Server:\n");
    let words = |path: &str| list(info, path).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    let mut line = |head: &str, value: &str| out.push_str(&format!(" {head} {value}\n"));
    let count = |path: &str| number(info, path).to_string();
    line("Containers:", &count("Containers"));
    line(" Running:", &count("ContainersRunning"));
    line(" Paused:", &count("ContainersPaused"));
    line(" Stopped:", &count("ContainersStopped"));
    line("Images:", &count("Images"));
    line("Server Version:", text(info, "ServerVersion"));
    line("Storage Driver:", text(info, "Driver"));
    for pair in list(info, "DriverStatus") {
        let word = |at: usize| pair.get(at).and_then(Value::as_str).unwrap_or_default();
        line(&format!(" {}:", word(0)), word(1));
    }
    line("Logging Driver:", text(info, "LoggingDriver"));
    line("Cgroup Driver:", text(info, "CgroupDriver"));
    line("Cgroup Version:", text(info, "CgroupVersion"));
    out.push_str(" Plugins:\n");
    for (head, path) in [("Volume", "Plugins.Volume"), ("Network", "Plugins.Network"), ("Log", "Plugins.Log")] {
        out.push_str(&format!("  {head}: {}\n", words(path)));
    }
    let swarm = at(info, "Swarm");
    out.push_str(&format!(" Swarm: {}\n{}", text(swarm, "LocalNodeState"), swarm::describe(swarm)));
    runtimes(info, &mut out);
    machine(info, &mut out);
    settings(info, &mut out);
    out.push('\n');
    out
}

fn runtimes(info: &Value, out: &mut String) {
    let runtimes = at(info, "Runtimes").as_object();
    let names: Vec<&str> = runtimes.into_iter().flat_map(|it| it.keys()).map(String::as_str).collect();
    if !names.is_empty() {
        out.push_str(&format!(" Runtimes: {}\n Default Runtime: {}\n", names.join(" "), text(info, "DefaultRuntime")));
    }
    out.push_str(&format!(" Init Binary: {}\n", text(info, "InitBinary")));
    for (head, path) in [("containerd", "ContainerdCommit.ID"), ("runc", "RuncCommit.ID"), ("init", "InitCommit.ID")] {
        out.push_str(&format!(" {head} version: {}\n", text(info, path)));
    }
    let options: Vec<&str> = list(info, "SecurityOptions").iter().filter_map(Value::as_str).collect();
    if !options.is_empty() {
        out.push_str(" Security Options:\n");
    }
    // name=seccomp,profile=builtin
    for pair in options.iter().flat_map(|option| option.split(',')).filter_map(|pair| pair.split_once('=')) {
        match pair {
            ("name", name) => out.push_str(&format!("  {name}\n")),
            ("profile", profile) => out.push_str(&format!("   Profile: {profile}\n")),
            _ => {}
        }
    }
}

fn machine(info: &Value, out: &mut String) {
    let mut line = |head: &str, value: &str| out.push_str(&format!(" {head} {value}\n"));
    line("Kernel Version:", text(info, "KernelVersion"));
    line("Operating System:", text(info, "OperatingSystem"));
    line("OSType:", text(info, "OSType"));
    line("Architecture:", text(info, "Architecture"));
    line("CPUs:", &number(info, "NCPU").to_string());
    line("Total Memory:", &crate::text::binary_size(number(info, "MemTotal")));
    line("Name:", text(info, "Name"));
    line("ID:", text(info, "ID"));
    line("Docker Root Dir:", text(info, "DockerRootDir"));
}

fn settings(info: &Value, out: &mut String) {
    let is = |path: &str| at(info, path) == true;
    out.push_str(&format!(" Debug Mode: {}\n", is("Debug")));
    if is("Debug") {
        out.push_str(&format!(
            "  File Descriptors: {}\n  Goroutines: {}\n",
            number(info, "NFd"),
            number(info, "NGoroutines")
        ));
        out.push_str(&format!("  System Time: {}\n", text(info, "SystemTime")));
        out.push_str(&format!("  EventsListeners: {}\n", number(info, "NEventsListener")));
    }
    for (head, path) in [("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")] {
        if !text(info, path).is_empty() {
            out.push_str(&format!(" {head}: {}\n", text(info, path)));
        }
    }
    let words = |path: &str| list(info, path).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    items(out, "Labels", words("Labels"));
    out.push_str(&format!(" Experimental: {}\n", is("ExperimentalBuild")));
    let indexes = at(info, "RegistryConfig.IndexConfigs").as_object();
    let insecure = indexes.into_iter().flat_map(|it| it.values()).filter(|index| at(index, "Secure") != true);
    let insecure =
        insecure.map(|index| text(index, "Name").to_owned()).chain(words("RegistryConfig.InsecureRegistryCIDRs"));
    items(out, "Insecure Registries", insecure.collect());
    items(out, "Registry Mirrors", words("RegistryConfig.Mirrors"));
    out.push_str(&format!(" Live Restore Enabled: {}\n", is("LiveRestoreEnabled")));
    let pools = list(info, "DefaultAddressPools");
    if !pools.is_empty() {
        out.push_str(" Default Address Pools:\n");
    }
    for pool in pools {
        out.push_str(&format!("   Base: {}, Size: {}\n", text(pool, "Base"), number(pool, "Size")));
    }
}

fn items(out: &mut String, title: &str, items: Vec<String>) {
    if !items.is_empty() {
        out.push_str(&format!(" {title}:\n"));
    }
    items.iter().for_each(|item| out.push_str(&format!("  {item}\n")));
}
