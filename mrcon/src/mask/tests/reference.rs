//! What rules mean, written for the reader and not for speed: on decoded documents, each field judged by
//! every path that it may have.

use super::{KEY, hash};
use crate::config::{MaskAction, MaskRule};
use crate::elements::Cursor;
use crate::mask::hash::HashKey;
use bson::{Bson, Document, RawDocumentBuf, doc};
use regex_lite::Regex;

/// A step of a path.
#[derive(Clone)]
enum Step {
    Field(String),
    Index(usize),
    /// A number in a name with dots: either.
    Number(String),
}

/// What was taken out of an event.
#[derive(Default)]
pub(super) struct Hidden {
    pub(super) values: Vec<Bson>,
    pub(super) names: Vec<String>,
}

pub(super) struct Reference<'r> {
    pub(super) rules: &'r [MaskRule],
    pub(super) hidden: Hidden,
    in_key: bool,
}

#[derive(Clone, Copy)]
struct Covered {
    rule: usize,
    upto: usize,
}

impl<'r> Reference<'r> {
    pub(super) fn new(rules: &'r [MaskRule]) -> Reference<'r> {
        Reference {
            rules,
            hidden: Hidden::default(),
            in_key: false,
        }
    }

    /// A masked event, but for its `_id`, and whether its key was changed.
    pub(super) fn event(&mut self, event: &Document) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let mut key_changed = !event.contains_key("documentKey");
        for (name, value) in event {
            let value = match (name.as_str(), value) {
                ("_id", _) => continue,
                ("fullDocument" | "fullDocumentBeforeChange", Bson::Document(value)) => {
                    self.document(value, &[])
                }
                ("documentKey", Bson::Document(value)) => {
                    self.in_key = true;
                    let masked = self.document(value, &[]);
                    self.in_key = false;
                    key_changed = masked != bson::serialize_to_vec(value).unwrap();
                    masked
                }
                ("updateDescription", Bson::Document(value)) => self.update(value),
                _ => {
                    bytes.extend(element(name, value));
                    continue;
                }
            };
            bytes.extend(inner(3, name, &value));
        }
        (bytes, key_changed)
    }

    fn document(&mut self, document: &Document, above: &[Step]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut shortened: Vec<String> = Vec::new();
        for (name, value) in document {
            let (steps, covered) = self.judge(name, above);
            match covered {
                None => bytes.extend(self.value(name, value, &steps)),
                Some(covered) => {
                    let shown = name[..covered.upto].to_owned();
                    let is_part = covered.upto < name.len();
                    self.hide(&name[covered.upto..], value);
                    let again = is_part && !self.in_key && shortened.contains(&shown);
                    let masked = self.covered(&shown, value, covered, is_part);
                    if !again {
                        bytes.extend(masked);
                    }
                    if is_part {
                        shortened.push(shown);
                    }
                }
            }
        }
        whole(&bytes)
    }

    fn value(&mut self, name: &str, value: &Bson, steps: &[Step]) -> Vec<u8> {
        match value {
            Bson::Document(value) => {
                let masked = self.document(value, steps);
                inner(3, name, &masked)
            }
            Bson::Array(values) => {
                let mut bytes = Vec::new();
                for (index, value) in values.iter().enumerate() {
                    let mut steps = steps.to_vec();
                    steps.push(Step::Index(index));
                    let name = index.to_string();
                    match self.covering(&steps) {
                        None => bytes.extend(self.value(&name, value, &steps)),
                        Some(rule) => {
                            let upto = name.len();
                            self.hide("", value);
                            let masked = self.covered(&name, value, Covered { rule, upto }, false);
                            bytes.extend(match self.rules[rule].action {
                                MaskAction::Drop if !self.in_key => element(&name, &Bson::Null),
                                _ => masked,
                            });
                        }
                    }
                }
                inner(4, name, &whole(&bytes))
            }
            value => element(name, value),
        }
    }

    fn covered(&self, name: &str, value: &Bson, covered: Covered, is_part: bool) -> Vec<u8> {
        let own: &[u8] = match self.rules.iter().any(|rule| rule.key.is_some()) {
            true => KEY.as_bytes(),
            false => b"the connector's own key",
        };
        match self.rules[covered.rule].action {
            MaskAction::Drop | MaskAction::Mask if self.in_key => {
                element(name, &hashed(value, own))
            }
            MaskAction::Drop => Vec::new(),
            MaskAction::Hash if !is_part || self.in_key => {
                element(name, &hashed(value, KEY.as_bytes()))
            }
            MaskAction::Mask | MaskAction::Hash => element(name, &"***".into()),
        }
    }

    fn update(&mut self, description: &Document) -> Vec<u8> {
        let mut masked = Vec::new();
        for (name, value) in description {
            let value = match (name.as_str(), value) {
                ("updatedFields", Bson::Document(fields)) => {
                    inner(3, name, &self.document(fields, &[]))
                }
                ("removedFields", Bson::Array(names)) => {
                    let names = names.iter().filter(|name| {
                        let name = name.as_str().unwrap();
                        self.keeps(name, |action| action != MaskAction::Drop)
                    });
                    element(name, &Bson::Array(names.cloned().collect()))
                }
                ("truncatedArrays", Bson::Array(arrays)) => {
                    let arrays = arrays.iter().filter(|array| {
                        let name = array.as_document().unwrap().get_str("field").unwrap();
                        self.keeps(name, |action| action == MaskAction::Hash)
                    });
                    element(name, &Bson::Array(arrays.cloned().collect()))
                }
                ("disambiguatedPaths", Bson::Document(paths)) => {
                    let paths = paths
                        .iter()
                        .filter(|(name, _)| self.keeps(name, |action| action != MaskAction::Drop));
                    let paths = paths.map(|(name, value)| (name.clone(), value.clone()));
                    element(name, &Bson::Document(paths.collect()))
                }
                _ => panic!("{name}"),
            };
            if let Bson::Array(names) = value_of(description, name) {
                self.hide_names(&names);
            }
            masked.extend(value);
        }
        whole(&masked)
    }

