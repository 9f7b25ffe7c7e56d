//! What `skep service inspect --pretty` prints: docker's lines, with its tabs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::list::mode;
use crate::json::{at, list, number, text};
use crate::text::{age, binary_size, go_duration};

/// A service in a human friendly format; `networks` are names by identifier.
pub(super) fn pretty(service: &Value, networks: &BTreeMap<String, String>) -> String {
    let mut out = format!("\nID:\t\t{}\nName:\t\t{}\n", text(service, "ID"), text(service, "Spec.Name"));
    pairs(&mut out, "Labels:", at(service, "Spec.Labels"), "=");
    out.push_str("Service Mode:");
    match mode(service) {
        "global" => out.push_str("\tGlobal"),
        "replicated" => {
            let replicas = number(service, "Spec.Mode.Replicated.Replicas");
            out.push_str(&format!("\tReplicated\n Replicas:\t{replicas}"));
        }
        _ => {}
    }
    out.push('\n');
    update_status(&mut out, at(service, "UpdateStatus"));
    placement(&mut out, at(service, "Spec.TaskTemplate.Placement"));
    for (title, order, key) in [
        ("UpdateConfig", "Update order:  ", "Spec.UpdateConfig"),
        ("RollbackConfig", "Rollback order:", "Spec.RollbackConfig"),
    ] {
        update_config(&mut out, title, order, at(service, key));
    }
    container(&mut out, at(service, "Spec.TaskTemplate.ContainerSpec"));
    log_driver(&mut out, at(service, "Spec.TaskTemplate.LogDriver"));
    resources(&mut out, at(service, "Spec.TaskTemplate.Resources"));
    let names: Vec<&str> = list(service, "Spec.TaskTemplate.Networks")
        .iter()
        .map(|network| text(network, "Target"))
        .map(|id| networks.get(id).map_or(id, String::as_str))
        .collect();
    if !names.is_empty() {
        out.push_str(&format!("Networks: {} \n", names.join(" ")));
    }
    out.push_str(&format!("Endpoint Mode:\t{}\n", text(service, "Spec.EndpointSpec.Mode")));
    ports(&mut out, list(service, "Endpoint.Ports"));
    health(&mut out, at(service, "Spec.TaskTemplate.ContainerSpec.Healthcheck"));
    out + "\n"
}

/// A title, and a line for each pair; nothing if there is none.
fn pairs(out: &mut String, title: &str, pairs: &Value, between: &str) {
    let Some(pairs) = pairs.as_object().filter(|pairs| !pairs.is_empty()) else { return };
    out.push_str(&format!("{title}\n"));
    for (key, value) in pairs {
        match value.as_str().unwrap_or_default() {
            "" => out.push_str(&format!(" {key}\n")),
            value => out.push_str(&format!(" {key}{between}{value}\n")),
        }
    }
}

/// A line, unless its value is empty.
fn line(out: &mut String, head: &str, value: &str) {
    if !value.is_empty() {
        out.push_str(&format!("{head}{value}\n"));
    }
}

fn words<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    list(value, key).iter().filter_map(Value::as_str).collect()
}

fn update_status(out: &mut String, status: &Value) {
    if text(status, "State").is_empty() {
        return;
    }
    out.push_str(&format!("UpdateStatus:\n State:\t\t{}\n", text(status, "State")));
    let ago = |key: &str| Some(age(text(status, key))).filter(|age| !age.is_empty()).map(|age| format!("{age} ago"));
    line(out, " Started:\t", &ago("StartedAt").unwrap_or_default());
    if text(status, "State") == "completed" {
        line(out, " Completed:\t", &ago("CompletedAt").unwrap_or_default());
    }
    out.push_str(&format!(" Message:\t{}\n", text(status, "Message")));
}

fn placement(out: &mut String, placement: &Value) {
    out.push_str("Placement:\n");
    let constraints = words(placement, "Constraints");
    if !constraints.is_empty() {
        out.push_str(&format!(" Constraints:\t[{}]\n", constraints.join(" ")));
    }
    let spreads = list(placement, "Preferences").iter().map(|it| text(it, "Spread.SpreadDescriptor"));
    let spreads: Vec<String> = spreads.filter(|it| !it.is_empty()).map(|it| format!("spread={it}")).collect();
    if !spreads.is_empty() {
        out.push_str(&format!(" Preferences:   [{}]\n", spreads.join(" ")));
    }
    if number(placement, "MaxReplicas") > 0 {
        out.push_str(&format!(" Max Replicas Per Node:   {}\n", number(placement, "MaxReplicas")));
    }
}

fn update_config(out: &mut String, title: &str, order: &str, config: &Value) {
    if config.is_null() {
        return;
    }
    out.push_str(&format!("{title}:\n Parallelism:\t{}\n", number(config, "Parallelism")));
    if number(config, "Delay") > 0 {
        out.push_str(&format!(" Delay:\t\t{}\n", go_duration(number(config, "Delay"))));
    }
    out.push_str(&format!(" On failure:\t{}\n", text(config, "FailureAction")));
    if number(config, "Monitor") > 0 {
        out.push_str(&format!(" Monitoring Period: {}\n", go_duration(number(config, "Monitor"))));
    }
    let ratio = at(config, "MaxFailureRatio").as_f64().unwrap_or_default();
    out.push_str(&format!(" Max failure ratio: {ratio}\n {order}    {}\n", text(config, "Order")));
}

