//! `skep node ls`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{at, filters, text};
use crate::table::Table;
use crate::template::{Column, column, render_rows};
use crate::text::{capital, natural_order};

/// What can be shown of a node.
const COLUMNS: [Column; 8] = [
    column("ID", "ID"),
    column("Self", ""),
    column("Hostname", "HOSTNAME"),
    column("Status", "STATUS"),
    column("Availability", "AVAILABILITY"),
    column("ManagerStatus", "MANAGER STATUS"),
    column("EngineVersion", "ENGINE VERSION"),
    column("TLSStatus", "TLS STATUS"),
];

/// Options of `node ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a template: table, table TEMPLATE, json or TEMPLATE.
    #[arg(long, default_value = "table", hide_default_value = true)]
    format: String,
    /// Only display IDs.
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let nodes: Value = context.client.get(&format!("/nodes?filters={}", filters(&self.filter)?)).await?;
        let info: Value = context.client.get("/info").await?;
        print!("{}", self.render(nodes.as_array().map_or(&[], Vec::as_slice), at(&info, "Swarm"))?);
        Ok(())
    }

    fn render(&self, nodes: &[Value], swarm: &Value) -> Result<String> {
        let mut nodes: Vec<&Value> = nodes.iter().collect();
        nodes.sort_by(|a, b| natural_order(text(a, "Description.Hostname"), text(b, "Description.Hostname")));
        let rows: Vec<Value> = nodes.into_iter().map(|node| row(node, swarm)).collect();
        match (self.format.as_str(), self.quiet) {
            ("table", true) => render_rows("{{.ID}}", &COLUMNS, &rows),
            ("table", false) => Ok(table(&rows)),
            (format, _) => render_rows(format, &COLUMNS, &rows),
        }
    }
}

/// Docker's own table marks the node that answers.
fn table(rows: &[Value]) -> String {
    let mut table = Table::new(&["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"]);
    for row in rows {
        let mark = if row["Self"] == true { " *" } else { "  " };
        let cell = |key: &str| text(row, key).to_owned();
        table.row([
            cell("ID") + mark,
            cell("Hostname"),
            cell("Status"),
            cell("Availability"),
            cell("ManagerStatus"),
            cell("EngineVersion"),
        ]);
    }
    table.render()
}

fn row(node: &Value, swarm: &Value) -> Value {
    let leads = at(node, "ManagerStatus.Leader").as_bool() == Some(true);
    json!({
        "ID": text(node, "ID"),
        "Self": text(node, "ID") == text(swarm, "NodeID"),
        "Hostname": text(node, "Description.Hostname"),
        "Status": capital(text(node, "Status.State")),
        "Availability": capital(text(node, "Spec.Availability")),
        "ManagerStatus": if leads { "Leader".to_owned() } else { capital(text(node, "ManagerStatus.Reachability")) },
        "EngineVersion": text(node, "Description.Engine.EngineVersion"),
        "TLSStatus": tls_status(at(node, "Description.TLSInfo"), at(swarm, "Cluster.TLSInfo")),
    })
}

/// Whether the node's certificate and root are the cluster's.
fn tls_status(node: &Value, cluster: &Value) -> &'static str {
    let told =
        |info: &Value| ["TrustRoot", "CertIssuerSubject", "CertIssuerPublicKey"].map(|key| text(info, key).to_owned());
    let (node, cluster) = (told(node), told(cluster));
    let is_empty = |info: &[String; 3]| info.iter().all(String::is_empty);
    match () {
        () if is_empty(&node) || is_empty(&cluster) => "Unknown",
        () if node == cluster => "Ready",
        () => "Needs Rotation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_listed_as_docker_lists_them() {
        let tls = |root: &str| json!({"TrustRoot": root, "CertIssuerSubject": "AAE=", "CertIssuerPublicKey": "AAI="});
        let node = |id: &str, host: &str, root: &str, state: &str, status: Value| {
            json!({"ID": id, "Spec": {"Availability": "active"}, "Status": {"State": state}, "ManagerStatus": status,
                "Description": {"Hostname": host, "Engine": {"EngineVersion": "28.5.2"}, "TLSInfo": tls(root)}})
        };
        let nodes = [
            node("www", "web10", "old", "down", Value::Null),
            node("mmm", "web2", "new", "ready", json!({"Leader": true, "Reachability": "reachable"})),
            node("nnn", "web1", "new", "ready", json!({"Reachability": "unreachable"})),
        ];
        let swarm = json!({"NodeID": "mmm", "Cluster": {"TLSInfo": tls("new")}});
        let check = |format: &str, quiet: bool, expected: &str| {
            let ls = Ls { filter: Vec::new(), format: format.to_owned(), quiet };
            assert_eq!(ls.render(&nodes, &swarm).unwrap(), expected, "{format}");
        };
        let table = "\
            ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION\n\
            nnn       web1       Ready     Active         Unreachable      28.5.2\n\
            mmm *     web2       Ready     Active         Leader           28.5.2\n\
            www       web10      Down      Active                          28.5.2\n";
        check("table", false, table);
        check("table", true, "nnn\nmmm\nwww\n");
        check(
            r"table {{.Hostname}}\t{{.TLSStatus}}\t{{.Self}}",
            false,
            "HOSTNAME   TLS STATUS       \nweb1       Ready            false\nweb2       Ready            true\n\
             web10      Needs Rotation   false\n",
        );
        check("{{.ID}} {{upper .Hostname}}", true, "nnn WEB1\nmmm WEB2\nwww WEB10\n");
        let json = r#"{"Availability":"Active","EngineVersion":"28.5.2","Hostname":"web2","ID":"mmm","ManagerStatus":"Leader","Self":true,"Status":"Ready","TLSStatus":"Ready"}"#;
        let ls = Ls { filter: Vec::new(), format: "json".to_owned(), quiet: false };
        assert_eq!(ls.render(&nodes[1..2], &swarm).unwrap().trim_end(), json);
        assert_eq!(tls_status(&Value::Null, &tls("new")), "Unknown");
    }
}
