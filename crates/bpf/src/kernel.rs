//! Thin calls: programs, links and pins in the kernel, each one system call.

use crate::error::Error;
use libbpf_sys as sys;
use pointsman_fuse::assemble::{Function, Line};
use pointsman_fuse::insn::Insn;
use pointsman_model::observed::AttachMode;
use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

/// A program to load.
pub(crate) struct Load<'a> {
    pub(crate) name: &'a str,
    pub(crate) licence: &'a str,
    pub(crate) instructions: &'a [Insn],
    /// The BTF of functions and lines, in the kernel; `None`: no records.
    pub(crate) btf: Option<BorrowedFd<'a>>,
    pub(crate) functions: &'a [Function],
    pub(crate) lines: &'a [Line],
    pub(crate) frags: bool,
    pub(crate) place: Place<'a>,
}

/// Where a program is going to run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// On any interface.
    Anywhere,
    /// On this interface alone, whose driver it may call (`BPF_F_XDP_DEV_BOUND_ONLY`).
    Bound(u32),
    /// Instead of a function of another program (`BPF_PROG_TYPE_EXT`): by its BTF id there.
    Function(BorrowedFd<'a>, u32),
}

/// The verifier's answer to a refused program.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: io::Error,
    pub(crate) log: String,
}

/// What the verifier is asked to write: nothing but its statistics.
const LOG_STATS: u32 = 4;
/// The largest log that is asked for, in bytes: what a program of a million instructions makes.
const LARGEST_LOG: usize = 256 << 20;
/// Its walk, with source lines.
const LOG_WALK: u32 = 1;

impl Load<'_> {
    /// Loads the program. Returns it with the verifier's statistics.
    pub(crate) fn load(&self) -> Result<(OwnedFd, String), Refused> {
        let mut log = vec![0; 4096];
        match self.attempt(&mut log, LOG_STATS) {
            Ok(fd) => Ok((fd, log_text(&log))),
            // A second attempt for the log: writing it always would cost more than verifying.
            Err(_) => self.load_with_log(),
        }
    }

    fn load_with_log(&self) -> Result<(OwnedFd, String), Refused> {
        let mut size = 4 << 20;
        loop {
            let mut log = vec![0; size];
            match self.attempt(&mut log, LOG_WALK | LOG_STATS) {
                Ok(fd) => return Ok((fd, log_text(&log))),
                // Kernels before 6.4 keep a log's beginning, and what is wrong stands at its end.
                Err(error) if is_no_space(&error) && size < LARGEST_LOG => size *= 4,
                Err(error) => return Err(Refused { error, log: log_text(&log) }),
            }
        }
    }

    fn attempt(&self, log: &mut [u8], level: u32) -> io::Result<OwnedFd> {
        let instructions: Vec<sys::bpf_insn> = self.instructions.iter().map(to_sys).collect();
        let functions: Vec<_> = self
            .functions
            .iter()
            .map(|f| sys::bpf_func_info { insn_off: f.offset, type_id: f.type_id })
            .collect();
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| sys::bpf_line_info {
                insn_off: line.offset,
                file_name_off: line.file,
                line_off: line.text,
                line_col: line.position,
            })
            .collect();
        let name = CString::new(self.name).map_err(|_| io::ErrorKind::InvalidInput)?;
        let licence = CString::new(self.licence).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut opts = sys::bpf_prog_load_opts {
            sz: size_of::<sys::bpf_prog_load_opts>() as sys::size_t,
            // PROG_ARRAYs remember it: a program loaded without could not use the same one.
            expected_attach_type: sys::BPF_XDP,
            prog_flags: if self.frags { sys::BPF_F_XDP_HAS_FRAGS } else { 0 },
            log_level: level,
            log_buf: log.as_mut_ptr().cast(),
            log_size: u32::try_from(log.len()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let mut kind = sys::BPF_PROG_TYPE_XDP;
        match self.place {
            Place::Anywhere => {}
            Place::Bound(interface_index) => {
                opts.prog_flags |= sys::BPF_F_XDP_DEV_BOUND_ONLY;
                opts.prog_ifindex = interface_index;
            }
            Place::Function(program, function) => {
                // It inherits what the flags and the attach type would say from its target.
                kind = sys::BPF_PROG_TYPE_EXT;
                opts.prog_flags = 0;
                opts.expected_attach_type = 0;
                opts.attach_prog_fd = program.as_raw_fd().cast_unsigned();
                opts.attach_btf_id = function;
            }
        }
        if let Some(btf) = self.btf {
            opts.prog_btf_fd = btf.as_raw_fd().cast_unsigned();
            opts.func_info = functions.as_ptr().cast();
            opts.func_info_cnt = functions.len() as u32;
            opts.func_info_rec_size = size_of::<sys::bpf_func_info>() as u32;
            if !lines.is_empty() {
                opts.line_info = lines.as_ptr().cast();
                opts.line_info_cnt = lines.len() as u32;
                opts.line_info_rec_size = size_of::<sys::bpf_line_info>() as u32;
            }
        }
        // SAFETY: all pointers are to buffers of this frame with the lengths given.
        let fd = unsafe {
            sys::bpf_prog_load(
                kind,
                name.as_ptr(),
                licence.as_ptr(),
                instructions.as_ptr(),
                instructions.len() as sys::size_t,
                &raw mut opts,
            )
        };
        owned(fd)
    }
}

