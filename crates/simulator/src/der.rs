//! The little DER that the PCK extension needs.

/// One element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = u16::try_from(content.len()).expect("extensions are below 64 KiB");
    match length.to_be_bytes() {
        [0, n @ 0..128] => out.push(n),
        [0, n] => out.extend([0x81, n]),
        [a, b] => out.extend([0x82, a, b]),
    }
    out.extend(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    element(0x04, bytes)
}

pub(crate) fn boolean(value: bool) -> Vec<u8> {
    element(0x01, &[if value { 0xFF } else { 0x00 }])
}

pub(crate) fn enumerated(value: u8) -> Vec<u8> {
    element(0x0A, &[value])
}

/// A non-negative INTEGER in its shortest form.
pub(crate) fn integer(value: u16) -> Vec<u8> {
    match value.to_be_bytes() {
        [0, n @ 0..128] => element(0x02, &[n]),
        [0, n] => element(0x02, &[0, n]),
        [a @ 0..128, b] => element(0x02, &[a, b]),
        [a, b] => element(0x02, &[0, a, b]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_lengths_are_shortest() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(127), [2, 1, 127]);
        assert_eq!(integer(128), [2, 2, 0, 128]);
        assert_eq!(integer(0x8000), [2, 3, 0, 0x80, 0]);
        assert_eq!(octets(&[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(octets(&[7; 300])[..4], [4, 0x82, 1, 44]);
    }
}
