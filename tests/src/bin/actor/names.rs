//! Names of hosts: DNS questions and answers on the UDP socket that was made last, and the beginning of TLS on the
//! connection that was made last.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use crate::Actor;

/// How long [`echo`] waits for the next question.
const LAST: Duration = Duration::from_millis(200);

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["dns", "ask", id, name, server] => ask(actor, id, name, server),
        // Names are the one that was asked for, and its aliases; the last has the address.
        ["dns", "answer", id, names, address, to] => answer(actor, id, names, address, to),
        ["dns", "flood", count, server] => flood(actor, count, server),
        ["dns", "echo", count] => echo(actor, count),
        ["hello", name] => hello(actor, name),
        _ => return None,
    })
}

fn ask(actor: &Actor, id: &str, name: &str, server: &str) -> Result<String> {
    let mut packet = Packet::new_query(id.parse()?);
    packet.questions.push(question(name, TYPE::A)?);
    send(actor, &packet, server)
}

/// Asks that many different questions without waiting for answers.
fn flood(actor: &Actor, count: &str, server: &str) -> Result<String> {
    for id in 0..count.parse::<u16>()? {
        ask(actor, &id.to_string(), "www.example.org", server)?;
    }
    Ok(String::new())
}

/// Answers that many questions, as far as they come.
fn echo(actor: &Actor, count: &str) -> Result<String> {
    let socket = actor.datagrams.last().context("no socket")?;
    socket.set_read_timeout(Some(LAST))?;
    let mut buffer = [0; 512];
    for _ in 0..count.parse::<u32>()? {
        // The rest did not fit in the socket.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { break };
        let question = Packet::parse(buffer.get(..length).context("it was received")?)?;
        answer(actor, &question.id().to_string(), "www.example.org", "127.0.0.9", &from.to_string())?;
    }
    socket.set_read_timeout(None)?;
    Ok(String::new())
}

fn question<'a>(name: &'a str, of: TYPE) -> Result<Question<'a>> {
    Ok(Question::new(Name::new(name)?, QTYPE::TYPE(of), QCLASS::CLASS(CLASS::IN), false))
}

fn answer(actor: &Actor, id: &str, names: &str, address: &str, to: &str) -> Result<String> {
    let names: Vec<_> = names.split(',').collect();
    let mut packet = Packet::new_reply(id.parse()?);
    packet.questions.push(question(names.first().context("a name")?, TYPE::A)?);
    for pair in names.windows(2) {
        if let [name, alias] = pair {
            packet.answers.push(record(name, RData::CNAME(CNAME(Name::new(alias)?)))?);
        }
    }
    let rdata = match address.parse()? {
        IpAddr::V4(ip) => RData::A(A { address: ip.into() }),
        IpAddr::V6(ip) => RData::AAAA(AAAA { address: ip.into() }),
    };
    packet.answers.push(record(names.last().context("a name")?, rdata)?);
    send(actor, &packet, to)
}

fn record<'a>(name: &'a str, rdata: RData<'a>) -> Result<ResourceRecord<'a>> {
    Ok(ResourceRecord::new(Name::new(name)?, CLASS::IN, 60, rdata))
}

fn send(actor: &Actor, packet: &Packet<'_>, to: &str) -> Result<String> {
    let socket = actor.datagrams.last().context("no socket")?;
    socket.send_to(&packet.build_bytes_vec_compressed()?, to.parse::<SocketAddr>()?)?;
    Ok(String::new())
}

/// A ClientHello (RFC 8446, section 4.1.2) with the name of the server and padding, in one TLS record.
fn hello(actor: &mut Actor, name: &str) -> Result<String> {
    let counted = |bytes: &[u8]| -> Result<Vec<u8>> {
        Ok([&u16::try_from(bytes.len())?.to_be_bytes()[..], bytes].concat())
    };
    let extension = |kind: u16, bytes: &[u8]| -> Result<Vec<u8>> {
        Ok([kind.to_be_bytes().to_vec(), counted(bytes)?].concat())
    };
    let server = counted(&[&[0][..], &counted(name.as_bytes())?].concat())?;
    let extensions = [extension(21, &[0; 900])?, extension(0, &server)?].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &counted(&[0x13, 0x01])?, &[1, 0], &counted(&extensions)?].concat();
    let length = u32::try_from(body.len())?.to_be_bytes();
    let message = [&[1][..], length.get(1..).context("four bytes")?, &body].concat();
    let stream = actor.streams.last_mut().context("no connection")?;
    stream.write_all(&[&[22, 3, 1][..], &counted(&message)?].concat())?;
    Ok(String::new())
}