fn container(out: &mut String, spec: &Value) {
    out.push_str(&format!("ContainerSpec:\n Image:\t\t{}\n", text(spec, "Image")));
    for (head, key) in [(" Args:\t\t", "Args"), (" Env:\t\t", "Env")] {
        let words: String = words(spec, key).iter().map(|word| format!("{word} ")).collect();
        line(out, head, &words);
    }
    line(out, " Dir:\t\t", text(spec, "Dir"));
    if let Some(init) = at(spec, "Init").as_bool() {
        out.push_str(&format!(" Init:\t\t{init}\n"));
    }
    line(out, " User: ", text(spec, "User"));
    let (add, drop) = (words(spec, "CapabilityAdd").join(", "), words(spec, "CapabilityDrop").join(", "));
    if !add.is_empty() || !drop.is_empty() {
        out.push_str("Capabilities:\n");
    }
    line(out, " Add: ", &add);
    line(out, " Drop: ", &drop);
    pairs(out, "SysCtls:", at(spec, "Sysctls"), ": ");
    let limits: BTreeMap<&str, &Value> = list(spec, "Ulimits").iter().map(|it| (text(it, "Name"), it)).collect();
    if !limits.is_empty() {
        out.push_str("Ulimits:\n");
    }
    for (name, limit) in limits {
        out.push_str(&format!(" {name}: {}:{}\n", number(limit, "Soft"), number(limit, "Hard")));
    }
    if !list(spec, "Mounts").is_empty() {
        out.push_str("Mounts:\n");
    }
    for mount in list(spec, "Mounts") {
        out.push_str(&format!(" Target:\t{}\n  Source:\t{}\n", text(mount, "Target"), text(mount, "Source")));
        let is_read_only = at(mount, "ReadOnly") == true;
        out.push_str(&format!("  ReadOnly:\t{is_read_only}\n  Type:\t\t{}\n", text(mount, "Type")));
    }
    for (title, key, name) in [("Configs:", "Configs", "ConfigName"), ("Secrets:", "Secrets", "SecretName")] {
        line(out, "", if list(spec, key).is_empty() { "" } else { title });
        for part in list(spec, key) {
            out.push_str(&format!(" Target:\t{}\n  Source:\t{}\n", text(part, "File.Name"), text(part, name)));
        }
    }
}

fn log_driver(out: &mut String, driver: &Value) {
    if driver.is_null() {
        return;
    }
    out.push_str("Log Driver:\n");
    line(out, " Name:\t\t", text(driver, "Name"));
    let options = at(driver, "Options").as_object();
    line(out, "", if options.is_some_and(|options| !options.is_empty()) { " LogOpts:" } else { "" });
    for (key, value) in options.into_iter().flatten() {
        match value.as_str().unwrap_or_default() {
            "" => out.push_str(&format!("  {key}\n")),
            value => out.push_str(&format!("  {key}:       {value}\n")),
        }
    }
    out.push('\n');
}

fn resources(out: &mut String, resources: &Value) {
    if resources.is_null() {
        return;
    }
    out.push_str("Resources:\n");
    for (title, key) in [(" Reservations:", "Reservations"), (" Limits:", "Limits")] {
        let part = at(resources, key);
        let (cpus, memory, pids) = (number(part, "NanoCPUs"), number(part, "MemoryBytes"), number(part, "Pids"));
        if cpus > 0 || memory > 0 || pids > 0 {
            out.push_str(&format!("{title}\n"));
        }
        if cpus > 0 {
            out.push_str(&format!("  CPU:\t\t{}\n", cpus as f64 / 1e9));
        }
        if memory > 0 {
            out.push_str(&format!("  Memory:\t{}\n", binary_size(memory)));
        }
        if pids > 0 {
            out.push_str(&format!("  PIDs:\t\t{pids}\n"));
        }
    }
}

fn ports(out: &mut String, ports: &[Value]) {
    if ports.is_empty() {
        return;
    }
    out.push_str("Ports:\n");
    for port in ports {
        out.push_str(&format!(" PublishedPort = {}\n", number(port, "PublishedPort")));
        out.push_str(&format!(
            "  Protocol = {}\n  TargetPort = {}\n",
            text(port, "Protocol"),
            number(port, "TargetPort")
        ));
        out.push_str(&format!("  PublishMode = {}\n", text(port, "PublishMode")));
    }
    // Docker's template leaves a space behind the last.
    out.insert(out.len() - 1, ' ');
}

fn health(out: &mut String, check: &Value) {
    if check.is_null() {
        return;
    }
    let after = |key: &str| go_duration(number(check, key));
    out.push_str(&format!(
        " Healthcheck:\n  Interval = {}\n  Retries = {}\n",
        after("Interval"),
        number(check, "Retries")
    ));
    out.push_str(&format!("  StartPeriod =\t{}\n  Timeout =\t{}", after("StartPeriod"), after("Timeout")));
    let tests = words(check, "Test");
    if !tests.is_empty() {
        out.push_str("\n  Tests:");
        tests.iter().for_each(|test| out.push_str(&format!("\n\t Test = {test}")));
        out.push(' ');
    }
    out.push('\n');
}
