use crust::PublicKey;

/// A value under a name, as its author has signed it. Of several versions the highest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who signed it.
    pub author: PublicKey,
    /// Its name.
    pub key: String,
    /// What it is.
    pub value: Vec<u8>,
    /// Which of several.
    pub version: u64,
    /// Over all that.
    pub signature: [u8; 64],
}

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its name or value is too long.
    #[error("a name has at most {MAX_KEY} bytes, a value {MAX_VALUE}")]
    TooLong,
    /// Its author has not signed this.
    #[error("the signature is not its author's")]
    Signature,
    /// A version at least as new is here.
    #[error("a newer version is here")]
    Old,
    /// There is no room.
    #[error("the store is full")]
    Full,
}

impl Record {
    /// Signs a value. `sign` signs for a purpose with the author's key.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLong`].
    pub fn new(
        author: PublicKey,
        key: &str,
        value: &[u8],
        version: u64,
        sign: impl FnOnce(&str, &[u8]) -> [u8; 64],
    ) -> Result<Self, RecordError> {
        if key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(RecordError::TooLong);
        }
        let mut record =
            Self { author, key: key.to_owned(), value: value.to_vec(), version, signature: [0; 64] };
        record.signature = sign(PURPOSE, &record.signed_bytes());
        Ok(record)
    }

    /// Whether the author has signed it, and it is of a bearable size.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLong`] and [`RecordError::Signature`].
    pub fn verify(&self) -> Result<(), RecordError> {
        if self.key.len() > MAX_KEY || self.value.len() > MAX_VALUE {
            return Err(RecordError::TooLong);
        }
        let signed = self.author.has_signed_for(PURPOSE, &self.signed_bytes(), &self.signature);
        if signed { Ok(()) } else { Err(RecordError::Signature) }
    }

    /// What its author signs: everything, each with its length.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(self.author.as_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        for part in [self.key.as_bytes(), &self.value] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

const PURPOSE: &str = "crust examples: kv record";
/// The longest name, in bytes.
pub const MAX_KEY: usize = 256;
/// The longest value, in bytes: a few fit a message.
pub const MAX_VALUE: usize = 8 << 10;
