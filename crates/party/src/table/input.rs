//! Where a table's bytes come from: a file, standard input, or a stream of batches.
//!
//! A table is read twice. A file can simply be read again; a one-time input is kept in between, in
//! an encrypted temporary file without a name.

use std::fs::{File, FileType, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arrow_array::RecordBatchReader;
use aws_lc_rs::digest::{Context, SHA256};
use convelo_psi::{Segment, Spill};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use zeroize::Zeroizing;

use super::arrow_stream;
use super::error::{Fault, TableError};
use crate::limits::{KEPT_SEGMENT_BYTES, MAXIMUM_PARTS, TABLE_BUFFER_BYTES};
use crate::spill::EncryptedFile;

/// The path that means standard input.
pub const STANDARD_INPUT: &str = "-";

/// A table's bytes, which can be read from the beginning any number of times.
pub struct Input {
    path: PathBuf,
    origin: Origin,
    packing: Packing,
    /// Bytes that the current pass has read.
    read: AtomicU64,
}

enum Origin {
    File(File, Stamp),
    /// The files of a directory, in the order of their names.
    Parts(Vec<Part>),
    Kept(Kept),
    /// Batches, as an Arrow stream.
    Batches(Kept),
}

/// A file that is opened again for each pass.
struct Part {
    path: PathBuf,
    stamp: Stamp,
}

impl Part {
    fn of(path: PathBuf) -> Result<Self, TableError> {
        let opened = File::open(&path).and_then(|file| Ok(Stamp::of(&file.metadata()?)));
        match opened {
            Ok(stamp) => Ok(Self { path, stamp }),
            Err(error) => Err(TableError::new(&path, Fault::Open(error))),
        }
    }

    fn open(&self) -> Result<File, TableError> {
        let opened = File::open(&self.path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok((file, Stamp::of(&metadata)))
        });
        match opened {
            Ok((file, stamp)) if stamp == self.stamp => Ok(file),
            Ok(_) => Err(TableError::new(&self.path, Fault::Changed)),
            Err(error) => Err(TableError::new(&self.path, Fault::Open(error))),
        }
    }
}

/// The parts of a table in a directory: all files but those whose names begin with `_` or `.`, which
/// programs add for themselves.
fn parts(directory: &Path) -> Result<Vec<Part>, TableError> {
    let failed = |error| TableError::new(directory, Fault::Open(error));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b"_")
            || entry.file_name().as_encoded_bytes().starts_with(b".")
        {
            continue;
        }
        let mut head = [0; 4];
        let parquet = std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file())
            && File::open(&path).and_then(|mut file| file.read_exact(&mut head)).is_ok()
            && head == *b"PAR1";
        if !parquet {
            return Err(TableError::new(directory, Fault::Directory { other: path }));
        }
        if paths.len() == MAXIMUM_PARTS {
            return Err(TableError::new(directory, Fault::TooManyParts));
        }
        paths.push(path);
    }
    if paths.is_empty() {
        return Err(TableError::new(directory, Fault::NotRegular { found: "an empty directory" }));
    }
    paths.sort();
    paths.into_iter().map(Part::of).collect()
}

/// How the text is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstandard,
}

impl Input {
    /// Opens a file that can be read twice, or a directory of Parquet files as one table. If the path is `-`, reads standard input to its end and
    /// keeps it encrypted, in a file without a name in the directory `temporary`.
    ///
    /// gzip and Zstandard are recognised by their first bytes, and unpacked while reading.
    ///
    /// # Errors
    /// If there is no such file, it is not a regular one, or standard input cannot be kept. A pipe
    /// is not even opened: that would wait for its writer.
    pub fn open(path: &Path, temporary: &Path) -> Result<Self, TableError> {
        if path == Path::new(STANDARD_INPUT) {
            return Self::kept(io::stdin().lock(), temporary);
        }
        let regular = |metadata: Metadata| match irregular(metadata.file_type()) {
            Some(found) => Err(TableError::new(path, Fault::NotRegular { found })),
            None => Ok(metadata),
        };
        let open_error = |error| TableError::new(path, Fault::Open(error));
        let metadata = std::fs::metadata(path).map_err(open_error)?;
        if metadata.is_dir() {
            return Self::new(path.to_owned(), Origin::Parts(parts(path)?));
        }
        regular(metadata)?;
        let file = File::open(path).map_err(open_error)?;
        let stamp = Stamp::of(&regular(file.metadata().map_err(open_error)?)?);
        Self::new(path.to_owned(), Origin::File(file, stamp))
    }

    /// Reads `stream` to its end.
    pub(super) fn kept(stream: impl Read, temporary: &Path) -> Result<Self, TableError> {
        let path = PathBuf::from("standard input");
        let kept = Kept::new(stream, temporary).map_err(|fault| TableError::new(&path, fault))?;
        Self::new(path, Origin::Kept(kept))
    }

