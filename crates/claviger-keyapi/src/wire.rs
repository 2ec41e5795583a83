//! Encodings of public bytes in JSON: 16-byte identifiers as lower-case hex, everything else as standard base64.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of an X-Wing public key (`pk_v`, docs/format.md §2).
pub const PUBLIC_KEY_LEN: usize = 1216;
/// Bytes of a unit header (docs/format.md §3.1).
pub const UNIT_HEADER_LEN: usize = 96;

/// A public 16-byte identifier (epoch, object, keyset, gateway or salt); 32 lower-case hex digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id16(pub [u8; 16]);

impl Id16 {
    /// Reads exactly 32 lower-case hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        let mut out = [0u8; 16];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_digit(pair[0])? << 4) | hex_digit(pair[1])?;
        }
        Some(Self(out))
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl From<[u8; 16]> for Id16 {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl From<Id16> for [u8; 16] {
    fn from(id: Id16) -> Self {
        id.0
    }
}

macro_rules! convert_id {
    ($($id:ty),*) => {$(
        impl From<$id> for Id16 {
            fn from(id: $id) -> Self {
                Self(*id.as_bytes())
            }
        }

        impl From<Id16> for $id {
            fn from(id: Id16) -> Self {
                Self::new(id.0)
            }
        }
    )*};
}
convert_id!(
    claviger_format::EpochId,
    claviger_format::ObjectId,
    claviger_format::SealerId,
    claviger_format::KeysetId,
    claviger_format::Salt
);

impl fmt::Display for Id16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Id16 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id16 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = Id16;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 lower-case hex digits")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id16, E> {
                Id16::from_hex(text).ok_or_else(|| E::custom("expected 32 lower-case hex digits"))
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

/// Public bytes of any length; standard base64 with padding in JSON.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("standard base64 with padding")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                STANDARD
                    .decode(text)
                    .map(Blob)
                    .map_err(|_| E::custom("expected standard base64 with padding"))
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(pub Box<[u8; $len]>);

        impl $name {
            /// Copies the bytes in.
            #[must_use]
            pub fn new(bytes: &[u8; $len]) -> Self {
                Self(Box::new(*bytes))
            }

            /// The raw bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), $len)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&STANDARD.encode(&self.0[..]))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let blob = Blob::deserialize(deserializer)?;
                let bytes = <[u8; $len]>::try_from(blob.0.as_slice())
                    .map_err(|_| de::Error::custom(concat!("expected base64 of ", $len, " bytes")))?;
                Ok(Self(Box::new(bytes)))
            }
        }
    };
}

fixed_bytes!(
    /// The 96 bytes of a unit header as stored (docs/format.md §3.1).
    EnvelopeHeader,
    96
);
fixed_bytes!(
    /// An X-Wing public key, 1,216 bytes (docs/format.md §2).
    PublicKey,
    1216
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_lower_case_hex_and_nothing_else() {
        let id = Id16([0xab; 16]);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{}\"", "ab".repeat(16)));
        assert_eq!(serde_json::from_str::<Id16>(&json).unwrap(), id);
        for bad in ["AB".repeat(16), "ab".repeat(15), "ab".repeat(17), "zz".repeat(16)] {
            assert!(serde_json::from_str::<Id16>(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
    }

    #[test]
    fn fixed_length_bytes_refuse_another_length() {
        let header = EnvelopeHeader::new(&[7; 96]);
        let json = serde_json::to_string(&header).unwrap();
        assert_eq!(serde_json::from_str::<EnvelopeHeader>(&json).unwrap(), header);
        let short = serde_json::to_string(&Blob(vec![7; 95])).unwrap();
        assert!(serde_json::from_str::<EnvelopeHeader>(&short).is_err());
    }
}
