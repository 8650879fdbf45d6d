//! Reading fields from bytes that a stranger sent.

/// A cursor whose every step is checked.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], WireError> {
        self.take(LENGTH)?.try_into().map_err(|_| WireError)
    }

    /// A value with its length in one byte before it.
    pub(crate) fn short(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// Walks over extension records to the end: type, length in two bytes, value.
    pub(crate) fn skip_extensions(mut self) -> Result<(), WireError> {
        while self.extension()?.is_some() {}
        Ok(())
    }

    /// The next extension, its type and value, if there is one.
    pub(crate) fn extension(&mut self) -> Result<Option<(u8, &'a [u8])>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (kind, length) = (self.u8()?, self.u16()?);
        Ok(Some((kind, self.take(usize::from(length))?)))
    }
}

/// A field reaches past the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a field reaches past the end")]
pub(crate) struct WireError;
