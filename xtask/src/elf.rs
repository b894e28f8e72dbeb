//! The one thing xtask asks of an ELF file: whether it runs without a dynamic loader.

/// `PT_INTERP`: the segment that names the dynamic loader.
const PT_INTERP: u32 = 3;

/// Whether `file` is a 64-bit little-endian ELF executable without an interpreter.
pub(crate) fn is_static(file: &[u8]) -> bool {
    segments(file).is_some_and(|mut types| types.all(|kind| kind != PT_INTERP))
}

/// The types of the program headers; `None` when it is no such ELF file, or truncated.
fn segments(file: &[u8]) -> Option<impl Iterator<Item = u32>> {
    // e_ident: magic, ELFCLASS64, ELFDATA2LSB.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let offset = usize::try_from(u64::from_le_bytes(array(file, 0x20)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(array(file, 0x36)?));
    let count = usize::from(u16::from_le_bytes(array(file, 0x38)?));
    let headers = file.get(offset..)?.get(..size.checked_mul(count)?)?;
    let types = headers.chunks_exact(size.max(4)).map(|header| array(header, 0));
    types.map(|kind| kind.map(u32::from_le_bytes)).collect::<Option<Vec<_>>>().map(Vec::into_iter)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(segment: u32) -> Vec<u8> {
        let mut file = vec![0; 0x40];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20] = 0x40;
        file[0x36] = 56;
        file[0x38] = 1;
        file.extend(segment.to_le_bytes());
        file.resize(0x40 + 56, 0);
        file
    }

    #[test]
    fn an_interpreter_means_dynamic() {
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(PT_INTERP)));
    }

    #[test]
    fn what_is_no_whole_elf_file_is_not_static() {
        assert!(!is_static(b"#!/bin/sh"));
        assert!(!is_static(&elf(1)[..0x50]));
        assert!(!is_static(&elf(1)[..0x30]));
    }
}
