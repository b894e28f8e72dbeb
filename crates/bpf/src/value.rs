//! JSON values as the bytes of C types, by BTF. Pure, once the type is known.

use serde_json::Value;
use std::fmt;

/// How a C type lies in memory. Little-endian or big-endian as this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeLayout {
    /// An integer or a boolean.
    Int {
        /// 1, 2, 4, 8 or 16.
        bytes: usize,
        /// Whether it can be negative.
        signed: bool,
        /// What the type is for.
        role: IntRole,
    },
    /// An enumeration.
    Enum {
        /// Its size.
        bytes: usize,
        /// The enumerators.
        names: Vec<(String, i128)>,
    },
    /// An array.
    Array {
        /// The type of its elements.
        element: Box<TypeLayout>,
        /// How many.
        count: usize,
    },
    /// A structure.
    Struct {
        /// Its size.
        bytes: usize,
        /// Its fields, those of anonymous members among them.
        fields: Vec<Field>,
    },
    /// A union: one of its fields at a time.
    Union {
        /// Its size.
        bytes: usize,
        /// Its fields.
        fields: Vec<Field>,
    },
    /// What cannot be set from JSON.
    Unsupported {
        /// Its size.
        bytes: usize,
        /// What it is.
        what: String,
    },
}

/// What an integer type is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntRole {
    /// A number.
    Number,
    /// `bool`.
    Bool,
    /// `char`: an array of it takes a string.
    Char,
}

/// A field of a structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Its type.
    pub layout: TypeLayout,
}

/// A value that does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path)]
pub struct ValueError {
    /// Where in the value: `.field`, `[2]`; empty for the whole.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl TypeLayout {
    /// The size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Int { bytes, .. }
            | Self::Enum { bytes, .. }
            | Self::Struct { bytes, .. }
            | Self::Union { bytes, .. }
            | Self::Unsupported { bytes, .. } => *bytes,
            Self::Array { element, count } => element.bytes().saturating_mul(*count),
        }
    }

    /// Writes `value` into `out`. Fields that `value` leaves out keep what `out` holds.
    ///
    /// # Errors
    /// [`ValueError`] with the place and what was expected there; `out` is then undefined.
    pub fn encode(&self, value: &Value, out: &mut [u8]) -> Result<(), ValueError> {
        if out.len() != self.bytes() {
            let (type_bytes, room) = (self.bytes(), out.len());
            return Err(mismatch("", format!("the type has {type_bytes} bytes, its place {room}")));
        }
        self.write(value, out, "")
    }

    fn write(&self, value: &Value, out: &mut [u8], path: &str) -> Result<(), ValueError> {
        match self {
            Self::Int { bytes, signed, role } => {
                let number = integer(value, *role, path)?;
                let (low, high) = range(*bytes, *signed);
                if number < low || (number >= 0 && number as u128 > high) {
                    return Err(mismatch(
                        path,
                        format!("expected {self} ({low} to {high}), found {number}"),
                    ));
                }
                store(number, out, path)
            }
            Self::Enum { names, .. } => {
                let number = match value {
                    Value::String(text) => names.iter().find(|(name, _)| name == text).map(|n| n.1),
                    other => integer(other, IntRole::Number, path).ok(),
                };
                let known = number.filter(|number| names.iter().any(|(_, value)| value == number));
                store(known.ok_or_else(|| mismatch(path, expected(self, value)))?, out, path)
            }
            Self::Array { element, count } => match value {
                Value::String(text) if element.is_char() => string(text, out, path),
                Value::Array(items) => {
                    if items.len() != *count {
                        let found = items.len();
                        let message = format!("expected {count} elements, found {found}");
                        return Err(mismatch(path, message));
                    }
                    let size = element.bytes();
                    for (at, item) in items.iter().enumerate() {
                        let place = &mut out[at * size..(at + 1) * size];
                        element.write(item, place, &format!("{path}[{at}]"))?;
                    }
                    Ok(())
                }
                other => Err(mismatch(path, expected(self, other))),
            },
            Self::Struct { fields, .. } => write_fields(fields, self, value, out, path),
            Self::Union { fields, .. } => {
                if value.as_object().is_some_and(|object| object.len() != 1) {
                    return Err(mismatch(path, "expected one field of the union".into()));
                }
                write_fields(fields, self, value, out, path)
            }
            Self::Unsupported { what, .. } => {
                Err(mismatch(path, format!("{what} cannot be set from a document")))
            }
        }
    }

    fn is_char(&self) -> bool {
        matches!(self, Self::Int { role: IntRole::Char, .. })
    }
}

