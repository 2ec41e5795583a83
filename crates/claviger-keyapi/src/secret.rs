//! Secrets on the wire: one newtype each, wiped on drop, never printed, never compared, never copied by `Clone`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        pub struct $name(Box<[u8; $len]>);

        impl $name {
            /// Bytes in this secret.
            pub const LEN: usize = $len;

            /// Copies the bytes to the heap. The caller wipes its own copy.
            #[must_use]
            pub fn new(bytes: &[u8; $len]) -> Self {
                // Filled in place: a boxed copy of the value would pass over the stack.
                let mut secret = Self(Box::new([0; $len]));
                secret.0.copy_from_slice(bytes);
                secret
            }

            /// The secret itself. Whoever calls this answers for where it goes.
            #[must_use]
            pub fn expose(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text = Zeroizing::new(STANDARD.encode(&self.0[..]));
                serializer.serialize_str(&text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = deserializer.deserialize_str(SecretVisitor)?;
                let bytes = <&[u8; $len]>::try_from(bytes.as_slice())
                    .map_err(|_| de::Error::custom(concat!("expected base64 of ", $len, " bytes")))?;
                Ok(Self::new(bytes))
            }
        }
    };
}

struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = Zeroizing<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard base64 with padding")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        // Into a buffer that is wiped whether or not all of it decodes.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        let len = STANDARD
            .decode_slice(text, &mut bytes)
            .map_err(|_| E::custom("expected standard base64 with padding"))?;
        bytes.truncate(len);
        Ok(bytes)
    }
}

secret!(
    /// A write-epoch key, WEK (docs/format.md §2).
    WekBytes,
    32
);
secret!(
    /// A data-encryption key, DEK, of one object (docs/format.md §2).
    DekBytes,
    32
);
secret!(
    /// `key(32) ‖ commitment(32) ‖ base_nonce(12)` of one unit (docs/format.md §3.1).
    UnitOutput,
    76
);
secret!(
    /// `PSK_{v,s}`: what this gateway's epoch records are authenticated with (docs/format.md §2).
    PskBytes,
    32
);
secret!(
    /// The name key NK of a keyset, AES-256-SIV (docs/format.md §6).
    NameKeyBytes,
    64
);
secret!(
    /// The MAC key of an upload token (docs/format.md §7.2).
    UploadKeyBytes,
    32
);
secret!(
    /// The MAC key of part-ETag tokens (docs/format.md §7.3).
    EtagKeyBytes,
    32
);
secret!(
    /// Randomness that the service adds to a gateway's own when it draws a WEK (docs/format.md §2.2).
    Seed32,
    32
);

/// A secret text (passphrase, one-time secret): wiped on drop, never printed.
#[derive(Default)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_the_wire_and_never_prints() {
        let wek = WekBytes::new(&[0x5a; 32]);
        let json = serde_json::to_string(&wek).unwrap();
        assert_eq!(serde_json::from_str::<WekBytes>(&json).unwrap().expose(), &[0x5a; 32]);
        assert_eq!(format!("{wek:?}"), "WekBytes(redacted)");
        assert_eq!(format!("{:?}", SecretText::new("pass".into())), "SecretText(redacted)");
    }

    #[test]
    fn a_secret_of_another_length_is_refused() {
        let json = serde_json::to_string(&STANDARD.encode([1u8; 31])).unwrap();
        assert!(serde_json::from_str::<WekBytes>(&json).is_err());
    }
}
