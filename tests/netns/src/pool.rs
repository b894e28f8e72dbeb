//! The programs that random chains are made of. The build script reads this list too: it compiles
//! each program a second time, as a step of a tail-call chain.

/// A program of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Pooled {
    /// The test object or the built-in program it is in.
    pub object: &'static str,
    /// Its entry.
    pub entry: &'static str,
    /// Its globals: a JSON object, or empty.
    pub globals: &'static str,
    /// How often it is in the pool, each with maps and globals of its own.
    pub copies: usize,
}

const fn plain(object: &'static str, entry: &'static str) -> Pooled {
    Pooled { object, entry, globals: "", copies: 1 }
}

const fn with(object: &'static str, entry: &'static str, globals: &'static str) -> Pooled {
    Pooled { object, entry, globals, copies: 1 }
}

/// The pool.
pub const POOL: [Pooled; 46] = [
    Pooled { object: "verdict", entry: "v_live", globals: "", copies: 6 },
    plain("verdict", "v_aborted"),
    plain("verdict", "v_drop"),
    plain("verdict", "v_pass"),
    plain("verdict", "v_tx"),
    plain("verdict", "v_redirect"),
    plain("verdict", "v_invalid"),
    plain("verdict", "v_negative"),
    plain("verdict", "v_opaque"),
    with("verdict", "v_global", r#"{"verdict": 3}"#),
    with("verdict", "v_port", r#"{"port": 20000, "port_verdict": 1}"#),
    with("order", "mark", r#"{"id": 11}"#),
    with("order", "mark", r#"{"id": 22}"#),
    with("order", "mark", r#"{"id": 33}"#),
    with("order", "mark_a", r#"{"id": 44, "offset": 20, "verdict": 1}"#),
    plain("subprogs", "s_static"),
    plain("subprogs", "s_global"),
    plain("subprogs", "s_callback"),
    plain("subprogs", "s_bounded"),
    plain("subprogs", "s_mixed"),
    plain("tailcall", "member"),
    plain("tailcall", "member_empty"),
    plain("tailcall", "member_in_sub"),
    plain("adjust", "a_head"),
    plain("adjust", "a_head_back"),
    plain("adjust", "a_tail"),
    plain("adjust", "a_meta"),
    plain("adjust", "a_meta_read"),
    plain("stack", "stack_8"),
    plain("stack", "stack_256"),
    plain("stack", "stack_400"),
    plain("stack", "stack_400_sub_64"),
    plain("stack", "stack_104_sub_256"),
    plain("frags", "f_frags"),
    plain("frags", "f_length"),
    plain("timer", "arm"),
    plain("spinlock", "locked"),
    plain("percpu", "percpu"),
    plain("mapinmap", "nested"),
    plain("globals", "globals"),
    plain("nobtf", "nobtf"),
    plain("gpl", "gpl"),
    plain("udp_port_filter", "mtl_dp_filter"),
    plain("cidr_blocklist", "cidr_blocklist"),
    plain("counting_pass", "counting_pass"),
    plain("xskmap_redirect", "xsk_redirect"),
];

/// A program of the pool that ends in a tail call of its own.
#[derive(Debug, Clone, Copy)]
pub struct Jump {
    /// The test object.
    pub object: &'static str,
    /// The program's entry.
    pub entry: &'static str,
    /// The program it jumps to, in the same object.
    pub to: &'static str,
    /// The object's program array, which has it in its first slot.
    pub by: &'static str,
}

/// All of them. `member_in_sub` is none: what it jumps to returns to it.
pub const JUMPS: [Jump; 1] =
    [Jump { object: "tailcall", entry: "member", to: "target", by: "targets" }];
