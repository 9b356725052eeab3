//! Where secrets go that do not fit into the memory that a run may use: a temporary file without a
//! name, encrypted under a key that nobody else ever has.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use convelo_channel::os_rng;
use convelo_psi::{Segment, SetBuilder, Spill};
use rand_core::Rng as _;
use zeroize::{Zeroize, Zeroizing};

use crate::limits::{DEFAULT_MEMORY, OTHER_MEMORY};

/// How much memory a run may use, and where it puts what does not fit.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Roughly the most that the program uses, in bytes. 48 MiB are set aside for everything but
    /// pseudonyms, and pseudonyms get at least 5 MiB. One share of 1024 is in memory as a whole: if
    /// many rows have the same key, that is 32 bytes for each of them.
    pub bytes: u64,
    /// The directory for the temporary file, which is only created when it is needed.
    pub directory: PathBuf,
}

impl Default for Memory {
    fn default() -> Self {
        Self { bytes: DEFAULT_MEMORY, directory: std::env::temp_dir() }
    }
}

impl Memory {
    pub(crate) fn builder(&self) -> SetBuilder {
        let bytes = usize::try_from(self.bytes.saturating_sub(OTHER_MEMORY)).unwrap_or(usize::MAX);
        SetBuilder::spilling(bytes, Box::new(EncryptedFile::new(&self.directory)))
    }
}

/// An append-only file of segments, each sealed with AES-256-GCM; the nonce is the segment's
/// position in the file, where nothing else is ever written.
pub(crate) struct EncryptedFile {
    directory: PathBuf,
    open: Option<(File, LessSafeKey)>,
    end: u64,
}

impl EncryptedFile {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None, end: 0 }
    }

    fn append(&mut self, bytes: &mut Vec<u8>) -> io::Result<Segment> {
        let segment = Segment { offset: self.end, length: bytes.len() };
        let (file, key) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert((tempfile::tempfile_in(&self.directory)?, fresh_key())),
        };
        key.seal_in_place_append_tag(nonce(segment), Aad::empty(), bytes)
            .map_err(|_| io::Error::other("a segment could not be sealed"))?;
        file.seek(SeekFrom::Start(segment.offset))?;
        file.write_all(bytes)?;
        self.end += bytes.len() as u64;
        Ok(segment)
    }

    fn opened(&self, segment: Segment) -> io::Result<Zeroizing<Vec<u8>>> {
        let Some((mut file, key)) = self.open.as_ref().map(|(file, key)| (file, key)) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut bytes = Zeroizing::new(vec![0; segment.length + AES_256_GCM.tag_len()]);
        file.seek(SeekFrom::Start(segment.offset))?;
        file.read_exact(&mut bytes)?;
        key.open_in_place(nonce(segment), Aad::empty(), &mut bytes).map_err(|_| {
            let text = "something has changed it, or the disk is damaged";
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        bytes.truncate(segment.length);
        Ok(bytes)
    }

    fn explain(&self, error: &io::Error) -> io::Error {
        let directory = self.directory.display();
        let text = format!("the encrypted temporary file in {directory}: {error}");
        io::Error::new(error.kind(), text)
    }
}

impl Spill for EncryptedFile {
    fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<Segment> {
        let written = self.append(bytes);
        bytes.zeroize();
        written.map_err(|error| self.explain(&error))
    }

    fn read(&self, segment: Segment) -> io::Result<Zeroizing<Vec<u8>>> {
        self.opened(segment).map_err(|error| self.explain(&error))
    }
}

fn fresh_key() -> LessSafeKey {
    let mut key = Zeroizing::new([0; 32]);
    os_rng().fill_bytes(&mut *key);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).expect("32 bytes are a key"))
}

fn nonce(segment: Segment) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&segment.offset.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_come_back_and_the_file_shows_nothing_of_them() {
        let mut file = EncryptedFile::new(&std::env::temp_dir());
        let texts = [vec![b'x'; 1000], vec![b'y'; 3], Vec::new(), vec![b'z'; 70_000]];
        let segments = texts.clone().map(|mut text| {
            let segment = file.write(&mut text).expect("room");
            assert!(text.is_empty());
            segment
        });
        for (segment, text) in segments.iter().zip(&texts).rev() {
            assert!(*file.read(*segment).expect("readable") == *text);
        }
        let mut raw = Vec::new();
        let (mut stored, _) = file.open.as_ref().map(|(file, key)| (file, key)).expect("open");
        stored.seek(SeekFrom::Start(0)).expect("a file");
        stored.read_to_end(&mut raw).expect("a file");
        assert!(!raw.windows(3).any(|three| three == b"xxx" || three == b"yyy" || three == b"zzz"));
    }

    #[test]
    fn a_changed_byte_and_a_segment_at_another_place_are_refused() {
        let mut file = EncryptedFile::new(&std::env::temp_dir());
        let first = file.write(&mut vec![1; 100]).expect("room");
        let second = file.write(&mut vec![2; 100]).expect("room");
        let (mut stored, _) = file.open.as_ref().map(|(file, key)| (file, key)).expect("open");
        let mut sealed = vec![0; 116];
        stored.seek(SeekFrom::Start(second.offset)).expect("a file");
        stored.read_exact(&mut sealed).expect("a file");
        stored.seek(SeekFrom::Start(first.offset)).expect("a file");
        stored.write_all(&sealed).expect("a file");
        let refused = file.read(first).expect_err("it is the other segment");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        sealed[50] ^= 1;
        stored.seek(SeekFrom::Start(second.offset)).expect("a file");
        stored.write_all(&sealed).expect("a file");
        let refused = file.read(second).expect_err("a bit was flipped");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}
