//! JSON as Go reads and writes it: keys match without regard to case, `null` leaves the zero value, zero values of
//! `omitempty` fields are left out.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;

/// Why a body was not understood; the texts are dockerd's, up to the detail.
#[derive(Debug, Error)]
pub enum BodyError {
    /// There is nothing to read.
    #[error("invalid JSON: got EOF while reading request body")]
    Empty,
    /// It is no JSON, or a value has the wrong type.
    #[error("invalid JSON: {0}")]
    Invalid(String),
    /// There is more than one value.
    #[error("unexpected content after JSON")]
    Trailing,
}

/// Reads one JSON value into `T`.
pub fn from_slice<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(BodyError::Empty);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = <Value as serde::Deserialize>::deserialize(&mut reader).map_err(|error| {
        let text = if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() };
        BodyError::Invalid(text)
    })?;
    reader.end().map_err(|_| BodyError::Trailing)?;
    from_value(value).map_err(|error| BodyError::Invalid(error.to_string()))
}

/// Reads a JSON value into `T`.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    T::deserialize(GoValue(value))
}

/// Whether a field with `omitempty` is left out.
pub fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go's empty lists and maps are often `nil`.
pub(crate) fn null_if_zero<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Default + PartialEq + serde::Serialize,
    S: serde::Serializer,
{
    if is_zero(value) { serializer.serialize_unit() } else { value.serialize(serializer) }
}

/// A JSON value that deserializes with Go's habits.
struct GoValue(Value);

fn mismatch<E: de::Error>(value: &Value, expected: &dyn de::Expected) -> E {
    let unexpected = match value {
        Value::Null => de::Unexpected::Unit,
        Value::Bool(flag) => de::Unexpected::Bool(*flag),
        Value::Number(_) => de::Unexpected::Other("number"),
        Value::String(text) => de::Unexpected::Str(text),
        Value::Array(_) => de::Unexpected::Seq,
        Value::Object(_) => de::Unexpected::Map,
    };
    E::invalid_type(unexpected, expected)
}