    /// Takes all batches, for a table in [`Format::Arrow`](super::Format::Arrow). They are kept
    /// encrypted, in a file without a name in the directory `temporary`; memory never holds more
    /// than one of them, and about as much again while it is written.
    ///
    /// # Errors
    /// The error that ended the batches, or why they cannot be kept.
    pub fn batches(batches: impl RecordBatchReader, temporary: &Path) -> Result<Self, TableError> {
        let path = PathBuf::from("the stream of batches");
        let mut kept = Kept::nothing(temporary);
        arrow_stream::write(batches, KEPT_SEGMENT_BYTES, |piece| kept.keep(piece))
            .map_err(|fault| TableError::new(&path, fault))?;
        Self::new(path, Origin::Batches(kept))
    }

    fn new(path: PathBuf, origin: Origin) -> Result<Self, TableError> {
        let mut input = Self { path, origin, packing: Packing::Plain, read: AtomicU64::new(0) };
        let head = input.head(4)?;
        input.packing = match *head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstandard,
            _ => Packing::Plain,
        };
        Ok(input)
    }

    /// The file's path, or a description of an input without a name, such as "standard input".
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_batches(&self) -> bool {
        matches!(self.origin, Origin::Batches(_))
    }

    /// The size in bytes of the file or of what is kept; the packed size if it is packed.
    pub(super) fn size(&self) -> u64 {
        match &self.origin {
            Origin::File(_, stamp) => stamp.size,
            Origin::Parts(parts) => parts.iter().map(|part| part.stamp.size).sum(),
            Origin::Kept(kept) | Origin::Batches(kept) => kept.size,
        }
    }

    /// How much of [`Input::size`] the current pass has read.
    pub(super) fn done(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The text from its beginning, unpacked. Only one pass runs at a time.
    pub(super) fn read(&self) -> io::Result<Box<dyn Read + '_>> {
        self.read.store(0, Ordering::Relaxed);
        let origin: Box<dyn Read> = match &self.origin {
            Origin::File(file, _) => {
                let mut file = file;
                file.seek(SeekFrom::Start(0))?;
                Box::new(file)
            }
            // Only its beginning is ever read in this way.
            Origin::Parts(parts) => Box::new(File::open(&parts[0].path)?),
            Origin::Kept(kept) | Origin::Batches(kept) => Box::new(kept.read()),
        };
        let counted = Counted { origin, read: &self.read };
        if self.packing == Packing::Plain {
            return Ok(Box::new(counted));
        }
        let buffered = BufReader::with_capacity(TABLE_BUFFER_BYTES, counted);
        Ok(match self.packing {
            Packing::Gzip => Box::new(MultiGzDecoder::new(buffered)),
            _ => Box::new(Frames { packed: buffered, decoder: None }),
        })
    }

    /// The first bytes of the text.
    pub(super) fn head(&self, bytes: u64) -> Result<Vec<u8>, TableError> {
        let mut head = Vec::new();
        let text = self.read().and_then(|text| text.take(bytes).read_to_end(&mut head));
        text.map_err(|error| self.error(error))?;
        Ok(head)
    }

    /// SHA-256 of the text, or of the files one after the other, in hexadecimal digits.
    pub(super) fn sha256(&self) -> Result<String, TableError> {
        let mut context = Context::new(&SHA256);
        let mut read = |mut text: Box<dyn Read + '_>| -> io::Result<()> {
            let mut buffer = vec![0; TABLE_BUFFER_BYTES];
            loop {
                match text.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => context.update(&buffer[..count]),
                }
            }
        };
        match &self.origin {
            Origin::Parts(parts) => parts.iter().try_for_each(|part| {
                read(Box::new(part.open()?)).map_err(|error| self.error(error))
            }),
            _ => self.read().and_then(read).map_err(|error| self.error(error)),
        }?;
        Ok(hex::encode(context.finish()))
    }

    /// Turns a failure to read the text into a table error.
    pub(super) fn error(&self, error: io::Error) -> TableError {
        let fault = match self.packing {
            Packing::Plain => Fault::Read(error),
            Packing::Gzip => Fault::Unpack { packing: "gzip", error },
            Packing::Zstandard => Fault::Unpack { packing: "Zstandard", error },
        };
        TableError::new(&self.path, fault)
    }

    /// Checks that a file has not changed since it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), TableError> {
        if let Origin::Parts(parts) = &self.origin {
            return parts.iter().try_for_each(|part| part.open().map(drop));
        }
        let Origin::File(file, stamp) = &self.origin else { return Ok(()) };
        let metadata = file.metadata().map_err(|e| TableError::new(&self.path, Fault::Read(e)))?;
        if Stamp::of(&metadata) == *stamp {
            Ok(())
        } else {
            Err(TableError::new(&self.path, Fault::Changed))
        }
    }

    /// The files, for a reader that seeks; nothing else may read meanwhile.
    pub(super) fn files(
        &self,
    ) -> Result<impl Iterator<Item = Result<File, TableError>> + '_, TableError> {
        let (one, parts) = match &self.origin {
            Origin::File(file, _) => (Some(file), &[][..]),
            Origin::Parts(parts) => (None, &**parts),
            Origin::Kept(_) | Origin::Batches(_) => {
                return Err(TableError::new(&self.path, Fault::ParquetStream));
            }
        };
        let one = one.map(|file| file.try_clone().map_err(|error| self.error(error)));
        Ok(one.into_iter().chain(parts.iter().map(Part::open)))
    }

    /// The first of the files.
    pub(super) fn first_file(&self) -> Result<File, TableError> {
        let missing = || TableError::new(&self.path, Fault::Open(io::ErrorKind::NotFound.into()));
        self.files()?.next().ok_or_else(missing)?
    }

    /// Whether `output` is the very file being read.
    pub(super) fn is(&self, output: &Path, found: &Metadata) -> io::Result<bool> {
        match &self.origin {
            Origin::File(file, _) => is_same_file(&self.path, file, output, found),
            Origin::Parts(parts) => {
                let same =
                    |part: &Part| is_same_file(&part.path, &part.open().ok()?, output, found).ok();
                Ok(parts.iter().any(|part| same(part).unwrap_or(false)))
            }
            Origin::Kept(_) | Origin::Batches(_) => Ok(false),
        }
    }
}

