//! The archive a kernel unpacks as its first file system: cpio in the "new ASCII" form
//! (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed.

/// `S_IFREG` and `S_IFDIR` with the modes used here.
const FILE: u32 = 0o100_755;
const DIRECTORY: u32 = 0o040_755;

/// An archive being written.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds a directory. Its parents have to be added before.
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, 2, &[]);
    }

    /// Adds an executable file.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, FILE, 1, contents);
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, contents: &[u8]) {
        let size = u32::try_from(contents.len()).expect("invariant: files are far below 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("invariant: names are short");
        self.inode += 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, dev major and minor, rdev major and minor,
        // namesize, check.
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_contents_are_aligned() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("bin/x", b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        // 110 bytes of header, "bin\0" and two bytes to the boundary.
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[110..114], b"bin\0");
        let file = &bytes[116..];
        assert_eq!(&file[6 + 8 * 6..6 + 8 * 7], b"00000005");
        assert_eq!(&file[6 + 8 * 11..6 + 8 * 12], b"00000006");
        assert_eq!(&file[110..116], b"bin/x\0");
        assert_eq!(&file[116..124], b"hello\0\0\0");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
