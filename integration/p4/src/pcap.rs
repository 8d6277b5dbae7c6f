//! Frames out of pcap files (not pcapng).

use std::fmt;

/// The file is no pcap of Ethernet frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadPcap(&'static str);

impl fmt::Display for BadPcap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadPcap {}

const ETHERNET: u32 = 1;

/// The frames of a file, in order.
///
/// # Errors
/// [`BadPcap`] for other formats, other links, or a file that ends within a frame.
pub fn frames(file: &[u8]) -> Result<Vec<&[u8]>, BadPcap> {
    let word = |bytes: &[u8], at: usize, little: bool| -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let little = match file.first_chunk::<4>() {
        // Microseconds and nanoseconds, in either byte order.
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => true,
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => false,
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => {
            return Err(BadPcap("this is pcapng: convert it with editcap -F pcap"));
        }
        _ => return Err(BadPcap("not a pcap file")),
    };
    if word(file, 20, little) != Some(ETHERNET) {
        return Err(BadPcap("the capture is not of an Ethernet link"));
    }
    let mut rest = file.get(24..).unwrap_or_default();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let cut = BadPcap("the file ends within a frame");
        let len = word(rest, 8, little).ok_or(cut)? as usize;
        let end = len.checked_add(16).ok_or(cut)?;
        frames.push(rest.get(16..end).ok_or(cut)?);
        rest = &rest[end..];
    }
    Ok(frames)
}

/// A pcap file of Ethernet frames, all at time zero.
pub fn write<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 0x4_0000, ETHERNET] {
        file.extend(u32::to_le_bytes(word));
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [0, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let written = [&b"one"[..], b"", b"three"];
        let file = write(written);
        assert_eq!(frames(&file).unwrap(), written);
        for len in 1..file.len() {
            // Cut anywhere it is an error or fewer frames, never a panic.
            let cut = frames(&file[..len]);
            assert!(cut.is_err() || cut.unwrap().len() < 3);
        }
        assert!(
            frames(b"\x0a\x0d\x0d\x0a")
                .unwrap_err()
                .to_string()
                .contains("pcapng")
        );
    }
}