macro_rules! zero_for_null {
    ($($method:ident => $visit:ident($zero:expr)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                other => Self(other).deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for GoValue {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(object) => visitor.visit_map(Entries::new(object, None)),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    zero_for_null! {
        deserialize_bool => visit_bool(false),
        deserialize_i8 => visit_i8(0),
        deserialize_i16 => visit_i16(0),
        deserialize_i32 => visit_i32(0),
        deserialize_i64 => visit_i64(0),
        deserialize_i128 => visit_i128(0),
        deserialize_u8 => visit_u8(0),
        deserialize_u16 => visit_u16(0),
        deserialize_u32 => visit_u32(0),
        deserialize_u64 => visit_u64(0),
        deserialize_u128 => visit_u128(0),
        deserialize_f32 => visit_f32(0.0),
        deserialize_f64 => visit_f64(0.0),
        deserialize_str => visit_str(""),
        deserialize_string => visit_str(""),
        deserialize_seq => visit_seq(Items(Vec::new().into_iter())),
        deserialize_map => visit_map(Entries::new(Map::new(), None)),
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            other => visitor.visit_some(Self(other)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Entries::new(Map::new(), None)),
            Value::Object(object) => visitor.visit_map(Entries::new(object, Some(fields))),
            other => Err(mismatch(&other, &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

/// The elements of an array.
struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error> {
        self.0.next().map(|item| seed.deserialize(GoValue(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The entries of an object; of a struct the keys are spelled as the struct's fields are.
struct Entries {
    entries: serde_json::map::IntoIter,
    value: Option<Value>,
}

impl Entries {
    fn new(object: Map<String, Value>, fields: Option<&'static [&'static str]>) -> Self {
        let object = match fields {
            Some(fields) => respell(object, fields),
            None => object,
        };
        Self { entries: object.into_iter(), value: None }
    }
}

/// Spells keys as `fields` does. Of several spellings of one key, one stays: the exact one if there is one.
fn respell(object: Map<String, Value>, fields: &'static [&'static str]) -> Map<String, Value> {
    let mut respelled = Map::new();
    let mut foreign = Vec::new();
    for (key, value) in object {
        if fields.contains(&key.as_str()) {
            respelled.insert(key, value);
        } else {
            foreign.push((key, value));
        }
    }
    for (key, value) in foreign {
        let field = fields.iter().find(|field| field.eq_ignore_ascii_case(&key));
        respelled.entry(field.map_or(key, |field| (*field).to_owned())).or_insert(value);
    }
    respelled
}

impl<'de> MapAccess<'de> for Entries {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        seed.deserialize(GoValue(self.value.take().expect("serde asks for a value only after its key")))
    }
}

/// Bytes as base64 text (Go's `[]byte`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl serde::Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Base64 {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        // Go skips line ends inside base64 text.
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let decoded = base64::engine::general_purpose::STANDARD.decode(&text);
        decoded.map(Self).map_err(|error| {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
            };
            de::Error::custom(format_args!("illegal base64 data at input byte {at}"))
        })
    }
}

/// A number as Go writes it: without a fraction where it has none.
pub(crate) fn go_float<S: serde::Serializer>(number: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    /// Go goes over to exponents from here on.
    const PLAIN_LIMIT: f32 = 1e21;
    if number.fract() == 0.0 && number.abs() < PLAIN_LIMIT {
        return serializer.serialize_i128(*number as i128);
    }
    serializer.serialize_f32(*number)
}

/// `{}`: a set in Go's JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Empty;

impl serde::Serialize for Empty {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        serializer.serialize_map(Some(0))?.end()
    }
}

impl<'de> serde::Deserialize<'de> for Empty {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::collections::BTreeMap::<String, de::IgnoredAny>::deserialize(deserializer).map(|_| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        interval: i64,
        test: Vec<String>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        name: String,
        #[serde(rename = "HealthCheck")]
        health_check: Option<Inner>,
        labels: BTreeMap<String, String>,
        ratio: f32,
        data: Base64,
        list: Vec<Inner>,
    }

    fn read(text: &str) -> Outer {
        from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_match_without_case_but_map_keys_stay() {
        let read = read(r#"{"name":"x","Healthcheck":{"INTERVAL":5,"test":["a"]},"labels":{"Name":"y","nAme":"z"}}"#);
        assert_eq!(read.name, "x");
        assert_eq!(read.health_check.unwrap(), Inner { interval: 5, test: vec!["a".into()] });
        assert_eq!(read.labels.len(), 2);
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        let text =
            r#"{"Name":null,"HealthCheck":null,"Labels":null,"Ratio":null,"Data":null,"List":[null,{"Test":[null]}]}"#;
        let expected = Outer {
            list: vec![Inner::default(), Inner { test: vec![String::new()], interval: 0 }],
            ..Outer::default()
        };
        assert_eq!(read(text), expected);
        assert_eq!(from_slice::<Outer>(b"null").unwrap(), Outer::default());
    }

    #[test]
    fn the_exact_spelling_wins_over_others() {
        assert_eq!(read(r#"{"NAME":"loud","Name":"exact","name":"quiet"}"#).name, "exact");
    }

    #[test]
    fn unknown_keys_are_ignored_and_whole_numbers_are_ratios() {
        assert_eq!(read(r#"{"Ratio":1,"X":{"y":[1]}}"#).ratio, 1.0);
    }

    #[test]
    fn bad_bodies_are_told_apart() {
        assert!(matches!(from_slice::<Outer>(b" \n"), Err(BodyError::Empty)));
        assert!(matches!(from_slice::<Outer>(b"{"), Err(BodyError::Invalid(_))));
        assert!(matches!(from_slice::<Outer>(b"{} {}"), Err(BodyError::Trailing)));
        assert!(matches!(from_slice::<Outer>(br#"{"Name":1}"#), Err(BodyError::Invalid(_))));
        assert!(matches!(from_slice::<Outer>(br#"{"List":{}}"#), Err(BodyError::Invalid(_))));
        assert!(matches!(from_slice::<Outer>(b"[]"), Err(BodyError::Invalid(_))));
    }

    #[test]
    fn texts_of_refusals_are_gos() {
        for (body, text) in [
            (r#"{"Name":"#, "invalid JSON: unexpected EOF"),
            (r#"{"Name":"x"#, "invalid JSON: unexpected EOF"),
            (r#"{"Data":"!!"}"#, "invalid JSON: illegal base64 data at input byte 0"),
            (r#"{"Data":"YWJj!"}"#, "invalid JSON: illegal base64 data at input byte 4"),
            (r#"{"Data":"YWJ"}"#, "invalid JSON: illegal base64 data at input byte 3"),
        ] {
            assert_eq!(from_slice::<Outer>(body.as_bytes()).unwrap_err().to_string(), text, "{body}");
        }
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        #[derive(serde::Serialize)]
        struct Ratio(#[serde(serialize_with = "go_float")] f32);
        for (number, text) in [(0.0, "0"), (0.5, "0.5"), (-2.0, "-2"), (0.25, "0.25")] {
            assert_eq!(serde_json::to_string(&Ratio(number)).unwrap(), text);
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = "[".repeat(100_000);
        assert!(matches!(from_slice::<Outer>(deep.as_bytes()), Err(BodyError::Invalid(_))));
    }
}
