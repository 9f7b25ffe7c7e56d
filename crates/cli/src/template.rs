//! `--format`: rows as a table, as JSON, or by a template. Of Go's templates, which docker takes, the part that command
//! lines use: fields, and `json`, `upper`, `lower`, `title`, `len`, `index` of them. Anything else is refused by name
//! rather than printed wrong.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::table::Table;
use crate::text::capital;

/// What docker prints for a field that is not there.
const NO_VALUE: &str = "<no value>";

/// One value that can be shown of each row.
pub(crate) struct Column {
    /// As templates name it.
    pub name: &'static str,
    /// As tables head it.
    pub heading: &'static str,
}

/// Columns from pairs of name and heading.
pub(crate) const fn column(name: &'static str, heading: &'static str) -> Column {
    Column { name, heading }
}

/// Where a row keeps the labels that `{{.Label "name"}}` looks up; it is not shown otherwise.
pub(crate) const LABELS: &str = "\0labels";

/// Rows in a format: `table`, `table TEMPLATE`, `json` or a template.
pub(crate) fn render_rows(format: &str, columns: &[Column], rows: &[Value]) -> Result<String> {
    if format == "json" {
        return Ok(rows.iter().map(|row| row_as_json(row) + "\n").collect());
    }
    let (is_table, template) = match format.strip_prefix("table") {
        Some("") => {
            (true, columns.iter().map(|column| format!("{{{{.{}}}}}", column.name)).collect::<Vec<_>>().join("\t"))
        }
        Some(rest) if rest.starts_with(char::is_whitespace) => (true, unescape(rest.trim())),
        _ => (false, unescape(format)),
    };
    let template = Template::parse(&template)?;
    let line = |row: &Value| {
        let known = |key: &str| row.get(key).is_some() || columns.iter().any(|column| column.name == key);
        match template.keys().find(|key| *key != LABELS && !known(key)) {
            Some(key) => bail!("template parsing error: can't evaluate field {key}"),
            None => template.render(row),
        }
    };
    if !is_table {
        return rows.iter().map(|row| line(row).map(|line| line + "\n")).collect();
    }
    let headings = columns.iter().map(|column| (column.name.to_owned(), Value::from(column.heading)));
    let head = template.plain().render(&Value::Object(headings.collect::<Map<_, _>>()))?;
    let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let mut table = Table::of(cells(&head));
    for row in rows {
        table.push(cells(&line(row)?));
    }
    Ok(table.render())
}

/// Objects as `inspect --format` shows them: one line each, `json` for all in one list.
pub(crate) fn render_objects(format: &str, objects: &[Box<RawValue>]) -> Result<String> {
    if format == "json" {
        return Ok(format!("{}\n", serde_json::to_string(objects)?));
    }
    let template = Template::parse(&unescape(format))?;
    let line = |object: &RawValue| Ok(template.render_with(&serde_json::from_str(object.get())?, Some(object))? + "\n");
    objects.iter().map(|object| line(object)).collect()
}

/// One object by a template.
pub(crate) fn render_object(format: &str, object: &RawValue) -> Result<String> {
    if format == "json" {
        return Ok(format!("{object}\n"));
    }
    let template = Template::parse(&unescape(format))?;
    Ok(template.render_with(&serde_json::from_str(object.get())?, Some(object))? + "\n")
}

/// A row as Go's encoder writes it: with what HTML would take for its own in other words.
fn row_as_json(row: &Value) -> String {
    let shown = row.as_object().map(|row| row.iter().filter(|(key, _)| *key != LABELS).collect::<BTreeMap<_, _>>());
    let text = shown.map_or_else(|| row.to_string(), |shown| serde_json::json!(shown).to_string());
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Shells hand `\t` and `\n` on as they are typed.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// A template, read.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    Show(Function, Vec<Step>),
}

/// What is done to a value before it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Plain,
    Json,
    Upper,
    Lower,
    Title,
    Len,
    /// Empty if there is none.
    Label,
}

/// The way into a value.
#[derive(Clone)]
enum Step {
    Key(String),
    Place(usize),
}