fn write_fields(
    fields: &[Field],
    whole: &TypeLayout,
    value: &Value,
    out: &mut [u8],
    path: &str,
) -> Result<(), ValueError> {
    let Value::Object(object) = value else {
        return Err(mismatch(path, expected(whole, value)));
    };
    for (name, value) in object {
        let Some(field) = fields.iter().find(|field| field.name == *name) else {
            let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
            let message = format!("no field {name:?}, expected one of {}", names.join(", "));
            return Err(mismatch(path, message));
        };
        let end = field.offset.saturating_add(field.layout.bytes());
        let Some(place) = out.get_mut(field.offset..end) else {
            return Err(mismatch(path, format!("field {name:?} lies outside its structure")));
        };
        field.layout.write(value, place, &format!("{path}.{name}"))?;
    }
    Ok(())
}

fn integer(value: &Value, role: IntRole, path: &str) -> Result<i128, ValueError> {
    let number = match value {
        Value::Bool(yes) if role == IntRole::Bool => Some(i128::from(*yes)),
        Value::Number(number) if role != IntRole::Bool => {
            number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
        }
        _ => None,
    };
    number.ok_or_else(|| {
        let wanted = if role == IntRole::Bool { "true or false" } else { "an integer" };
        mismatch(path, format!("expected {wanted}, found {}", brief(value)))
    })
}

/// The smallest and the largest value of an integer type.
fn range(bytes: usize, signed: bool) -> (i128, u128) {
    let bits = (bytes * 8).min(128) as u32;
    if signed {
        let half = 1u128 << (bits - 1);
        (i128::MIN >> (128 - bits), half - 1)
    } else {
        (0, u128::MAX >> (128 - bits))
    }
}

fn store(number: i128, out: &mut [u8], path: &str) -> Result<(), ValueError> {
    let bytes = number.to_ne_bytes();
    let little = cfg!(target_endian = "little");
    let kept = bytes
        .len()
        .checked_sub(out.len())
        .map(|cut| if little { &bytes[..out.len()] } else { &bytes[cut..] });
    // Damaged BTF can give an enumeration any size.
    let kept = kept.ok_or_else(|| mismatch(path, format!("no number has {} bytes", out.len())))?;
    out.copy_from_slice(kept);
    Ok(())
}

/// Strings end with a zero byte, as C expects.
fn string(text: &str, out: &mut [u8], path: &str) -> Result<(), ValueError> {
    if text.len() >= out.len() {
        let message = format!(
            "a string of {} bytes and its terminating zero do not fit into char[{}]",
            text.len(),
            out.len()
        );
        return Err(mismatch(path, message));
    }
    if text.contains('\0') {
        return Err(mismatch(path, "a C string cannot hold a zero byte".into()));
    }
    out.fill(0);
    out[..text.len()].copy_from_slice(text.as_bytes());
    Ok(())
}

fn expected(layout: &TypeLayout, found: &Value) -> String {
    format!("expected {layout}, found {}", brief(found))
}

/// A value as it may stand in an error message.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".into(),
        other => {
            let mut text = other.to_string();
            if text.chars().count() > 40 {
                text = text.chars().take(40).chain(['…']).collect();
            }
            text
        }
    }
}

fn mismatch(path: &str, message: String) -> ValueError {
    ValueError { path: path.to_owned(), message }
}

