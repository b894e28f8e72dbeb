//! A chain of two programs from an ELF object: `chain INTERFACE OBJECT.o ENTRY ENTRY`.

use pointsman_bpf::{Chain, Member, Slot, interface_index, probe};
use pointsman_model::observed::AttachMode;
use pointsman_model::{Action, ActionSet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [interface, path, first, second] = arguments.as_slice() else {
        return Err("usage: chain INTERFACE OBJECT.o ENTRY ENTRY".into());
    };
    let object = std::fs::read(path)?;
    let rounding = probe()?.stack_rounding;
    let first = Member::open(&object, first, rounding)?;
    let second = Member::open(&object, second, rounding)?;

    // The lowest priority runs first. After PASS and TX the chain goes on, all else is final.
    let actions = ActionSet::PASS.with(Action::Tx);
    let slots = [
        Slot { priority: 10, actions, ..Slot::new("first", &first) },
        Slot { priority: 20, actions, ..Slot::new("second", &second) },
    ];
    let chain = Chain::fuse(&slots, rounding, true)?;
    let _attached = chain.attach(interface_index(interface)?, AttachMode::Native)?;
    println!("attached as program {}; press Enter to stop", chain.info()?.id);
    std::io::stdin().read_line(&mut String::new())?;
    if let Some(counters) = chain.counters() {
        println!("{:?}", counters.read()?);
    }
    Ok(())
}