impl Template {
    fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            parts.push(Part::Text(before.to_owned()));
            let Some((action, after)) = after.split_once("}}") else {
                bail!("template parsing error: unclosed action in {text:?}");
            };
            parts.push(action_part(action.trim())?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The first keys of what is shown.
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Show(_, path) => match path.first() {
                Some(Step::Key(key)) => Some(key.as_str()),
                _ => None,
            },
            Part::Text(_) => None,
        })
    }

    /// The same without functions, for headings.
    fn plain(&self) -> Self {
        let plain = |part: &Part| match part {
            Part::Text(text) => Part::Text(text.clone()),
            Part::Show(_, path) => Part::Show(Function::Plain, path.clone()),
        };
        Self(self.0.iter().map(plain).collect())
    }

    fn render(&self, value: &Value) -> Result<String> {
        self.render_with(value, None)
    }

    /// With the text that the value was read from: its parts are shown as JSON in their own order.
    fn render_with(&self, value: &Value, raw: Option<&RawValue>) -> Result<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Show(Function::Json, path) => out.push_str(&match raw {
                    Some(raw) => walk_raw(raw, path).map_or_else(|| "null".to_owned(), |part| part.to_string()),
                    None if path.is_empty() => row_as_json(value),
                    None => shown(Function::Json, walk(value, path))?,
                }),
                Part::Show(function, path) => out.push_str(&shown(*function, walk(value, path))?),
            }
        }
        Ok(out)
    }
}

fn action_part(action: &str) -> Result<Part> {
    let refuse = || {
        anyhow::anyhow!(
            "template parsing error: {{{{{action}}}}} is not understood: skep knows fields, and json, upper, lower, title, \
             len and index of them"
        )
    };
    let words: Vec<&str> = action.split_whitespace().collect();
    let (function, operands) = match words.as_slice() {
        ["json", rest @ ..] => (Function::Json, rest),
        ["upper", rest @ ..] => (Function::Upper, rest),
        ["lower", rest @ ..] => (Function::Lower, rest),
        ["title", rest @ ..] => (Function::Title, rest),
        ["len", rest @ ..] => (Function::Len, rest),
        ["index", rest @ ..] if rest.len() > 1 => (Function::Plain, rest),
        [one] => (Function::Plain, std::slice::from_ref(one)),
        [".Label", name] => return label(name).ok_or_else(refuse),
        _ => return Err(refuse()),
    };
    let [path, keys @ ..] = operands else { return Err(refuse()) };
    if !keys.is_empty() && words.first() != Some(&"index") {
        return Err(refuse());
    }
    let fields = path.strip_prefix('.').ok_or_else(refuse)?;
    let is_field = |field: &str| !field.is_empty() && field.chars().all(|c| c.is_alphanumeric() || c == '_');
    let mut steps = Vec::new();
    if !fields.is_empty() {
        for field in fields.split('.') {
            steps.push(Step::Key(Some(field).filter(|field| is_field(field)).ok_or_else(refuse)?.to_owned()));
        }
    }
    for key in keys {
        let text = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        let place = || key.parse().ok().map(Step::Place);
        steps.push(text.map(|text| Step::Key(text.to_owned())).or_else(place).ok_or_else(refuse)?);
    }
    Ok(Part::Show(function, steps))
}

/// `.Label "name"`; a label that is not there is empty.
fn label(name: &str) -> Option<Part> {
    let name = name.strip_prefix('"')?.strip_suffix('"')?;
    Some(Part::Show(Function::Label, vec![Step::Key(LABELS.to_owned()), Step::Key(name.to_owned())]))
}

fn walk<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Place(place) => value.get(place),
    })
}

/// The text of a part of a value.
fn walk_raw(raw: &RawValue, path: &[Step]) -> Option<Box<RawValue>> {
    let Some((step, rest)) = path.split_first() else { return Some(raw.to_owned()) };
    let part = match step {
        Step::Key(key) => serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(raw.get()).ok()?.remove(key)?,
        Step::Place(place) => serde_json::from_str::<Vec<Box<RawValue>>>(raw.get()).ok()?.into_iter().nth(*place)?,
    };
    walk_raw(&part, rest)
}