    fn hide_names(&mut self, names: &[Bson]) {
        for name in names {
            let name = match name {
                Bson::String(name) => name,
                Bson::Document(array) => array.get_str("field").unwrap(),
                _ => continue,
            };
            if let (_, Some(covered)) = self.judge(name, &[]) {
                self.hide(&name[covered.upto..], &Bson::Null);
            }
        }
    }

    fn keeps(&self, name: &str, of: impl Fn(MaskAction) -> bool) -> bool {
        match self.judge(name, &[]).1 {
            None => true,
            Some(covered) => covered.upto == name.len() && of(self.rules[covered.rule].action),
        }
    }

    /// The steps to a field, and which rule it is for, up to which byte of its name.
    fn judge(&self, name: &str, above: &[Step]) -> (Vec<Step>, Option<Covered>) {
        let mut steps = above.to_vec();
        let mut upto = 0;
        for (index, part) in name.split('.').enumerate() {
            upto += part.len() + usize::from(index > 0);
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            steps.push(match index > 0 && is_number {
                true => Step::Number(part.to_owned()),
                false => Step::Field(part.to_owned()),
            });
            if let Some(rule) = self.covering(&steps) {
                return (steps, Some(Covered { rule, upto }));
            }
        }
        (steps, None)
    }

    fn covering(&self, steps: &[Step]) -> Option<usize> {
        let is_index = matches!(steps.last(), Some(Step::Index(_)));
        self.rules
            .iter()
            .position(|rule| match (&rule.path, &rule.pattern) {
                (Some(path), _) => {
                    let path: Vec<&str> = path.split('.').collect();
                    leads_to(&path, steps)
                }
                (None, Some(pattern)) if !is_index => {
                    let pattern = Regex::new(pattern).unwrap();
                    readings(steps).iter().any(|path| pattern.is_match(path))
                }
                _ => false,
            })
    }

    fn hide(&mut self, name: &str, value: &Bson) {
        self.hidden.names.extend(name.split('.').map(str::to_owned));
        match value {
            Bson::Document(document) => {
                for (name, value) in document {
                    self.hide(name, value);
                }
            }
            Bson::Array(values) => values.iter().for_each(|value| self.hide("", value)),
            value => self.hidden.values.push(value.clone()),
        }
    }
}

fn leads_to(path: &[&str], steps: &[Step]) -> bool {
    let (Some((first, rest)), Some((step, steps))) = (path.split_first(), steps.split_first())
    else {
        return path.is_empty() && steps.is_empty();
    };
    match step {
        Step::Field(name) => name == first && leads_to(rest, steps),
        Step::Index(index) => {
            leads_to(path, steps) || (index.to_string() == **first && leads_to(rest, steps))
        }
        Step::Number(number) => leads_to(path, steps) || (number == first && leads_to(rest, steps)),
    }
}

fn readings(steps: &[Step]) -> Vec<String> {
    let mut paths = vec![String::new()];
    let add = |path: &String, name: &str| match path.is_empty() {
        true => name.to_owned(),
        false => format!("{path}.{name}"),
    };
    for step in steps {
        match step {
            Step::Field(name) => paths = paths.iter().map(|path| add(path, name)).collect(),
            Step::Index(_) => {}
            Step::Number(name) => {
                let with: Vec<String> = paths.iter().map(|path| add(path, name)).collect();
                paths.extend(with);
            }
        }
    }
    paths
}

fn value_of(document: &Document, name: &str) -> Bson {
    document.get(name).cloned().unwrap()
}

fn hashed(value: &Bson, key: &[u8]) -> Bson {
    let of = |bytes: &[u8]| String::from_utf8(HashKey::new(key).of_bytes(bytes).to_vec()).unwrap();
    match value {
        Bson::Null | Bson::Undefined => value.clone(),
        Bson::Array(values) => values
            .iter()
            .map(|value| hashed(value, key))
            .collect::<Vec<_>>()
            .into(),
        Bson::String(text) | Bson::Symbol(text) => of(text.as_bytes()).into(),
        Bson::Int64(number) => of(&[b"\xFFn", number.to_string().as_bytes()].concat()).into(),
        Bson::Boolean(value) => of(&[0xFF, b'b', u8::from(*value)]).into(),
        // What the normal forms are is for the tests of hashes.
        other => {
            let raw = RawDocumentBuf::try_from(&doc! {"v": other.clone()}).unwrap();
            let mut input = Cursor::new(&raw);
            let kind = input.kind().unwrap().unwrap();
            input.cstring().unwrap();
            let hash = HashKey::new(key).of_value(&mut input, kind, &mut Vec::new());
            String::from_utf8(hash.unwrap().to_vec()).unwrap().into()
        }
    }
}

pub(super) fn element(name: &str, value: &Bson) -> Vec<u8> {
    let bytes = bson::serialize_to_vec(&doc! {name: value.clone()}).unwrap();
    bytes[4..bytes.len() - 1].to_vec()
}

fn inner(kind: u8, name: &str, document: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], document].concat()
}

pub(super) fn whole(elements: &[u8]) -> Vec<u8> {
    let length = elements.len() as u32 + 5;
    [&length.to_le_bytes()[..], elements, &[0]].concat()
}

#[test]
fn hashes_of_the_reference_are_others() {
    assert_eq!(hashed(&"x".into(), KEY.as_bytes()), hash(b"x").into());
}
