//! What is read from a peer or the raft log and written again loses nothing: random messages, made from the descriptors
//! of `proto/swarmkit.proto` field by field, go through `model` and come out equal. A field that is added to the .proto
//! and forgotten in a conversion fails here.
//!
//! SwarmKit declares some messages as values rather than pointers: it cannot tell absent from empty and always writes
//! them. So an empty message may appear where there was none; nothing may ever vanish or change.

use std::collections::BTreeMap;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};
use stdx::Rng;
use swarm_proto::convert::{FromProto, ToProto};

/// Random messages of each kind.
const RUNS: u64 = 400;
/// Messages nest at the most so deep.
const MAX_DEPTH: usize = 9;
/// Elements of a list or map.
const MAX_ELEMENTS: u64 = 2;

struct Schema {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

impl Schema {
    fn load() -> Self {
        let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let files = protox::compile([format!("{proto}/swarmkit.proto")], [proto]).unwrap();
        let mut schema = Self { messages: BTreeMap::new(), enums: BTreeMap::new() };
        for file in files.file {
            let package = format!(".{}", file.package());
            for message in &file.message_type {
                schema.add(&package, message);
            }
            for kind in &file.enum_type {
                schema.enums.insert(format!("{package}.{}", kind.name()), kind.clone());
            }
        }
        schema
    }

    fn add(&mut self, parent: &str, message: &DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        for kind in &message.enum_type {
            self.enums.insert(format!("{name}.{}", kind.name()), kind.clone());
        }
        self.messages.insert(name, message.clone());
    }

    /// The bytes of a random message.
    fn message(&self, name: &str, rng: &mut Rng, depth: usize) -> Vec<u8> {
        let message = self.messages.get(name).unwrap_or_else(|| panic!("no message {name}"));
        let mut out = Vec::new();
        let mut chosen: BTreeMap<i32, i32> = BTreeMap::new();
        for (oneof, _) in message.oneof_decl.iter().enumerate() {
            let members = message.field.iter().filter(|field| field.oneof_index == Some(oneof as i32));
            let members: Vec<i32> = members.map(FieldDescriptorProto::number).collect();
            chosen.insert(oneof as i32, members[rng.below(members.len() as u64) as usize]);
        }
        for field in &message.field {
            if field.oneof_index.is_some_and(|oneof| chosen[&oneof] != field.number()) || rng.below(4) == 0 {
                continue;
            }
            if field.r#type() == Type::Message && depth >= MAX_DEPTH {
                continue;
            }
            let count = if field.label() == Label::Repeated { rng.below(MAX_ELEMENTS + 1) } else { 1 };
            for element in 0..count {
                self.field(field, rng, depth, element, &mut out);
            }
        }
        out
    }

    fn field(&self, field: &FieldDescriptorProto, rng: &mut Rng, depth: usize, element: u64, out: &mut Vec<u8>) {
        let tag = field.number() as u32;
        let varint = |value: u64, out: &mut Vec<u8>| {
            encode_key(tag, WireType::Varint, out);
            encode_varint(value, out);
        };
        let bytes = |value: &[u8], out: &mut Vec<u8>| {
            encode_key(tag, WireType::LengthDelimited, out);
            encode_varint(value.len() as u64, out);
            out.extend_from_slice(value);
        };
        match field.r#type() {
            Type::Bool => varint(rng.below(2), out),
            Type::Int64 | Type::Uint64 => varint(rng.next_u64(), out),
            Type::Int32 => varint((rng.next_u64() as i32) as i64 as u64, out),
            Type::Uint32 => varint(rng.next_u64() & 0xffff_ffff, out),
            Type::Enum => {
                let values = &self.enums[field.type_name()].value;
                let value = values[rng.below(values.len() as u64) as usize].number();
                varint(i64::from(value) as u64, out);
            }
            Type::Float => {
                encode_key(tag, WireType::ThirtyTwoBit, out);
                out.extend_from_slice(&(rng.below(1000) as f32 / 8.0).to_le_bytes());
            }
            Type::Double => {
                encode_key(tag, WireType::SixtyFourBit, out);
                out.extend_from_slice(&(rng.below(1000) as f64 / 8.0).to_le_bytes());
            }
            // Keys of a map must differ.
            Type::String => bytes(format!("{element}-{}", rng.below(1000)).as_bytes(), out),
            Type::Bytes => bytes(&rng.next_u64().to_le_bytes()[..rng.below(9) as usize], out),
            Type::Message => {
                let value = self.message(field.type_name(), rng, depth + 1);
                bytes(&value, out);
            }
            other => panic!("{}: {other:?} is not used by SwarmKit", field.name()),
        }
    }
}