fn shown(function: Function, value: Option<&Value>) -> Result<String> {
    if function == Function::Json {
        return Ok(serde_json::to_string(value.unwrap_or(&Value::Null))?);
    }
    let Some(value) = value else {
        return Ok(if function == Function::Label { String::new() } else { NO_VALUE.to_owned() });
    };
    Ok(match function {
        Function::Upper => plain(value).to_uppercase(),
        Function::Lower => plain(value).to_lowercase(),
        Function::Title => capital(&plain(value)),
        Function::Len => match value {
            Value::Array(list) => list.len().to_string(),
            Value::Object(map) => map.len().to_string(),
            Value::String(text) => text.len().to_string(),
            other => bail!("template: len of {other}, which has none"),
        },
        Function::Plain | Function::Json | Function::Label => plain(value),
    })
}

/// A value as Go prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => NO_VALUE.to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).unwrap()
    }

    #[test]
    fn objects_are_shown_as_docker_shows_them() {
        let node = json!({"Spec": {"Role": "manager", "Labels": {"rack": "r1", "ssd": ""}},
            "Description": {"Resources": {"NanoCPUs": 2_000_000_000_u64}, "Plugins": [{"Name": "a"}, {"Name": "b"}]}});
        let check = |template: &str, expected: &str| {
            let shown = render_objects(template, &[raw(&node)]).map_err(|error| error.to_string());
            assert_eq!(shown, Ok(format!("{expected}\n")), "{template}");
        };
        check("{{.Spec.Role}}", "manager");
        check("<{{ .Spec.Labels }}> {{.Description.Resources.NanoCPUs}}", "<map[rack:r1 ssd:]> 2000000000");
        check(r#"{{index .Spec.Labels "rack"}} {{len .Description.Plugins}}"#, "r1 2");
        check("{{index .Description.Plugins 1}}", "map[Name:b]");
        check("{{json .Spec.Role}} {{upper .Spec.Role}} {{title .Spec.Role}}", r#""manager" MANAGER Manager"#);
        check("{{.Spec.None}}", "<no value>");
        for template in ["{{range .Spec}}x{{end}}", "{{if .Spec}}x{{end}}", "{{.Spec.}}", "{{Spec}}", "{{", "{{}}"] {
            assert!(render_objects(template, &[]).is_err(), "{template}");
        }
        assert_eq!(render_objects("json", &[raw(&json!({"a": 1}))]).unwrap(), "[{\"a\":1}]\n");
        let order = RawValue::from_string(r#"{"x":{"b":1,"a":[{"d":2,"c":3}]}}"#.to_owned()).unwrap();
        assert_eq!(render_object("{{json .x}}", &order).unwrap(), "{\"b\":1,\"a\":[{\"d\":2,\"c\":3}]}\n");
    }

    #[test]
    fn rows_are_tables_json_or_lines() {
        let columns = [column("Name", "NAME"), column("Size", "HOW LARGE")];
        let rows = [json!({"Name": "a", "Size": 7}), json!({"Name": "longer", "Size": 10})];
        let check = |format: &str, expected: &str| {
            assert_eq!(render_rows(format, &columns, &rows).unwrap(), expected, "{format}");
        };
        check("table", "NAME      HOW LARGE\na         7\nlonger    10\n");
        check(r"table {{upper .Name}}\t{{.Size}}", "NAME      HOW LARGE\nA         7\nLONGER    10\n");
        check("json", "{\"Name\":\"a\",\"Size\":7}\n{\"Name\":\"longer\",\"Size\":10}\n");
        check(r"{{.Name}}\t{{.Size}}", "a\t7\nlonger\t10\n");
        check("tablets", "tablets\ntablets\n");
        for wrong in ["{{.Nope}}", "table {{.Name}}{{.Nope}}", "{{json .Nope.Name}}"] {
            assert!(render_rows(wrong, &columns, &rows).is_err(), "{wrong}");
        }
        let rows = [json!({"Name": "<a>", LABELS: {"x": "y"}})];
        let check = |format: &str, expected: &str| {
            assert_eq!(render_rows(format, &columns[..1], &rows).unwrap(), expected, "{format}");
        };
        check("json", "{\"Name\":\"\\u003ca\\u003e\"}\n");
        check("{{json .}}", "{\"Name\":\"\\u003ca\\u003e\"}\n");
        check("{{json .Name}}", "\"<a>\"\n");
        check("{{.Label \"x\"}}<{{.Label \"z\"}}>", "y<>\n");
    }
}
