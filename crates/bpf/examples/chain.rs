//! A chain of two programs from an ELF object: `chain INTERFACE OBJECT.o ENTRY ENTRY`.

use pointsman_bpf::{Chain, MapHome, Member, Slot, interface_index, probe};
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{Action, ActionSet, EntryName, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [interface, path, first, second] = arguments.as_slice() else {
        return Err("usage: chain INTERFACE OBJECT.o ENTRY ENTRY".into());
    };
    let (object, kernel) = (std::fs::read(path)?, probe()?);
    let open = |entry: &str| -> Result<Member, Box<dyn std::error::Error>> {
        let mut program = ResolvedProgram::new(Sha256::of(&object), path);
        program.entry = Some(EntryName::new(entry)?);
        Ok(Member::prepare(&object, &program, &MapHome::Anonymous, kernel.stack_rounding, None)?)
    };
    let (first, second) = (open(first)?, open(second)?);
    let go_on = ActionSet::PASS.with(Action::Tx);
    let chain = Chain::fuse(
        &[
            Slot { name: "first", member: &first, actions: go_on, enforce: true, priority: 10 },
            Slot { name: "second", member: &second, actions: go_on, enforce: true, priority: 20 },
        ],
        kernel.stack_rounding,
        true,
    )?;
    let _attached = chain.attach(interface_index(interface)?, AttachMode::Native)?;
    println!("attached as program {}; press Enter to stop", chain.info()?.id);
    std::io::stdin().read_line(&mut String::new())?;
    println!("{:?}", chain.counters().map(pointsman_bpf::Counters::read).transpose()?);
    Ok(())
}