/// A message as its fields' elements by number.
#[derive(Debug, PartialEq, Default)]
struct Tree(BTreeMap<u32, Vec<Leaf>>);

#[derive(Debug, PartialEq)]
enum Leaf {
    Bytes(Vec<u8>),
    Message(Tree),
}

impl Tree {
    fn is_empty(&self) -> bool {
        self.0.values().flatten().all(|leaf| matches!(leaf, Leaf::Message(tree) if tree.is_empty()))
    }
}

impl Schema {
    fn parse(&self, name: &str, mut bytes: &[u8]) -> Tree {
        let fields = &self.messages[name].field;
        let mut tree = Tree::default();
        while !bytes.is_empty() {
            let (tag, wire) = decode_key(&mut bytes).unwrap();
            let field = fields.iter().find(|field| field.number() as u32 == tag).unwrap();
            let length = match wire {
                WireType::Varint => bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1,
                WireType::ThirtyTwoBit => 4,
                WireType::SixtyFourBit => 8,
                WireType::LengthDelimited => decode_varint(&mut bytes).unwrap() as usize,
                other => panic!("wire type {other:?}"),
            };
            let (value, rest) = bytes.split_at(length);
            bytes = rest;
            let leaf = match field.r#type() {
                Type::Message => Leaf::Message(self.parse(field.type_name(), value)),
                _ => Leaf::Bytes(value.to_vec()),
            };
            tree.0.entry(tag).or_default().push(leaf);
        }
        // Maps have no order.
        for (tag, leaves) in &mut tree.0 {
            let field = fields.iter().find(|field| field.number() as u32 == *tag).unwrap();
            let is_map =
                self.messages.get(field.type_name()).and_then(|m| m.options.as_ref()).is_some_and(|o| o.map_entry());
            if is_map {
                leaves.sort_by_key(|leaf| format!("{leaf:?}"));
            }
        }
        tree
    }
}

/// What of `before` is missing or changed in `after`, or was added to it though not empty.
fn difference(before: &Tree, after: &Tree, path: &str) -> Option<String> {
    for (tag, leaves) in &before.0 {
        let Some(others) = after.0.get(tag) else { return Some(format!("{path}.{tag} vanished")) };
        if leaves.len() != others.len() {
            return Some(format!("{path}.{tag} has another length"));
        }
        for pair in leaves.iter().zip(others) {
            let found = match pair {
                (Leaf::Message(one), Leaf::Message(other)) => difference(one, other, &format!("{path}.{tag}")),
                (one, other) => (one != other).then(|| format!("{path}.{tag} changed")),
            };
            if found.is_some() {
                return found;
            }
        }
    }
    let added = |(tag, leaves): (&u32, &Vec<Leaf>)| {
        let empty = matches!(leaves.as_slice(), [Leaf::Message(tree)] if tree.is_empty());
        (!before.0.contains_key(tag) && !empty).then(|| format!("{path}.{tag} was added"))
    };
    after.0.iter().find_map(added)
}

fn check<M>(schema: &Schema, name: &str)
where
    M: ToProto + FromProto<Proto = <M as ToProto>::Proto>,
    <M as ToProto>::Proto: Message + Default + Clone,
{
    for seed in 0..RUNS {
        let full_name = format!(".docker.swarmkit.v1.{name}");
        let bytes = schema.message(&full_name, &mut Rng::new(seed), 0);
        let proto = <M as ToProto>::Proto::decode(bytes.as_slice()).unwrap();
        let back = M::from_proto(proto.clone()).unwrap().to_proto();
        let before = schema.parse(&full_name, &proto.encode_to_vec());
        let after = schema.parse(&full_name, &back.encode_to_vec());
        assert_eq!(difference(&before, &after, name), None, "seed {seed}");
    }
}

#[test]
fn every_object_comes_back() {
    let schema = Schema::load();
    check::<model::Node>(&schema, "Node");
    check::<model::Service>(&schema, "Service");
    check::<model::Task>(&schema, "Task");
    check::<model::Network>(&schema, "Network");
    check::<model::Cluster>(&schema, "Cluster");
    check::<model::Secret>(&schema, "Secret");
    check::<model::Config>(&schema, "Config");
    check::<model::Resource>(&schema, "Resource");
    check::<model::Extension>(&schema, "Extension");
    check::<model::Volume>(&schema, "Volume");
}