fn is_no_space(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOSPC)
}

pub(crate) fn is_not_permitted(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::PERM)
}

fn to_sys(insn: &Insn) -> sys::bpf_insn {
    let mut raw =
        sys::bpf_insn { code: insn.code, off: insn.off, imm: insn.imm, ..Default::default() };
    raw.set_dst_reg(insn.dst);
    raw.set_src_reg(insn.src);
    raw
}

pub(crate) fn from_sys(raw: &sys::bpf_insn) -> Insn {
    Insn { code: raw.code, dst: raw.dst_reg(), src: raw.src_reg(), off: raw.off, imm: raw.imm }
}

fn log_text(log: &[u8]) -> String {
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

/// Takes ownership of a descriptor that a libbpf function returned, or its error: negative.
pub(crate) fn owned(fd: c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a non-negative result is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn done(code: c_int) -> io::Result<()> {
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Pins a BPF object.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    let pinned = c_path(path).and_then(|text| {
        // SAFETY: the path is zero-terminated, the descriptor is open.
        done(unsafe { sys::bpf_obj_pin(fd.as_raw_fd(), text.as_ptr()) })
    });
    pinned.map_err(|e| Error::os(format!("pin {}", path.display()), e))
}

/// Opens a pin; `None`: there is none.
pub(crate) fn open_pin(path: &Path) -> Result<Option<OwnedFd>, Error> {
    let opened = c_path(path).and_then(|text| {
        // SAFETY: the path is zero-terminated.
        owned(unsafe { sys::bpf_obj_get(text.as_ptr()) })
    });
    match opened {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::os(format!("open pin {}", path.display()), e)),
    }
}

/// What the kernel tells about a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The kernel's id.
    pub id: u32,
    /// The name, at most 15 characters.
    pub name: String,
    /// Sixteen hexadecimal digits.
    pub tag: String,
    /// Translated size in bytes.
    pub translated_bytes: u32,
    /// Machine code in bytes; 0 without a JIT.
    pub jited_bytes: u32,
    /// Instructions that the verifier walked; 0 before 5.16, which does not say.
    pub verified_instructions: u32,
    /// How often it ran while the kernel kept count (`kernel.bpf_stats_enabled`).
    pub runs: u64,
    /// And for how long in all.
    pub run_nanoseconds: u64,
}

/// Asks the kernel about a program.
pub(crate) fn program_info(fd: BorrowedFd<'_>) -> Result<ProgramInfo, Error> {
    let mut info = sys::bpf_prog_info::default();
    let mut size = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into the structure; it is zeroed, so it asks
    // for no array.
    done(unsafe { sys::bpf_prog_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut size) })
        .map_err(|e| Error::os("ask for a program's info", e))?;
    let name = info.name.iter().map(|&c| c.cast_unsigned()).take_while(|&c| c != 0).collect();
    Ok(ProgramInfo {
        id: info.id,
        name: String::from_utf8(name).unwrap_or_default(),
        tag: info.tag.iter().map(|byte| format!("{byte:02x}")).collect(),
        translated_bytes: info.xlated_prog_len,
        jited_bytes: info.jited_prog_len,
        verified_instructions: info.verified_insns,
        runs: info.run_cnt,
        run_nanoseconds: info.run_time_ns,
    })
}