impl fmt::Display for TypeLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int { role: IntRole::Bool, .. } => f.write_str("bool"),
            Self::Int { role: IntRole::Char, .. } => f.write_str("char"),
            Self::Int { bytes, signed: true, .. } => write!(f, "i{}", bytes * 8),
            Self::Int { bytes, signed: false, .. } => write!(f, "u{}", bytes * 8),
            Self::Enum { names, .. } => {
                let names: Vec<_> = names.iter().take(12).map(|(name, _)| name.as_str()).collect();
                write!(f, "one of {}", names.join(", "))
            }
            Self::Array { element, count } if element.is_char() => {
                write!(f, "a string (char[{count}])")
            }
            Self::Array { element, count } => write!(f, "an array of {count} {element}"),
            Self::Struct { .. } => f.write_str("an object (struct)"),
            Self::Union { .. } => f.write_str("an object with one field (union)"),
            Self::Unsupported { what, .. } => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const U16: TypeLayout = TypeLayout::Int { bytes: 2, signed: false, role: IntRole::Number };
    const I8: TypeLayout = TypeLayout::Int { bytes: 1, signed: true, role: IntRole::Number };
    const BOOL: TypeLayout = TypeLayout::Int { bytes: 1, signed: false, role: IntRole::Bool };
    const CHAR: TypeLayout = TypeLayout::Int { bytes: 1, signed: true, role: IntRole::Char };

    fn array(element: TypeLayout, count: usize) -> TypeLayout {
        TypeLayout::Array { element: Box::new(element), count }
    }

    fn pair() -> TypeLayout {
        let field = |name: &str, offset, layout| Field { name: name.into(), offset, layout };
        let fields = vec![field("port", 0, U16), field("name", 2, array(CHAR, 4))];
        TypeLayout::Struct { bytes: 6, fields }
    }

    fn encode(layout: &TypeLayout, value: &Value) -> Result<Vec<u8>, String> {
        let mut out = vec![0xaa; layout.bytes()];
        layout.encode(value, &mut out).map(|()| out).map_err(|error| error.to_string())
    }

    #[test]
    fn values_become_the_bytes_of_their_type() {
        assert_eq!(encode(&U16, &json!(258)).unwrap(), 258u16.to_ne_bytes());
        assert_eq!(encode(&I8, &json!(-128)).unwrap(), [0x80]);
        assert_eq!(encode(&BOOL, &json!(true)).unwrap(), [1]);
        assert_eq!(encode(&array(CHAR, 4), &json!("abc")).unwrap(), *b"abc\0");
        let whole = json!({"port": 1, "name": "x"});
        assert_eq!(encode(&pair(), &whole).unwrap()[2..], *b"x\0\0\0");
        assert_eq!(encode(&pair(), &json!({"port": 1})).unwrap()[2..], [0xaa; 4]);
        let u64_max = TypeLayout::Int { bytes: 8, signed: false, role: IntRole::Number };
        assert_eq!(encode(&u64_max, &json!(u64::MAX)).unwrap(), [0xff; 8]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        let cases = [
            (U16, json!(65536), ": expected u16 (0 to 65535), found 65536"),
            (U16, json!(-1), ": expected u16 (0 to 65535), found -1"),
            (U16, json!(1.5), ": expected an integer, found 1.5"),
            (I8, json!(128), ": expected i8 (-128 to 127), found 128"),
            (BOOL, json!(1), ": expected true or false, found 1"),
            (array(U16, 2), json!([1]), ": expected 2 elements, found 1"),
            (array(U16, 2), json!([1, "x"]), "[1]: expected an integer, found \"x\""),
            (pair(), json!({"port": 70000}), ".port: expected u16 (0 to 65535), found 70000"),
            (pair(), json!({"prot": 1}), ": no field \"prot\", expected one of port, name"),
            (
                pair(),
                json!({"name": "long"}),
                ".name: a string of 4 bytes and its terminating zero do not fit into char[4]",
            ),
            (pair(), json!([]), ": expected an object (struct), found an array of 0"),
        ];
        for (layout, value, message) in cases {
            assert_eq!(encode(&layout, &value).unwrap_err(), message, "{value}");
        }
    }

    #[test]
    fn enumerators_go_by_name_or_number() {
        let layout =
            TypeLayout::Enum { bytes: 4, names: vec![("OFF".into(), 0), ("ON".into(), 7)] };
        assert_eq!(encode(&layout, &json!("ON")).unwrap(), 7u32.to_ne_bytes());
        assert_eq!(encode(&layout, &json!(7)).unwrap(), 7u32.to_ne_bytes());
        assert!(encode(&layout, &json!(3)).is_err());
        assert_eq!(
            encode(&layout, &json!("UP")).unwrap_err(),
            ": expected one of OFF, ON, found \"UP\""
        );
    }

    #[test]
    fn numbers_of_impossible_sizes_are_refused() {
        let layout = TypeLayout::Enum { bytes: 100, names: vec![("ON".into(), 7)] };
        assert_eq!(encode(&layout, &json!("ON")).unwrap_err(), ": no number has 100 bytes");
    }

    proptest::proptest! {
        #[test]
        fn any_json_is_encoded_or_refused(text in "[-0-9a-z\"\\[\\]{},:.]{0,24}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = encode(&pair(), &value);
                let _ = encode(&array(pair(), 2), &value);
            }
        }
    }
}
