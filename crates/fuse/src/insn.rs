//! BPF instructions as numbers: `struct bpf_insn` of `linux/bpf.h`, and the few that fusing needs.

/// One 8-byte BPF instruction slot. A 64-bit load takes two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Insn {
    /// The opcode.
    pub code: u8,
    /// The destination register, 0 to 10.
    pub dst: u8,
    /// The source register, or a `BPF_PSEUDO_*` marker.
    pub src: u8,
    /// A signed offset: of a jump in instructions, of an access in bytes.
    pub off: i16,
    /// The immediate value.
    pub imm: i32,
}

/// A call into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A helper, by the number of `enum bpf_func_id`.
    Helper(i32),
    /// A kernel function.
    Kernel {
        /// Its BTF id.
        id: i32,
        /// 0 for the kernel itself, else an index of the program's array of module descriptors.
        module: i16,
    },
}

/// `bpf_get_smp_processor_id` (helper 8).
pub(crate) const HELPER_SMP_PROCESSOR_ID: i32 = 8;
/// `bpf_tail_call` (helper 12).
pub(crate) const HELPER_TAIL_CALL: i32 = 12;
/// `BPF_PSEUDO_CALL`: the immediate is relative to the next instruction.
pub(crate) const PSEUDO_CALL: u8 = 1;
/// `BPF_PSEUDO_KFUNC_CALL`: the immediate is a BTF id, the offset picks a module.
pub(crate) const PSEUDO_KFUNC_CALL: u8 = 2;
/// `BPF_PSEUDO_MAP_FD`: the immediate is a map's descriptor.
pub(crate) const PSEUDO_MAP_FD: u8 = 1;
/// `BPF_PSEUDO_MAP_VALUE`: the next slot's immediate is an offset into the value.
pub(crate) const PSEUDO_MAP_VALUE: u8 = 2;
/// `BPF_PSEUDO_FUNC`: a 64-bit load of a subprogram's address.
pub(crate) const PSEUDO_FUNC: u8 = 4;

const LD_IMM64: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

impl Insn {
    /// `exit`.
    #[must_use]
    pub const fn exit() -> Self {
        Self { code: EXIT, dst: 0, src: 0, off: 0, imm: 0 }
    }

    /// `wDST = IMM`: the upper half becomes zero.
    #[must_use]
    pub const fn mov32_imm(dst: u8, imm: i32) -> Self {
        Self { code: 0xb4, dst, src: 0, off: 0, imm }
    }

    /// `wDST = wSRC`: the upper half becomes zero.
    #[must_use]
    pub const fn mov32(dst: u8, src: u8) -> Self {
        Self { code: 0xbc, dst, src, off: 0, imm: 0 }
    }

    /// `rDST = rSRC`.
    #[must_use]
    pub const fn mov64(dst: u8, src: u8) -> Self {
        Self { code: 0xbf, dst, src, off: 0, imm: 0 }
    }

    pub(crate) const fn and32_imm(dst: u8, imm: i32) -> Self {
        Self { code: 0x54, dst, src: 0, off: 0, imm }
    }

    pub(crate) const fn shl64_imm(dst: u8, imm: i32) -> Self {
        Self { code: 0x67, dst, src: 0, off: 0, imm }
    }

    pub(crate) const fn mul64_imm(dst: u8, imm: i32) -> Self {
        Self { code: 0x27, dst, src: 0, off: 0, imm }
    }

    pub(crate) const fn add64(dst: u8, src: u8) -> Self {
        Self { code: 0x0f, dst, src, off: 0, imm: 0 }
    }

    pub(crate) const fn add64_imm(dst: u8, imm: i32) -> Self {
        Self { code: 0x07, dst, src: 0, off: 0, imm }
    }

    pub(crate) const fn load64(dst: u8, src: u8, off: i16) -> Self {
        Self { code: 0x79, dst, src, off, imm: 0 }
    }

    pub(crate) const fn store64(dst: u8, src: u8, off: i16) -> Self {
        Self { code: 0x7b, dst, src, off, imm: 0 }
    }

    /// A call of helper `id`.
    #[must_use]
    pub const fn call_helper(id: i32) -> Self {
        Self { code: CALL, dst: 0, src: 0, off: 0, imm: id }
    }

    pub(crate) const fn call_subprogram() -> Self {
        Self { code: CALL, dst: 0, src: PSEUDO_CALL, off: 0, imm: 0 }
    }

    /// `goto`.
    pub(crate) const fn jump() -> Self {
        Self { code: 0x05, dst: 0, src: 0, off: 0, imm: 0 }
    }

    /// `if wDST == IMM goto`.
    pub(crate) const fn jeq32_imm(dst: u8, imm: i32) -> Self {
        Self { code: 0x16, dst, src: 0, off: 0, imm }
    }

    /// `if wDST != IMM goto`.
    pub(crate) const fn jne32_imm(dst: u8, imm: i32) -> Self {
        Self { code: 0x56, dst, src: 0, off: 0, imm }
    }

    /// `if rDST <= IMM goto`, unsigned.
    pub(crate) const fn jle64_imm(dst: u8, imm: i32, off: i16) -> Self {
        Self { code: 0xb5, dst, src: 0, off, imm }
    }

    /// `rDST = address of a map's value`, in two slots.
    pub(crate) const fn map_value(dst: u8, fd: i32) -> [Self; 2] {
        let first = Self { code: LD_IMM64, dst, src: PSEUDO_MAP_VALUE, off: 0, imm: fd };
        [first, Self { code: 0, dst: 0, src: 0, off: 0, imm: 0 }]
    }

    pub(crate) const fn is_exit(self) -> bool {
        self.code == EXIT
    }

    pub(crate) const fn is_wide(self) -> bool {
        self.code == LD_IMM64
    }

    /// Whether the immediate is the distance to a function: a call or a load of its address.
    pub(crate) const fn refers_to_function(self) -> bool {
        (self.code == CALL && self.src == PSEUDO_CALL)
            || (self.code == LD_IMM64 && self.src == PSEUDO_FUNC)
    }

    /// The descriptor of the map it loads the address of, or of whose value.
    #[must_use]
    pub const fn map(self) -> Option<i32> {
        match (self.code, self.src) {
            (LD_IMM64, PSEUDO_MAP_FD | PSEUDO_MAP_VALUE) => Some(self.imm),
            _ => None,
        }
    }

    /// What of the kernel it calls, if anything.
    #[must_use]
    pub const fn called(self) -> Option<Call> {
        match (self.code, self.src) {
            (CALL, 0) => Some(Call::Helper(self.imm)),
            (CALL, PSEUDO_KFUNC_CALL) => Some(Call::Kernel { id: self.imm, module: self.off }),
            _ => None,
        }
    }

    /// Whether register `register` is the same afterwards. Calls leave r6 to r10 alone only.
    pub(crate) const fn keeps(self, register: u8) -> bool {
        const LD: u8 = 0;
        const LDX: u8 = 1;
        const STX: u8 = 3;
        const ALU: u8 = 4;
        const ALU64: u8 = 7;
        const ATOMIC: u8 = 0xc0;
        match self.code & 0x07 {
            LD | LDX | ALU | ALU64 => self.dst != register,
            // An atomic operation may fetch into its source, or into r0.
            STX if self.code & 0xe0 == ATOMIC => self.src != register && register != 0,
            _ => self.code != CALL || register >= 6,
        }
    }

    /// Whether it stores through a register (classes ST and STX, atomics included).
    pub(crate) const fn stores(self) -> bool {
        matches!(self.code & 0x07, 0x02 | 0x03)
    }
}
