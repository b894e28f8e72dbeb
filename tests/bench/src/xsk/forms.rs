//! The two programs that lead packets to the socket, on one link.

use super::stage::{QUEUE, Stage, Taker};
use anyhow::{Context as _, Result, ensure};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder};
use pointsman_bpf::Chain;
use pointsman_model::Action;
use pointsman_model::observed::AttachMode;
use pointsman_netns::members::fuse;
use pointsman_netns::sockets::{Redirect, put, sockets};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

/// The port of the benchmark's datagrams.
const PORT: u16 = 20_000;

/// What leads packets to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A program that does nothing else.
    Bare,
    /// The port filter and the redirect of instances, fused and counted as the daemon does it.
    Chain,
}

impl Form {
    pub(super) const ALL: [Self; 2] = [Self::Bare, Self::Chain];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare_xskmap",
            Self::Chain => "chain",
        }
    }
}

/// Both, loaded, each with the socket in its map.
pub(super) struct Forms {
    bare: Object,
    chain: Chain,
    /// One link, held twice: each library swaps its own programs.
    link: libbpf_rs::Link,
    ours: pointsman_bpf::Link,
    /// Packets that were taken behind the chain.
    behind_chain: u64,
    _own: MapHandle,
    _redirect: Redirect,
}

impl Forms {
    /// Loads both and attaches the chain.
    pub(super) fn attach(stage: &Stage, taker: &Taker) -> Result<Self> {
        let path = Path::new(env!("OUT_DIR")).join("bare_xskmap-none-1.o");
        let bare = ObjectBuilder::default().open_file(&path)?.load().context("load")?;
        let map = bare.maps().find(|map| map.name() == "xsks_map").context("the map")?;
        let socket = taker.socket.as_fd().as_raw_fd().to_ne_bytes();
        map.update(&QUEUE.to_ne_bytes(), &socket, MapFlags::ANY).context("put the socket")?;

        let redirect = Redirect::prepare(stage.maps.path());
        redirect.list(PORT, true);
        let own = sockets();
        put(&own, QUEUE, &taker.socket);
        redirect.own(QUEUE, Some(&own));
        let chain = fuse(&redirect.slots());

        let index = stage.pair.right.index(&stage.device);
        let attach = || chain.attach(index, AttachMode::Native);
        let ours = stage.pair.right.run(attach).context("attach the chain")?;
        let pin = stage.maps.path().join("link");
        ours.pin(&pin)?;
        let link = libbpf_rs::Link::open(&pin).context("the pinned link")?;
        std::fs::remove_file(&pin).with_context(|| pin.display().to_string())?;
        Ok(Self { bare, chain, link, ours, behind_chain: 0, _own: own, _redirect: redirect })
    }

    /// Makes `form` the one that runs.
    pub(super) fn swap(&mut self, form: Form) -> Result<()> {
        match form {
            Form::Bare => {
                let program = self.bare.progs().next().context("a program")?;
                Ok(self.link.update_prog(&program)?)
            }
            Form::Chain => Ok(self.chain.swap_into(&mut self.ours)?),
        }
    }

    /// So many packets were taken behind `form`.
    pub(super) fn took(&mut self, form: Form, packets: u64) {
        if form == Form::Chain {
            self.behind_chain += packets;
        }
    }

    /// Whether the chain led to the socket what came behind it: by its own counters.
    pub(super) fn check(&self) -> Result<()> {
        let exits = self.chain.counters().context("a chain that counts")?.read()?;
        let redirected = exits.members[1].get(Action::Redirect);
        let came = self.behind_chain;
        ensure!(redirected >= came, "the chain redirected {redirected} packets, and {came} came");
        Ok(())
    }
}
