//! Go-template placeholders in host names, environment and mounts of a task: `{{.Service.Name}}` and its like, and
//! `{{index .Service.Labels "key"}}`; in templated secrets and configs `{{env "NAME"}}`, `{{secret "target"}}` and
//! `{{config "target"}}`, too. Other template functions are refused with a text that says so.

use std::collections::BTreeMap;

use model::{ContainerSpec, Task};

/// Functions of a template: name, argument.
type Functions<'a> = &'a dyn Fn(&str, &str) -> Option<Result<String, String>>;

/// What placeholders stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct TemplateContext {
    values: BTreeMap<&'static str, String>,
    service_labels: BTreeMap<String, String>,
}

impl TemplateContext {
    /// The values of one task on this node.
    pub(crate) fn new(task: &Task, hostname: &str, os: &str, architecture: &str) -> Self {
        let text = |id: Option<String>| id.unwrap_or_default();
        let node = text(task.node_id.as_ref().map(ToString::to_string));
        let values = BTreeMap::from([
            (".Service.ID", text(task.service_id.as_ref().map(ToString::to_string))),
            (".Service.Name", task.service_annotations.name.clone()),
            (".Node.ID", node.clone()),
            (".Node.Hostname", hostname.to_owned()),
            (".Node.Platform.OS", os.to_owned()),
            (".Node.Platform.Architecture", architecture.to_owned()),
            (".Task.ID", task.id.to_string()),
            (".Task.Name", super::task_name(task)),
            (".Task.Slot", if task.slot == 0 { node } else { task.slot.to_string() }),
        ]);
        Self { values, service_labels: task.service_annotations.labels.clone() }
    }

    /// Fills in every placeholder of a text.
    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        self.expand_with(text, &|_, _| None)
    }

    /// The same, with functions of one text: by name and argument; `None` for a function that there is not.
    pub(crate) fn expand_with(&self, text: &str, call: Functions<'_>) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once("{{") {
            out.push_str(before);
            let (action, after) =
                tail.split_once("}}").ok_or_else(|| format!("unclosed action in template {text:?}"))?;
            out.push_str(&self.value(action.trim_matches(['-', ' ', '\t']), call)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, action: &str, call: Functions<'_>) -> Result<String, String> {
        if let Some(value) = self.values.get(action) {
            return Ok(value.clone());
        }
        let label = action.strip_prefix("index").map(str::trim).and_then(|rest| rest.strip_prefix(".Service.Labels"));
        if let Some(key) = label.map(str::trim).and_then(|key| key.strip_prefix('"')?.strip_suffix('"')) {
            return Ok(self.service_labels.get(key).cloned().unwrap_or_default());
        }
        let called = action.split_once(char::is_whitespace).and_then(|(name, argument)| {
            let argument = argument.trim();
            let inner = |quote| argument.strip_prefix(quote)?.strip_suffix(quote);
            call(name, inner('"').or_else(|| inner('`'))?)
        });
        if let Some(value) = called {
            return value;
        }
        Err(format!("template action {{{{{action}}}}} is not known to this version of Skep"))
    }

    /// Fills in the placeholders that a container spec may have.
    pub(crate) fn expand_container(&self, spec: &mut ContainerSpec) -> Result<(), String> {
        spec.hostname = self.expand(&spec.hostname)?;
        for variable in &mut spec.env {
            *variable = self.expand(variable)?;
        }
        for mount in &mut spec.mounts {
            mount.source = self.expand(&mount.source)?;
            mount.target = self.expand(&mount.target)?;
            let Some(volume) = &mut mount.volume_options else { continue };
            for value in volume.labels.values_mut() {
                *value = self.expand(value)?;
            }
            for value in volume.driver_config.iter_mut().flat_map(|driver| driver.options.values_mut()) {
                *value = self.expand(value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in() {
        let mut task = Task { id: "t1".into(), slot: 3, ..Task::default() };
        task.service_id = Some("s1".into());
        task.service_annotations.name = "web".to_owned();
        task.service_annotations.labels.insert("tier".to_owned(), "front".to_owned());
        let context = TemplateContext::new(&task, "host1", "linux", "x86_64");
        let check = |text: &str, expected: Result<&str, ()>| {
            assert_eq!(context.expand(text).as_deref().map_err(|_| ()), expected, "{text}");
        };
        check("plain", Ok("plain"));
        check("{{.Node.Hostname}}-{{ .Task.Slot }}", Ok("host1-3"));
        check("{{.Task.Name}}", Ok("web.3.t1"));
        check("{{index .Service.Labels \"tier\"}}", Ok("front"));
        check("{{.Nonsense}}", Err(()));
        check("{{env \"A\"}}", Err(()));
        let call = |name: &str, argument: &str| (name == "env").then(|| Ok(format!("<{argument}>")));
        let expand = |text: &str| context.expand_with(text, &call);
        assert_eq!(expand("{{ env \"A\" }} {{env `B`}} {{.Task.ID}}").as_deref(), Ok("<A> <B> t1"));
        for unknown in ["{{ env A }}", "{{ env }}", "{{ other \"A\" }}"] {
            assert!(expand(unknown).is_err(), "{unknown}");
        }
        check("{{.Task.ID", Err(()));
    }
}
