//! Compressed bodies.
//!
//! What the algorithms need between bodies, some hundred kilobytes and more, is kept once for each thread and
//! level: it is the same for all connectors, of which there may be hundreds.

use flate2::{Compress, Crc, FlushCompress, Status};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// As gzip does it, which every platform can undo.
    Gzip,
    /// Zstandard: smaller and several times faster.
    Zstd,
}

impl Algorithm {
    /// The word for it in `content_encoding`, as in HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Which bodies are compressed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compression {
    /// How.
    pub algorithm: Algorithm,
    /// How hard to try, on the algorithm's own scale.
    pub level: u32,
    /// Shorter bodies stay as they are, in bytes.
    pub min_bytes: u64,
}

impl Compression {
    /// By this algorithm at this level, of bodies with so many bytes or more.
    pub const fn new(algorithm: Algorithm, level: u32, min_bytes: u64) -> Self {
        Self {
            algorithm,
            level,
            min_bytes,
        }
    }

    /// Compresses a body into `packed`, in place of what is there, and returns its `content_encoding`; `None`
    /// if the body is too short, or would not become smaller.
    pub(super) fn pack(self, body: &[u8], packed: &mut Vec<u8>) -> Option<&'static str> {
        if (body.len() as u64) < self.min_bytes {
            return None;
        }
        packed.clear();
        let done = PACKERS.with_borrow_mut(|packers| {
            let wanted = (self.algorithm, self.level);
            let known = packers.iter().position(|(which, _)| *which == wanted);
            let index = match known {
                Some(index) => index,
                None => {
                    packers.push((wanted, Packer::new(self.algorithm, self.level)?));
                    packers.len() - 1
                }
            };
            packers[index].1.pack(body, packed)
        });
        (done.is_ok() && packed.len() < body.len()).then_some(self.algorithm.as_str())
    }
}

/// Undoes what `content_encoding` says, as far as `limit` bytes.
///
/// # Errors
///
/// The encoding is not known here, the bytes are not so encoded, or come to more than the limit.
pub fn unpack(encoding: &str, bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let read = match encoding {
        "gzip" => flate2::read::GzDecoder::new(bytes)
            .take(limit + 1)
            .read_to_end(&mut out)?,
        "zstd" => zstd::Decoder::new(bytes)?
            .take(limit + 1)
            .read_to_end(&mut out)?,
        _ => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    match read as u64 <= limit {
        true => Ok(out),
        false => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
    }
}

thread_local! {
    static PACKERS: RefCell<Vec<((Algorithm, u32), Packer)>> = const { RefCell::new(Vec::new()) };
}

/// What compresses one body after the other.
enum Packer {
    Gzip(Box<Compress>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packer")
    }
}

impl Packer {
    fn new(algorithm: Algorithm, level: u32) -> io::Result<Self> {
        Ok(match algorithm {
            Algorithm::Gzip => Self::Gzip(Box::new(Compress::new(
                flate2::Compression::new(level),
                false,
            ))),
            Algorithm::Zstd => {
                let level = i32::try_from(level).unwrap_or(i32::MAX);
                Self::Zstd(zstd::bulk::Compressor::new(level)?)
            }
        })
    }

    fn pack(&mut self, body: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip(deflate) => gzip(deflate, body, packed),
            Self::Zstd(zstd) => {
                packed.reserve(zstd::zstd_safe::compress_bound(body.len()));
                zstd.compress_to_buffer(body, packed).map(drop)
            }
        }
    }
}

/// A file of gzip by RFC 1952, around what a kept compressor makes: flate2's own keeps none.
fn gzip(deflate: &mut Compress, body: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
    // Magic, deflate, no flags, no time, no hint, unknown system.
    packed.extend_from_slice(&[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF]);
    deflate.reset();
    packed.reserve(body.len() / 4 + 64);
    loop {
        let rest = &body[deflate.total_in() as usize..];
        match deflate.compress_vec(rest, packed, FlushCompress::Finish)? {
            Status::StreamEnd => break,
            Status::Ok | Status::BufError => packed.reserve(packed.capacity()),
        }
    }
    let mut crc = Crc::new();
    crc.update(body);
    packed.extend_from_slice(&crc.sum().to_le_bytes());
    // Its length modulo 2^32.
    packed.extend_from_slice(&(body.len() as u32).to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Algorithm, u32); 4] = [
        (Algorithm::Gzip, 6),
        (Algorithm::Gzip, 1),
        (Algorithm::Zstd, 3),
        (Algorithm::Zstd, 19),
    ];

    #[test]
    fn body_comes_out_changed_or_mixed_with_the_one_before() {
        let bodies = [
            b"{\"a\":1}".repeat(1000),
            b"x".repeat(200),
            b"{\"name\":\"text\"}".repeat(30_000),
        ];
        let mut packed = Vec::new();
        for (algorithm, level) in ALL {
            for body in bodies.iter().chain(bodies.iter().rev()) {
                let compression = Compression {
                    algorithm,
                    level,
                    min_bytes: 1,
                };
                let encoding = compression.pack(body, &mut packed);
                assert_eq!(encoding, Some(algorithm.as_str()));
                assert!(packed.len() < body.len() / 3);
                let limit = body.len() as u64;
                assert_eq!(&unpack(algorithm.as_str(), &packed, limit).unwrap(), body);
                assert!(unpack(algorithm.as_str(), &packed, limit - 1).is_err());
            }
        }
    }

    #[test]
    fn body_is_compressed_in_vain() {
        for (algorithm, level) in ALL {
            let compression = Compression {
                algorithm,
                level,
                min_bytes: 100,
            };
            let mut packed = Vec::new();
            assert_eq!(compression.pack(&[b'x'; 99], &mut packed), None);
            assert!(compression.pack(&[b'x'; 100], &mut packed).is_some());
            let mut random = fastrand::Rng::with_seed(7);
            let noise: Vec<u8> = (0..1000).map(|_| random.u8(..)).collect();
            assert_eq!(compression.pack(&noise, &mut packed), None);
        }
    }

    #[test]
    fn bytes_of_another_encoding_are_taken_for_a_body() {
        assert!(unpack("br", b"x", 10).is_err());
        assert!(unpack("gzip", b"no gzip", 10).is_err());
        assert!(unpack("zstd", b"no zstd", 10).is_err());
    }
}
