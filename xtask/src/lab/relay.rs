//! A door on this host's loopback to a service in a namespace, for people with a browser.

use super::Namespace;
use anyhow::{Context, Result};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Opens the door and gives its address. It is open until this process ends, and nothing behind it
/// outlives it.
pub(crate) fn open(namespace: &Namespace, to: SocketAddrV4) -> Result<SocketAddrV4> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
    let port = listener.local_addr().context("cannot listen")?.port();
    let (wanted, wants) = channel::<Sender<io::Result<TcpStream>>>();
    // A connection belongs to the namespace of the thread that makes it.
    namespace.spawn(move || connect(to, &wants))?;
    let accept = move || {
        for visitor in listener.incoming().flatten() {
            let (tell, told) = channel();
            if wanted.send(tell).is_err() {
                return;
            }
            if let Ok(Ok(service)) = told.recv() {
                let _ = pump(visitor, service);
            }
        }
    };
    thread::Builder::new().spawn(accept).context("cannot start a thread")?;
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn connect(to: SocketAddrV4, wants: &Receiver<Sender<io::Result<TcpStream>>>) {
    while let Ok(tell) = wants.recv() {
        // Who asked may have gone.
        let _ = tell.send(TcpStream::connect(to));
    }
}

/// Carries bytes both ways until both sides have ended.
fn pump(visitor: TcpStream, service: TcpStream) -> io::Result<()> {
    let ways = [(visitor.try_clone()?, service.try_clone()?), (service, visitor)];
    for (mut from, mut to) in ways {
        thread::Builder::new().spawn(move || {
            // A side that breaks off is a side that has ended.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn bytes_go_both_ways_and_ends_are_told() {
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let pair = |listener: &TcpListener| {
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        };
        let (mut person, visitor) = pair(&listener());
        let (service, mut server) = pair(&listener());
        pump(visitor, service).unwrap();
        person.write_all(b"question").unwrap();
        person.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "question");
        server.write_all(b"answer").unwrap();
        drop(server);
        heard.clear();
        person.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "answer");
    }
}