/// A file name's extension, in lower case.
pub(super) fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase)
}

/// The extension of a file's name, without that of an archive.
pub(super) fn ending(mut name: &Path) -> Option<String> {
    if let Some("gz" | "zst") = extension(name).as_deref() {
        name = name.file_stem().map_or(name, Path::new);
    }
    extension(name)
}

/// What a file is, if it is not a regular one.
pub(super) fn irregular(kind: FileType) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
        if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        }
    }
    if kind.is_dir() {
        return Some("a directory");
    }
    (!kind.is_file()).then_some("not a file")
}

/// Identifies a file's state, to see whether it changed after it was opened.
#[derive(PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// A one-time input that has been kept.
struct Kept {
    store: EncryptedFile,
    segments: Vec<Segment>,
    size: u64,
}

impl Kept {
    fn new(mut stream: impl Read, temporary: &Path) -> Result<Self, Fault> {
        let mut kept = Self::nothing(temporary);
        let mut piece = Vec::with_capacity(KEPT_SEGMENT_BYTES + 64);
        loop {
            let mut next = stream.by_ref().take(KEPT_SEGMENT_BYTES as u64);
            if next.read_to_end(&mut piece).map_err(Fault::Read)? == 0 {
                return Ok(kept);
            }
            kept.keep(&mut piece)?;
        }
    }

    fn nothing(temporary: &Path) -> Self {
        Self { store: EncryptedFile::new(temporary), segments: Vec::new(), size: 0 }
    }

    /// Keeps the next piece, and empties it.
    fn keep(&mut self, piece: &mut Vec<u8>) -> Result<(), Fault> {
        self.size += piece.len() as u64;
        self.segments.push(self.store.write(piece).map_err(Fault::Keep)?);
        Ok(())
    }

    fn read(&self) -> KeptReader<'_> {
        KeptReader { kept: self, next: 0, piece: Zeroizing::default(), taken: 0 }
    }
}

struct KeptReader<'k> {
    kept: &'k Kept,
    next: usize,
    piece: Zeroizing<Vec<u8>>,
    taken: usize,
}

impl Read for KeptReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            let Some(segment) = self.kept.segments.get(self.next) else { return Ok(0) };
            self.piece = self.kept.store.read(*segment)?;
            (self.next, self.taken) = (self.next + 1, 0);
        }
        let count = (&self.piece[self.taken..]).read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

struct Counted<'i> {
    origin: Box<dyn Read + 'i>,
    read: &'i AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.origin.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Consecutive Zstandard frames (RFC 8878 section 3.1); checks the checksum of each frame that has
/// one.
struct Frames<R> {
    packed: R,
    decoder: Option<FrameDecoder>,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; `None` at the end.
    fn begin(&mut self) -> io::Result<Option<FrameDecoder>> {
        while !self.packed.fill_buf()?.is_empty() {
            let mut decoder = FrameDecoder::new();
            match decoder.init(&mut self.packed) {
                Ok(()) => return Ok(Some(decoder)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.packed.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.is_none() {
                self.decoder = self.begin()?;
            }
            let Some(decoder) = &mut self.decoder else { return Ok(0) };
            if decoder.can_collect() == 0 && !decoder.is_finished() {
                let strategy = ruzstd::decoding::BlockDecodingStrategy::UptoBytes(buffer.len());
                decoder.decode_blocks(&mut self.packed, strategy).map_err(io::Error::other)?;
                continue;
            }
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let expected = decoder.get_checksum_from_data();
            if expected.is_some() && expected != decoder.get_calculated_checksum() {
                return Err(io::Error::other("the checksum of a frame does not match"));
            }
            self.decoder = None;
        }
    }
}

#[cfg(unix)]
fn is_same_file(_: &Path, input: &File, _: &Path, found: &Metadata) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let input = input.metadata()?;
    Ok(found.dev() == input.dev() && found.ino() == input.ino())
}

#[cfg(not(unix))]
fn is_same_file(path: &Path, _: &File, output: &Path, _: &Metadata) -> io::Result<bool> {
    Ok(output.canonicalize()? == path.canonicalize()?)
}