/// Opens a loaded program by the kernel's id; `None`: it is gone.
///
/// # Errors
/// The kernel's answer, such as "operation not permitted" without `CAP_SYS_ADMIN`.
pub fn program_by_id(id: u32) -> Result<Option<ProgramInfo>, Error> {
    // SAFETY: no pointers.
    match owned(unsafe { sys::bpf_prog_get_fd_by_id(id) }) {
        Ok(fd) => program_info(fd.as_fd()).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::os(format!("open program {id}"), e)),
    }
}

/// What the kernel tells about an XDP link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's id of the link.
    pub id: u32,
    /// The id of the program it runs.
    pub program_id: u32,
    /// The interface it is on; 0: the interface is gone.
    pub interface_index: u32,
}

/// Maps of a chain, held open. A program keeps its maps, but not what is in some of them: the
/// kernel empties a program array and cancels timers when the last descriptor and pin are gone.
pub(crate) type Maps = Arc<[OwnedFd]>;

/// An XDP program attached by a BPF link. It stays attached while the value lives or is pinned.
///
/// The value holds the chain's maps as well. A pinned link does not: pin the maps then, with
/// [`MapHome::Pinned`](crate::MapHome::Pinned), or program arrays are emptied when the process
/// ends.
#[derive(Debug)]
pub struct Link {
    link: OwnedFd,
    /// `None`: the maps are pinned.
    maps: Option<Maps>,
}

impl Link {
    /// Attaches `program`.
    pub(crate) fn attach(
        program: BorrowedFd<'_>,
        interface_index: u32,
        mode: AttachMode,
    ) -> io::Result<Self> {
        let flags = match mode {
            AttachMode::Native => sys::XDP_FLAGS_DRV_MODE,
            AttachMode::Skb => sys::XDP_FLAGS_SKB_MODE,
            AttachMode::Offload => sys::XDP_FLAGS_HW_MODE,
        };
        let opts = sys::bpf_link_create_opts {
            sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
            flags,
            ..Default::default()
        };
        let index = c_int::try_from(interface_index).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the options live for the call.
        let fd = unsafe {
            sys::bpf_link_create(program.as_raw_fd(), index, sys::BPF_XDP, &raw const opts)
        };
        owned(fd).map(|link| Self { link, maps: None })
    }

    /// Holds `maps` open as long as this value lives, instead of others.
    pub(crate) fn hold(&mut self, maps: &Maps) {
        self.maps = Some(Arc::clone(maps));
    }

    /// Opens a pinned link; `None`: there is none.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        Ok(open_pin(path)?.map(|link| Self { link, maps: None }))
    }

    /// Pins the link, so that it stays attached when this process ends.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn pin(&self, path: &Path) -> Result<(), Error> {
        pin(self.link.as_fd(), path)
    }

    /// Replaces the program in one step. With `old`, only if that one is running.
    pub(crate) fn update(
        &self,
        new: BorrowedFd<'_>,
        old: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let opts = sys::bpf_link_update_opts {
            sz: size_of::<sys::bpf_link_update_opts>() as sys::size_t,
            flags: if old.is_some() { sys::BPF_F_REPLACE } else { 0 },
            old_prog_fd: old.map_or(0, |fd| fd.as_raw_fd().cast_unsigned()),
            ..Default::default()
        };
        // SAFETY: the options live for the call.
        done(unsafe {
            sys::bpf_link_update(self.link.as_raw_fd(), new.as_raw_fd(), &raw const opts)
        })
    }

    /// Takes the program off the interface, whoever else holds the link.
    pub(crate) fn detach(&self) -> io::Result<()> {
        // SAFETY: no pointers.
        done(unsafe { sys::bpf_link_detach(self.link.as_raw_fd()) })
    }

    /// What the kernel tells about the link.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn info(&self) -> Result<LinkInfo, Error> {
        let mut info = sys::bpf_link_info::default();
        let mut size = size_of::<sys::bpf_link_info>() as u32;
        let target = (&raw mut info).cast::<c_void>();
        // SAFETY: the kernel writes at most `size` bytes into the structure.
        done(unsafe { sys::bpf_obj_get_info_by_fd(self.link.as_raw_fd(), target, &raw mut size) })
            .map_err(|e| Error::os("ask for a link's info", e))?;
        // SAFETY: for XDP links, the only ones we open, the kernel fills this arm of the union;
        // any bits are a valid number.
        let interface_index = unsafe { info.__bindgen_anon_1.xdp.ifindex };
        Ok(LinkInfo { id: info.id, program_id: info.prog_id, interface_index })
    }
}
